import importlib.metadata
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock_server.control import proven
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.verdict import LoadSettings, Trial, TrialLimits, Verdict
from penstock_server.models.execution import ExecutionSettings

LIMITS = TrialLimits(1024, 10.0)
PASSED = Verdict(batching="rows", note="a note", took_s=0.5)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    folder = tmp_path / "version"
    (folder / "penstock").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "penstock" / "manifest.json").write_bytes(b"{}")
    return Trial("m", "1", "identity", str(folder), LoadSettings())


@pytest.mark.parametrize("verdict", [PASSED, Verdict("did not finish")])
def test_a_verdict_is_remembered(trial: Trial, tmp_path: Path, verdict: Verdict) -> None:
    assert ProvenVersions(LIMITS, tmp_path).recall(trial) is None
    ProvenVersions(LIMITS, tmp_path).remember(trial, verdict)
    assert ProvenVersions(LIMITS, tmp_path).recall(trial) == verdict
    ProvenVersions(LIMITS, tmp_path).remember(trial, Verdict("newer"))
    assert ProvenVersions(LIMITS, tmp_path).recall(trial) == Verdict("newer")


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "other"},
        {"how": LoadSettings(threads=2)},
        {"how": LoadSettings(batching="request")},
        {"how": LoadSettings(execution=ExecutionSettings(("cuda", "cpu")))},
        {"version": "2"},
    ],
)
def test_it_counts_for_the_same_alone(trial: Trial, tmp_path: Path, change: dict[str, Any]) -> None:
    known = ProvenVersions(LIMITS, tmp_path)
    known.remember(trial, PASSED)
    assert known.recall(msgspec.structs.replace(trial, **change)) is None


def test_it_does_not_count_for_other_limits_or_releases(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ProvenVersions(LIMITS, tmp_path)
    known.remember(trial, PASSED)
    assert ProvenVersions(TrialLimits(2048, 10.0), tmp_path).recall(trial) is None
    monkeypatch.setattr(proven, "_releases", lambda: ("9",))
    assert known.recall(trial) is None


@pytest.mark.parametrize("damage", ["changed", "touched", "longer", "added", "gone"])
def test_files_that_changed_are_tried_again(trial: Trial, tmp_path: Path, damage: str) -> None:
    known = ProvenVersions(LIMITS, tmp_path)
    known.remember(trial, PASSED)
    model = Path(trial.folder, "model.onnx")
    match damage:
        case "changed":
            model.write_bytes(b"other")
        case "touched":
            os.utime(model, (1, 1))
        case "longer":
            model.write_bytes(b"model and more")
        case "added":
            Path(trial.folder, "penstock", "golden.json").touch()
        case "gone":
            model.unlink()
    assert known.recall(trial) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b"x" * 300_000])
def test_a_damaged_record_is_none(trial: Trial, tmp_path: Path, content: bytes) -> None:
    known = ProvenVersions(LIMITS, tmp_path)
    known.remember(trial, PASSED)
    (record,) = (tmp_path / "proven").iterdir()
    record.write_bytes(content)
    assert known.recall(trial) is None


def test_records_are_bounded(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven, "MOST_RECORDS", 2)
    known = ProvenVersions(LIMITS, tmp_path)
    for number, version in enumerate("1234"):
        known.remember(msgspec.structs.replace(trial, version=version), PASSED)
        for record in (tmp_path / "proven").glob(f"*.{version}-*"):
            os.utime(record, (number, number))
    known.remember(msgspec.structs.replace(trial, version="5"), PASSED)
    found = [version for version in "12345" if known.recall(msgspec.structs.replace(trial, version=version))]
    assert found == ["4", "5"]


def test_a_folder_that_cannot_be_written_is_no_error(trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "proven").write_bytes(b"a file")
    known = ProvenVersions(LIMITS, tmp_path)
    known.remember(trial, PASSED)
    assert known.recall(trial) is None


def test_it_does_not_count_for_another_package_of_onnxruntime(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime-gpu is installed in the place of onnxruntime, whose release is then known to nobody."""
    installed = {"penstock": "1", "onnxruntime": "1.32.0", "numpy": "2"}

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    proven._releases.cache_clear()
    ProvenVersions(LIMITS, tmp_path).remember(trial, PASSED)
    installed["onnxruntime-gpu"] = installed.pop("onnxruntime")
    proven._releases.cache_clear()
    assert ProvenVersions(LIMITS, tmp_path).recall(trial) is None
    ProvenVersions(LIMITS, tmp_path).remember(trial, PASSED)
    assert ProvenVersions(LIMITS, tmp_path).recall(trial) == PASSED
    proven._releases.cache_clear()
