"""The data are not downloaded here: streams are made up."""

import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bench.drift import accuracy

RNG = np.random.default_rng(0)


def stream(rows: int = 12_000, turns_at: float = 1.0) -> accuracy.Stream:
    """Rows that get harder; from a share of them on the relation is another one."""
    x = RNG.normal(size=(rows, 2)) * np.linspace(3, 0.5, rows)[:, None]
    truth = x[:, 0] + RNG.normal(size=rows) > 0
    turned = np.arange(rows) >= turns_at * rows
    return x, np.where(turned, ~truth, truth).astype(int)


def test_rows_that_get_harder_are_expected_to() -> None:
    found = accuracy.summary([accuracy.served(stream(), LogisticRegression(), 0.4, 0.2)])
    assert found.chunks == 9
    assert found.error < found.error_always / 2
    assert found.correlation > 0.8
    assert found.in_band >= 0.8
    assert found.lowest.true < found.lowest.expected.reference


def test_another_relation_is_not_seen() -> None:
    chunks = accuracy.served(stream(turns_at=0.7), LogisticRegression(), 0.4, 0.2)
    assert chunks[0].is_in_band
    assert not any(chunk.is_in_band for chunk in chunks[3:])


def test_a_line_tells_the_numbers() -> None:
    found = accuracy.summary([accuracy.served(stream(), LogisticRegression(), 0.4, 0.2)])
    shown = accuracy.line("made up", found).split()
    assert shown[:3] == ["made", "up", str(found.chunks)]
    assert float(shown[3]) == pytest.approx(found.error, abs=1e-4)


def test_a_file_is_taken_out_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Any, *, check: bool) -> None:
        assert check
        assert "scikit-multiflow==0.4.1" in command
        (tmp_path / "made.csv").write_text("a,b,target\n1,,0\n2,3,1\n")
        with tarfile.open(tmp_path / "cache" / "scikit-multiflow-0.4.1.tar.gz", "w:gz") as files:
            files.add(tmp_path / "made.csv", "scikit-multiflow-0.4.1/src/datasets/elec.csv")

    monkeypatch.setattr(accuracy, "subprocess", SimpleNamespace(run=run))
    for _ in range(2):  # the second time from the cache
        rows, truth = accuracy.of_file("elec")(tmp_path / "cache")
        assert rows.tolist() == [[1.0, -1.0], [2.0, 3.0]]
        assert truth.tolist() == [0, 1]
