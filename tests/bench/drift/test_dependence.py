import numpy as np
import pytest

from bench.drift import dependence
from bench.drift.dependence import Served, called, tables
from penstock_server.drift.dependence import association


def test_columns_have_the_correlation_that_they_are_said_to_have() -> None:
    rng = np.random.default_rng(0)
    strong, weak, none = (association(tables(rng, 5000, rho, 0.0, 4)).mean() for rho in (0.8, 0.4, 0.0))
    assert strong > 0.4 > weak > 0.1 > none
    moved = tables(rng, 5000, 0.8, 0.5, 4)
    assert moved.sum(axis=2)[:, 0].mean() == pytest.approx(5000 * 0.12, rel=0.1)


def test_what_changed_is_called_and_what_did_not_is_not() -> None:
    rng = np.random.default_rng(0)
    assert called(rng, Served(1000, 0.8, moved=0.5), 20) < 0.2
    assert called(rng, Served(1000, 0.3), 20) == 1


def test_it_tells_what_is_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(dependence, "SERVED", (Served(1000, 0.3, most=0.1), Served(1000, 0.8, most=0.5)))
    monkeypatch.setattr("sys.argv", ["dependence", "--quick"])
    assert dependence.main() == 1
    off, fine = capsys.readouterr().out.splitlines()
    assert off.endswith("<- off")
    assert not fine.endswith("<- off")
