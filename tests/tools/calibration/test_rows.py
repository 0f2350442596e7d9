import numpy as np
import pandas as pd
import pytest

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.paths import file_name_for
from penstock_tools.calibration import rows
from penstock_tools.calibration.rows import RequestLog, SampleFile
from tests.tools.calibration.shifted_rows import FIRST_S, frame
from tests.tools.drift.test_evidently import DAY_S, log_requests

FARES = file_name_for("fares")


@pytest.fixture(params=[".csv", ".parquet"])
def sample(request, tmp_path):
    path = tmp_path / f"fares{request.param}"
    getattr(frame(250), {".csv": "to_csv", ".parquet": "to_parquet"}[request.param])(path, index=False)
    return path


def test_a_file_is_read_in_parts(sample, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK_ROWS", 100)
    file = SampleFile(sample, "at")
    assert (file.names, file.time) == (("amount", "city"), "at")
    parts = list(file.chunks(["city", "amount"], ["city"]))
    assert [len(part) for part in parts] == [100, 100, 50]
    assert np.allclose(pd.concat(parts)["amount"], frame(250)["amount"])


def test_its_times_are_seconds_since_1970(sample):
    found = rows.seconds(SampleFile(sample, "at").moments())
    assert np.allclose(found, FIRST_S + 60.0 * np.arange(250))


def test_without_times_there_are_no_moments(sample):
    assert SampleFile(sample).moments() is None
    assert SampleFile(sample).names == ("at", "amount", "city")


def test_numbers_that_are_no_seconds_since_1970_only_order():
    assert rows.seconds(pd.Series([3, 1, 2])) is None
    for parts in (1, 1000, 10**9):
        assert rows.seconds(pd.Series([FIRST_S, FIRST_S + 1]) * parts).tolist() == [FIRST_S, FIRST_S + 1]


def test_text_that_looks_like_numbers_stays_text(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("code\n007\n12\n\n")
    (part,) = SampleFile(path).chunks(["code"], ["code"])
    assert part["code"].tolist()[:2] == ["007", "12"]


@pytest.mark.parametrize(
    ("name", "content", "time", "words"),
    [
        ("a.txt", "x\n1\n", None, "expected .csv or .parquet"),
        ("a.csv", None, None, "there is no file"),
        ("a.csv", "x\n", None, "holds no rows"),
        ("a.parquet", "x\n1\n", None, "does not read as parquet"),
        ("a.csv", "when,x\n1,1\n", "whem", "no column 'whem'.*'when'"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, name, content, time, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInputError, match=words):
        SampleFile(tmp_path / name, time)


def test_a_row_without_a_time_is_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("at,x\n2026-01-01,1\n,2\n")
    with pytest.raises(InvalidInputError, match="1 of 2 rows have no time in 'at'"):
        SampleFile(path, "at").moments()


@pytest.fixture
def log(tmp_path):
    log_requests(tmp_path, "1", "champion", range(10), "a")
    log_requests(tmp_path, "2", "canary", range(4, 8), "b")
    log_requests(tmp_path, "3", "shadow", range(4, 8), "c")
    return tmp_path


def test_a_log_has_all_versions_requests_once(log):
    for found in (RequestLog(log, "fares"), RequestLog(log), RequestLog(log / FARES)):
        assert found.names == ("delay", "city")
        (moments,) = [rows.seconds(found.moments())]
        assert sorted(moments) == sorted(np.repeat([FIRST_S + day * DAY_S for day in (*range(10), *range(4, 8))], 2))
        table = pd.concat(found.chunks(["delay", "city"], ["city"]))
        assert np.array_equal(table["delay"], (moments - FIRST_S) / DAY_S)
        assert set(table["city"]) == {"Oslo", ""}


def test_a_log_that_cannot_be_used_is_told(log, tmp_path):
    with pytest.raises(InvalidInputError, match="no directory"):
        RequestLog(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no rows were logged"):
        RequestLog(tmp_path / "empty")
    other = tmp_path / file_name_for("planes") / file_name_for("1")
    other.mkdir(parents=True)
    (other / "a.parquet").write_bytes(next((log / FARES / file_name_for("1")).glob("*.parquet")).read_bytes())
    with pytest.raises(InvalidInputError, match=f"of the models {FARES}, .*name one of their folders"):
        RequestLog(log)
    assert RequestLog(log, "fares").names == ("delay", "city")
