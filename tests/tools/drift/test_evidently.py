import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from penstock.tensors import to_raw
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.request_log.compactor import RequestLogFolder
from penstock_server.request_log.files import CLOSED, SPOOL
from penstock_server.request_log.segment import FORMAT, LoggedRequest, LoggedTensor, SegmentHeader, framed
from penstock_tools.cli.app import app
from penstock_tools.drift import evidently

CHECKOUT = Path(__file__).parents[3]
DAY_S = 86_400.0
FIRST_S = 1_767_225_600.0  # 2026-01-01


def log_requests(folder, version, role, days, name="a"):
    """Two rows a day: the delay is the day, the city Oslo or none."""
    header = SegmentHeader(
        "fares", version,
        (LoggedTensor(("delay",), "FP64"), LoggedTensor(("city",), "BYTES")),
        (LoggedTensor(("label",), "INT64"), LoggedTensor(("scores",), "FP32", is_list=True)),
    )  # fmt: skip
    requests = [
        LoggedRequest(
            FIRST_S + day * DAY_S, f"r{day}", role, 2,
            (np.full(2, float(day)).tobytes(), to_raw(np.array(["Oslo", ""], object))),
            (np.array([0, 1]).tobytes(), np.zeros((2, 2), np.float32).tobytes()),
        )
        for day in days
    ]  # fmt: skip
    spool = folder / SPOOL
    spool.mkdir(parents=True, exist_ok=True)
    (spool / f"{name}{CLOSED}").write_bytes(FORMAT + framed(header) + b"".join(map(framed, requests)))
    RequestLogFolder(folder, 10**9).step()


@pytest.fixture
def folder(tmp_path):
    log_requests(tmp_path, "1", "champion", range(10), "a")
    log_requests(tmp_path, "2", "canary", range(4, 8), "b")
    return tmp_path


def days(frame):
    return frame["delay"].to_numpy()[::2].tolist()


def test_rows_come_by_time_with_their_columns(folder):
    frame = evidently.read_log(folder, "fares", "1")
    assert list(frame.columns) == ["time", "delay", "city", "output.label"]
    assert days(frame) == list(range(10))
    assert frame["time"].is_monotonic_increasing
    assert frame["city"].tolist()[:2] == ["Oslo", None]
    assert frame["output.label"].tolist()[:2] == [0, 1]


@pytest.mark.parametrize(
    ("version", "start", "end", "expected"),
    [
        ("", None, None, [4, 5, 6, 7]),
        ("@champion", None, None, list(range(10))),
        ("@canary", None, None, [4, 5, 6, 7]),
        ("1", "2026-01-03", "2026-01-05", [2, 3]),
        ("1", "2026-01-09T00:00:00+01:00", None, [8, 9]),
        ("1", None, "2026-01-02T00:00:01Z", [0, 1]),
    ],
)
def test_a_version_and_a_period_are_chosen(folder, version, start, end, expected):
    assert days(evidently.read_log(folder, "fares", version, start=start, end=end)) == expected


def test_files_of_one_version_are_one_log(folder):
    log_requests(folder, "1", "champion", range(10, 12), "c")
    assert days(evidently.read_log(folder, "fares", "1")) == list(range(12))
    assert days(evidently.read_log(folder, "fares")) == list(range(12))


def test_a_long_log_is_thinned_evenly(folder, monkeypatch):
    monkeypatch.setattr(evidently, "MOST_ROWS", 10)
    assert evidently.read_log(folder, "fares", "1")["delay"].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("model", "version", "end"),
    [("other", "", None), ("fares", "3", None), ("fares", "@shadow", None), ("fares", "1", "2020-01-01")],
)
def test_no_logged_rows_are_an_error(folder, model, version, end):
    with pytest.raises(NotFoundError, match=rf"no rows of model '{model}'.*request_log\.rotate_bytes"):
        evidently.read_log(folder, model, version, end=end)


def test_no_directory_and_no_time(folder):
    with pytest.raises(InvalidInputError, match="nothing is no directory"):
        evidently.read_log(folder / "nothing", "fares")
    with pytest.raises(InvalidInputError, match="--from is 'soon'; expected a time such as"):
        evidently.read_log(folder, "fares", start="soon")


def test_a_file_that_is_no_parquet_is_named(folder):
    broken = next(folder.rglob("*.parquet")).with_name("z.parquet")
    broken.write_bytes(b"PAR1")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        evidently.read_log(folder, "fares", "1")


def test_halves_in_time(folder):
    rows = evidently.read_log(folder, "fares", "1")
    known, now = evidently.halves(rows)
    assert (days(known), days(now)) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])
    with pytest.raises(InvalidInputError, match="3 rows were logged in that period, expected at least 4"):
        evidently.halves(rows.head(3))


def test_a_reference_of_ones_own(folder, tmp_path):
    rows = evidently.read_log(folder, "fares", "1").drop(columns="time")
    file = tmp_path / "train.csv"
    file.write_text("city,delay,more\nOslo,1.5,x\n")
    known, now = evidently.against(evidently.read_reference(file), rows)
    assert list(known.columns) == list(now.columns) == ["delay", "city"]
    file.write_text("city,more\nOslo,x\n")
    with pytest.raises(InvalidInputError, match="the reference has no column 'delay'; it has city, more"):
        evidently.against(evidently.read_reference(file), rows)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "is neither .csv nor .parquet"),
        ("a.csv", b"", "is no csv file"),
        ("a.parquet", b"PAR1", "is no parquet file"),
        ("nothing.csv", None, "cannot be read: No such file"),
    ],
)
def test_a_reference_that_is_none(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=said):
        evidently.read_reference(tmp_path / name)


def test_kinds_of_columns(folder):
    rows = evidently.read_log(folder, "fares", "1").drop(columns="time")
    assert evidently.kinds(rows) == (["delay"], ["city", "output.label"])


def test_the_command_says_what_is_missing(folder, monkeypatch, tmp_path):
    run = CliRunner().invoke
    bare = run(app, ["drift", "fares", "--evidently", "report.html"])
    assert str(bare.exception) == "--evidently needs the request log; name its directory with --log"
    monkeypatch.setitem(sys.modules, "evidently", None)
    missing = run(app, ["drift", "fares", "--evidently", str(tmp_path / "r.html"), "--log", str(folder)])
    assert isinstance(missing.exception, UnavailableError)
    assert "pip install 'penstock[evidently]'" in str(missing.exception)


SCRIPT = """
import sys
from pathlib import Path
from penstock_tools.drift import evidently
evidently.write_report(Path(sys.argv[2]), "fares", log=Path(sys.argv[1]), version="1")
"""


@pytest.mark.slow
@pytest.mark.long  # it makes an environment, and Evidently takes long to import
@pytest.mark.timeout(600)
def test_evidently_reports_on_the_log(folder, tmp_path):
    """In an environment of its own, as the extra makes it: Evidently does not import beside pandas 3."""
    log_requests(folder, "1", "champion", range(10, 200), "d")
    python = tmp_path / "venv" / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    subprocess.run([*uv, "pip", "install", "--python", str(python), f"{CHECKOUT}[evidently]"], check=True)
    report = tmp_path / "report.html"
    done = subprocess.run(
        [str(python), "-c", SCRIPT, str(folder), str(report)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = report.read_text()
    assert all(name in text for name in ("delay", "city", "output.label", "K-S p_value"))
