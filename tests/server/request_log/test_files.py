from pathlib import Path
from typing import Any

import pytest

from penstock_server.request_log.files import (
    CLOSED,
    NEW,
    OPEN,
    finished_segments,
    folder_bytes,
    open_segment,
    sized_files,
)
from penstock_server.request_log.segment import (
    FORMAT,
    LoggedRequest,
    LoggedTensor,
    SegmentHeader,
    framed,
    read_segment,
)

HEADER = SegmentHeader("m", "1", (LoggedTensor(("x",), "FP64"),), ())
REQUEST = LoggedRequest(0.0, "id", "", 1, (bytes(8),), ())


def read(path: Path) -> tuple[SegmentHeader, list[LoggedRequest]]:
    header, requests = read_segment(path)
    return header, list(requests)


def test_a_segment_is_finished_by_its_name(tmp_path: Path) -> None:
    spool = tmp_path / "new" / "spool"
    segment = open_segment(spool, HEADER, 7.0)
    segment.append(REQUEST)
    assert segment.opened_s == 7.0
    assert [path.suffix for path in spool.iterdir()] == [OPEN]
    assert list(finished_segments(spool)) == []
    segment.finish()
    (path,) = finished_segments(spool)
    assert path.suffix == CLOSED
    assert read(path) == (HEADER, [REQUEST])
    assert folder_bytes(tmp_path) == len(FORMAT) + segment.size_bytes


def test_the_size_counts_every_frame(tmp_path: Path) -> None:
    segment = open_segment(tmp_path, HEADER, 0.0)
    assert segment.size_bytes == len(framed(HEADER))
    segment.append(REQUEST)
    assert segment.size_bytes == len(framed(HEADER)) + len(framed(REQUEST))
    segment.abandon()


def test_what_was_flushed_is_there_without_its_writer(tmp_path: Path) -> None:
    segment = open_segment(tmp_path, HEADER, 0.0)
    segment.append(REQUEST)
    segment.flush()
    (path,) = tmp_path.iterdir()
    assert read(path) == (HEADER, [REQUEST])
    assert list(finished_segments(tmp_path)) == []  # its lock is held
    segment.abandon()
    assert list(finished_segments(tmp_path)) == [path]


def test_segments_come_oldest_first_and_the_finished_before_orphans(tmp_path: Path) -> None:
    names = [f"2{OPEN}", f"1{CLOSED}", f"0{OPEN}", f"3{CLOSED}", f"4{NEW}"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in finished_segments(tmp_path)] == [f"1{CLOSED}", f"3{CLOSED}", f"0{OPEN}", f"2{OPEN}"]


def test_two_segments_of_one_moment_have_two_names(tmp_path: Path) -> None:
    segments = [open_segment(tmp_path, HEADER, 0.0) for _ in range(5)]
    assert len(list(tmp_path.iterdir())) == 5
    for segment in segments:
        segment.abandon()


def test_a_segment_that_cannot_be_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("penstock_server.request_log.files.OpenSegment.append", full)
    with pytest.raises(OSError, match="No space left"):
        open_segment(tmp_path, HEADER, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_those_of_files_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(bytes(3))
    (tmp_path / "d").write_bytes(bytes(4))
    assert sorted(size for _, size in sized_files(tmp_path)) == [3, 4]
    assert (folder_bytes(tmp_path), folder_bytes(tmp_path / "nothing")) == (7, 0)
