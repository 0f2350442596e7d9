import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from penstock_server.request_log.compactor import RequestLogFolder, _is_there, _lock
from penstock_server.request_log.files import (
    CLOSED,
    DAMAGED,
    LOCK,
    PARQUET,
    SPOOL,
    UNFINISHED,
    finished_segments,
    open_segment,
    sized_files,
)
from penstock_server.request_log.segment import FORMAT, LoggedRequest, LoggedTensor, SegmentHeader, framed

pq = pytest.importorskip("pyarrow.parquet")

HEADER = SegmentHeader("../m", "1", (LoggedTensor(("x",), "FP64"),), ())
REQUEST = LoggedRequest(0.0, "id", "champion", 1, (bytes(8),), ())


def put(folder: Path, name: str, content: bytes | None = None) -> Path:
    path = folder / SPOOL / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(FORMAT + framed(HEADER) + framed(REQUEST) if content is None else content)
    return path


def parquet_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob(f"*{PARQUET}"), key=lambda path: path.name)


def test_segments_become_parquet_by_model_and_version(tmp_path: Path) -> None:
    folder = RequestLogFolder(tmp_path, 10**9)
    folder.step()
    segments = [put(tmp_path, f"2026-{number}{CLOSED}") for number in range(2)]
    folder.step()
    found = parquet_in(tmp_path)
    assert [path.stem for path in found] == ["2026-0", "2026-1"]
    assert {path.parent.parent.parent for path in found} == {tmp_path}  # a hostile name leads nowhere else
    assert pq.read_table(found[0]).num_rows == 1
    assert not any(path.exists() for path in segments)


def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    held = open_segment(tmp_path / SPOOL, HEADER, 0.0)
    held.append(REQUEST)
    held.flush()
    folder = RequestLogFolder(tmp_path, 10**9)
    folder.step()
    assert parquet_in(tmp_path) == []
    held.abandon()  # what the system does to a worker that is killed
    folder.step()
    assert len(parquet_in(tmp_path)) == 1
    assert list(finished_segments(tmp_path / SPOOL)) == []


def test_a_segment_that_cannot_be_read_stops_no_other(tmp_path: Path) -> None:
    put(tmp_path, f"a{CLOSED}", b"PAR1")
    put(tmp_path, f"b{CLOSED}", b"")
    put(tmp_path, f"c{CLOSED}", FORMAT + framed(HEADER) + framed(REQUEST)[:-1])
    put(tmp_path, f"d{CLOSED}")
    RequestLogFolder(tmp_path, 10**9).step()
    assert [path.stem for path in parquet_in(tmp_path)] == ["d"]
    assert list((tmp_path / SPOOL).iterdir()) == []
    assert (tmp_path / f"a{DAMAGED}").read_bytes() == b"PAR1"


def test_half_written_files_go(tmp_path: Path) -> None:
    left = tmp_path / "m" / "1" / f"a{UNFINISHED}"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"PAR1")
    RequestLogFolder(tmp_path, 10**9).tidy()
    assert not left.exists()


def test_the_oldest_make_room(tmp_path: Path) -> None:
    for number in range(9):
        put(tmp_path, f"{number}{CLOSED}")
    unread = put(tmp_path, "z.open")
    with unread.open("rb"):
        RequestLogFolder(tmp_path, 10**9).step()
        size = parquet_in(tmp_path)[0].stat().st_size
        RequestLogFolder(tmp_path, 4 * size + 10).step()
    assert [path.stem for path in parquet_in(tmp_path)] == ["6", "7", "8", "z"]
    assert sum(size for _, size in sized_files(tmp_path)) <= 4 * size + 10


def test_the_process_looks_once_more_when_it_is_told_to_end(tmp_path: Path) -> None:
    put(tmp_path, f"a{CLOSED}")
    argument = json.dumps([str(tmp_path), 10**9])
    command = [sys.executable, "-m", "penstock_server.request_log.compactor", argument, str(os.getpid())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(parquet_in(tmp_path))) == (0, 1), done.stderr


@pytest.mark.long
def test_one_process_a_folder(tmp_path: Path) -> None:
    argument = json.dumps([str(tmp_path), 10**9])
    command = [sys.executable, "-m", "penstock_server.request_log.compactor", argument, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert first.stdin is not None
        put(tmp_path, f"a{CLOSED}")
        while not parquet_in(tmp_path):  # it has the folder then
            assert first.poll() is None
            threading.Event().wait(0.05)
        put(tmp_path, f"b{CLOSED}", b"PAR1")
        second = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        first.stdin.close()
        assert first.wait(60) == 0
    assert (second.returncode, second.stderr) == (0, b"")


WRITER = """
import sys
from pathlib import Path
from penstock_server.request_log.files import SPOOL, open_segment
from penstock_server.request_log.segment import LoggedRequest, LoggedTensor, SegmentHeader

header = SegmentHeader("m", "1", (LoggedTensor(("x",), "FP64"),), ())
sys.stdin.readline()
for number in range(30):
    segment = open_segment(Path(sys.argv[1]) / SPOOL, header, 0.0)
    for row in range(20):
        segment.append(LoggedRequest(0.0, f"{sys.argv[2]}-{number}-{row}", "champion", 1, (bytes(8),), ()))
        segment.flush()
    segment.finish() if number % 10 else segment.abandon()
"""


def ids_in(folder: Path) -> list[str]:
    """The ids of all rows; each file can be read whole at any time."""
    return [each for path in parquet_in(folder) for each in pq.read_table(path, columns=["request_id"])[0].to_pylist()]


@pytest.mark.long
@pytest.mark.slow
def test_servers_that_share_a_folder_write_each_row_once_though_one_is_killed(tmp_path: Path) -> None:
    argument = json.dumps([str(tmp_path), 10**9])
    compactor = [sys.executable, "-m", "penstock_server.request_log.compactor", argument, str(os.getpid())]
    expected = sorted(f"{name}-{number}-{row}" for name in "ab" for number in range(30) for row in range(20))
    with ExitStack() as stack:

        def begun(command: list[str]) -> "subprocess.Popen[bytes]":
            found = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
            stack.callback(found.kill)
            return found

        compactors = [begun(compactor), begun(compactor)]
        writers = [begun([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "ab"]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()
        held = threading.Event()
        while not parquet_in(tmp_path):
            held.wait(0.02)
        ids_in(tmp_path)
        compactors[0].kill()  # which may be the one that works, or the one that waits
        compactors[0].wait(60)
        assert [writer.wait(60) for writer in writers] == [0, 0]
        seen = ids_in(tmp_path)
        assert len(seen) == len(set(seen))
        assert compactors[1].stdin is not None
        compactors[1].stdin.close()
        assert compactors[1].wait(60) == 0
    assert sorted(ids_in(tmp_path)) == expected
    assert list((tmp_path / SPOOL).iterdir()) == []


def test_a_folder_that_was_deleted_and_made_anew_has_one_process_again(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    lock = _lock(tmp_path)
    assert lock is not None
    assert _is_there(lock, tmp_path)
    (tmp_path / LOCK).unlink()
    assert not _is_there(lock, tmp_path)
    with lock, _lock(tmp_path) or nullcontext() as other:  # another server made it
        assert other is not None
        assert not _is_there(lock, tmp_path)
        assert _is_there(other, tmp_path)
