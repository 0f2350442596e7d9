import json
from contextlib import contextmanager
from types import SimpleNamespace

import pandas as pd
import pytest

from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.models import artifact
from penstock_tools import output, progress
from penstock_tools.calibration import check, recorded
from penstock_tools.calibration.check import Request
from tests.tools.calibration.shifted_rows import frame


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "fares.parquet"
    frame(12_000, shift_from=9000).to_parquet(path)
    return path


@pytest.fixture
def version(tmp_path, monkeypatch):
    """A published version: `artifact.read` gives it for its folder."""
    known = {name: frame(5000, seed=1)[name].to_numpy() for name in ("amount", "city")}
    spec = recorded.specification(pd.DataFrame(known))
    folder = tmp_path / "version"
    folder.mkdir()
    read = artifact.Artifact(folder, folder, features=spec, baseline=fit_baseline(spec, known))
    monkeypatch.setattr(artifact, "read", {folder: read}.get)
    return folder


def checked(request):
    with progress.bars() as bars:
        return check.check(request, bars)


def test_a_sample_alone_is_compared_with_its_first_part(sample):
    found = checked(Request(sample=sample, time="at", runs=0))
    assert [(alarm.column, alarm.kind) for alarm in found.alarms] == [("amount", "shares")]
    assert abs(found.alarms[0].since.row - 3000) <= 200
    assert found.title.endswith("its first 0.5 as training rows")
    assert (found.indexes, found.columns[0].delays, found.notes) == ((), (), ())
    assert json.loads(output.as_json(found))["alarms"][0]["column"] == "amount"


def test_a_version_is_read_from_its_folder(sample, version):
    found = checked(Request(model=str(version), sample=sample, time="at", runs=0))
    assert abs(found.alarms[0].since.row - 9000) <= 200
    assert found.rows == 12_000


@pytest.mark.parametrize(
    ("model", "address"),
    [("fares", "models:/fares@champion"), ("fares@canary", "models:/fares@canary"), ("fares/3", "models:/fares/3")],
)
def test_or_from_the_registry(sample, version, monkeypatch, model, address):
    asked = []

    @contextmanager
    def fetched(address, registry):
        asked.append((address, registry))
        yield SimpleNamespace(folder=version)

    monkeypatch.setattr(check.published.logged, "fetched", fetched)
    found = checked(Request(model=model, sample=sample, registry="sqlite:///a.db", runs=0))
    assert asked == [(address, "sqlite:///a.db")]
    assert found.months == ()
    assert "taken to be in the order of time" in found.notes[0]


def test_delays_are_measured_in_the_training_rows(tmp_path):
    frame(6000).to_parquet(tmp_path / "fares.parquet")
    found = checked(Request(sample=tmp_path / "fares.parquet", time="at", run_length=1000.0, runs=1))
    assert found.alarms == ()
    assert [len(column.delays) for column in found.columns] == [3, 3]
    assert found.columns[0].delays[2].rows <= 300


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(), "--sample FILE or with --log FOLDER"),
        (Request(sample="a", log="b"), "one of them"),
        (Request(log="b", time="at"), "--time is for samples"),
        (Request(model="m", sample="a", train_share=0.5), "--train-share is for rows without a version"),
        (Request(model="m", sample="a", without=("x",)), "--without is for rows without a version"),
        (Request(sample="a", train_share=1.0), "expected a number between 0 and 1"),
        (Request(sample="a", run_length=0.5), "--false-alarm-looks is 0.5"),
        (Request(sample="a", runs=-1), "--runs is -1"),
        (Request(model="a@", sample="a"), "expected NAME, NAME@ALIAS or NAME/VERSION"),
    ],
)
def test_options_that_do_not_belong_together(request_, words):
    with pytest.raises(InvalidInputError, match=words):
        checked(request_)


def test_a_version_without_a_baseline_is_told(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "read", lambda folder: artifact.Artifact(folder, folder))
    with pytest.raises(InvalidInputError, match="published without a drift baseline"):
        checked(Request(model=str(tmp_path), sample=sample))


def test_a_page_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(UnavailableError, match="cannot be written"):
        output.write(tmp_path / "nowhere" / "a.html", "")
