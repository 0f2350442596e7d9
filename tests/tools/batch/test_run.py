"""Jobs from files to files: what comes out, how they go on after kill -9, and what happens to bad rows."""

import json
import os
import random

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.models import artifact
from penstock_tools import progress
from penstock_tools.batch import table as told
from penstock_tools.batch.run import Request, run
from penstock_tools.batch.scoring import Scorer
from tests.tools.batch.conftest import table
from tests.tools.batch.killed import attempt

ROWS = 4000


def done(*arguments, **options):
    with progress.bars() as bars:
        return run(Request(*map(str, arguments), processes=options.pop("processes", 1), **options), bars)


@pytest.fixture(scope="module")
def expected(version):
    """The answers to the rows, straight from the scorer."""
    scorer = Scorer(artifact.read(version), ("stay", "1"), keep=("id", "age", "fare", "city"))
    answers = pa.Table.from_batches([scorer(table(ROWS).combine_chunks().to_batches()[0])])
    scorer.close()
    return answers.replace_schema_metadata(None)


@pytest.fixture
def given(tmp_path):
    """Two files of Parquet, of four groups of rows each."""
    folder = tmp_path / "rows"
    folder.mkdir()
    whole = table(ROWS)
    for at in range(2):
        pq.write_table(whole.slice(at * ROWS // 2, ROWS // 2), folder / f"{at}.parquet", row_group_size=ROWS // 8)
    return folder


def same(path, expected):
    found = pyarrow.dataset.dataset(path, format="parquet").to_table()
    assert found.replace_schema_metadata(None).equals(expected)


def test_a_folder_of_parquet_becomes_one(version, given, tmp_path, expected):
    report = done(version, given, tmp_path / "scores", part_rows=700)
    same(tmp_path / "scores", expected)
    assert (report.rows, report.bad_rows, report.parts, report.resumed_rows) == (ROWS, 0, 8, 0)
    assert sorted(os.listdir(tmp_path)) == ["rows", "scores"]
    assert json.loads((tmp_path / "scores" / "_penstock.json").read_text())["rows"] == ROWS
    assert sum(report.classes.values()) == ROWS
    assert report.drift.rows >= ROWS // 4
    assert any(column.name == "fare" for column in report.drift.columns)
    assert any("4,000 rows" in line for line in told.lines(report))


@pytest.mark.long
@pytest.mark.slow
def test_processes_share_the_parts(version, given, tmp_path, expected):
    done(version, given, tmp_path / "scores", part_rows=700, processes=2)
    same(tmp_path / "scores", expected)


def test_csv_becomes_csv(version, tmp_path, expected):
    pyarrow.csv.write_csv(table(ROWS), tmp_path / "rows.csv")
    done(version, tmp_path / "rows.csv", tmp_path / "scores.csv", part_rows=900, key=("id",))
    found = pyarrow.csv.read_csv(tmp_path / "scores.csv")
    assert found.column_names == ["id", "label", "probabilities_leaves", "probabilities_stays"]
    assert found["id"].to_pylist() == expected["id"].to_pylist()
    assert found["label"].to_pylist() == expected["label"].to_pylist()
    assert np.array_equal(np.float32(found["probabilities_stays"]), expected["probabilities_stays"].to_numpy())
    assert sorted(os.listdir(tmp_path)) == ["rows.csv", "scores.csv"]


def test_one_file_is_joined_of_its_parts(version, given, tmp_path, expected):
    done(version, given, tmp_path / "scores.parquet", part_rows=700)
    same(tmp_path / "scores.parquet", expected)


def test_what_is_there_is_kept_unless_it_may_go(version, given, tmp_path, expected):
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "mine").touch()
    with pytest.raises(InvalidInputError, match="exists already; --overwrite replaces it"):
        done(version, given, tmp_path / "scores")
    done(version, given, tmp_path / "scores", overwrites=True)
    same(tmp_path / "scores", expected)
    assert not (tmp_path / "scores" / "mine").exists()


def test_a_job_of_a_name_is_done_once(version, given, tmp_path):
    assert not done(version, given, tmp_path / "scores", job="monday").was_finished
    assert done(version, given, tmp_path / "scores", job="monday").was_finished
    with pytest.raises(InvalidInputError, match="exists already"):
        done(version, given, tmp_path / "scores", job="tuesday")


def damaged(given, *at):
    """Makes the fares of some rows missing."""
    whole = table(ROWS)
    fares = whole["fare"].to_numpy().copy()
    fares[list(at)] = np.nan
    pq.write_table(whole.set_column(2, "fare", pa.array(fares)), given / "0.parquet", row_group_size=ROWS // 8)
    (given / "1.parquet").unlink()


def test_the_first_bad_row_ends_the_job_and_is_named(version, given, tmp_path):
    damaged(given, 1234, 2000)
    with pytest.raises(InvalidInputError, match=r"0\.parquet: row 1,234 has no value of 'fare'.*--bad-rows FILE"):
        done(version, given, tmp_path / "scores", part_rows=700)
    assert not (tmp_path / "scores").exists()


def test_bad_rows_are_set_aside(version, given, tmp_path, expected):
    damaged(given, 1234, 2000)
    report = done(version, given, tmp_path / "scores", part_rows=700, bad_rows=str(tmp_path / "bad.csv"))
    assert (report.rows, report.bad_rows) == (ROWS - 2, 2)
    kept = np.setdiff1d(np.arange(ROWS), [1234, 2000])
    same(tmp_path / "scores", expected.take(pa.array(kept)))
    bad = pyarrow.csv.read_csv(tmp_path / "bad.csv")
    assert bad.column_names[:3] == ["penstock_row", "penstock_column", "penstock_reason"]
    assert bad["penstock_row"].to_pylist() == bad["id"].to_pylist() == [1234, 2000]
    assert set(bad["penstock_column"].to_pylist()) == {"fare"}


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ((".", "nothing.parquet", "scores"), NotFoundError, "there is no"),
        ((".", "rows", "s3x://bucket/scores"), InvalidInputError, "cannot be reached"),
        ((".", "rows", "sqlite:///a.db#scores"), InvalidInputError, "needs a key"),
        ((".", "rows", "sqlite:///a.db"), InvalidInputError, "names no table"),
    ],
)
def test_what_cannot_be_done_is_told(version, given, monkeypatch, tmp_path, arguments, kind, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=sentence):
        done(version, *arguments[1:])


def test_a_version_of_a_folder_of_models_is_found(version, given, tmp_path, expected):
    (tmp_path / "models" / "stay").mkdir(parents=True)
    for number in ("9", "10"):
        (tmp_path / "models" / "stay" / number).symlink_to(version)
    report = done("stay", given, tmp_path / "scores", repository=tmp_path / "models")
    assert (report.model, report.version) == ("stay", "10")
    same(tmp_path / "scores", expected)
    with pytest.raises(NotFoundError, match="did you mean 'stay'"):
        done("stays", given, tmp_path / "more", repository=tmp_path / "models")
    with pytest.raises(NotFoundError, match="no version '3'; it has 9, 10"):
        done("stay", given, tmp_path / "more", repository=tmp_path / "models", version="3")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, pytest.param(0, marks=pytest.mark.long)])
def test_a_job_that_is_killed_goes_on_and_answers_each_row_once(version, given, tmp_path, expected, seed):
    draw = random.Random(seed)
    killed = 0
    while not attempt(draw.randrange(1, 12), version, given, tmp_path / "scores"):
        killed += 1
        assert killed < 20
    same(tmp_path / "scores", expected)
    assert sorted(os.listdir(tmp_path)) == ["rows", "scores"]
