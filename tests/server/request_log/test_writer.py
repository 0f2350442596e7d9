import os
from pathlib import Path
from typing import Any

import pytest

from penstock_server.request_log.files import OpenSegment, finished_segments, folder_bytes
from penstock_server.request_log.sampler import RequestSampler, SampledRequest
from penstock_server.request_log.segment import (
    LoggedRequest,
    LoggedTensor,
    SegmentHeader,
    framed,
    read_segment,
)
from penstock_server.request_log.writer import RETRY_S, RequestLogWriter


class Report:
    def __init__(self) -> None:
        self.logged = 0
        self.dropped = 0

    def request_logged(self, rows: int) -> None:
        self.logged += rows

    def request_log_dropped(self, reason: str, rows: int) -> None:
        assert reason == "disk"
        self.dropped += rows


class FilledSampler(RequestSampler):
    """A sampler that a test fills."""

    def __init__(self, version: str, wake: Any = lambda: None) -> None:
        header = SegmentHeader("m", version, (LoggedTensor(("x",), "FP64"),), ())
        self.counts = Report()
        super().__init__(header, sample_ratio=1.0, report=self.counts, wake=wake)

    def fill(self, text: str) -> None:
        self._waiting.append(
            SampledRequest(1.0, "", 2, b"\x1a" + bytes([len(text)]) + text.encode(), (bytes(16),), (), 100)
        )


def ids(spool: Path) -> list[list[str]]:
    """The ids in each finished segment."""
    return [[request.request_id for request in read_segment(path)[1]] for path in finished_segments(spool)]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "log" / ".spool"


def writer_of(spool: Path, clock: Any, rotate_bytes: int = 10**6, spool_bytes: int = 10**7) -> RequestLogWriter:
    return RequestLogWriter(spool, rotate_bytes=rotate_bytes, rotate_s=60.0, spool_bytes=spool_bytes, clock=clock)


def test_a_segment_a_version_and_closed_when_it_is_old(spool: Path, fake_clock: Any) -> None:
    clock, samplers = fake_clock(), [FilledSampler("1"), FilledSampler("2")]
    writer = writer_of(spool, clock)
    for sampler in samplers:
        writer.add(sampler)
    writer.step()
    assert not spool.exists()
    for name in "ab":
        for sampler in samplers:
            sampler.fill(name)
        writer.step()
    assert (len(list(spool.iterdir())), ids(spool)) == (2, [])  # its writer holds them still
    clock.now += 60
    writer.step()
    assert ids(spool) == [["a", "b"], ["a", "b"]]
    assert [sampler.counts.logged for sampler in samplers] == [4, 4]


def test_a_segment_is_closed_when_it_is_large(spool: Path, fake_clock: Any) -> None:
    sampler = FilledSampler("1")
    request = LoggedRequest(1.0, "a", "", 2, (bytes(16),), ())
    writer = writer_of(spool, fake_clock(), rotate_bytes=len(framed(sampler.header)) + 2 * len(framed(request)))
    writer.add(sampler)
    for name in "abcde":
        sampler.fill(name)
    writer.step()
    assert ids(spool) == [["a", "b"], ["c", "d"]]
    assert sampler.counts.logged == 10


def test_an_unloaded_version_leaves_nothing_open(spool: Path, fake_clock: Any) -> None:
    writer, sampler = writer_of(spool, fake_clock()), FilledSampler("1")
    writer.add(sampler)
    sampler.fill("a")
    sampler.close()
    writer.step()
    assert ids(spool) == [["a"]]
    sampler.fill("never taken")
    writer.step()
    assert ids(spool) == [["a"]]


def test_what_was_written_is_there_when_the_worker_is_killed(spool: Path, fake_clock: Any) -> None:
    writer, sampler = writer_of(spool, fake_clock()), FilledSampler("1")
    writer.add(sampler)
    sampler.fill("a")
    writer.step()
    segment = writer._segments[sampler]
    os.close(segment._file.fileno())  # as the system does for a process that is gone
    assert ids(spool) == [["a"]]
    with pytest.raises(OSError, match="Bad file descriptor"):
        segment._file.close()


@pytest.mark.parametrize(("refuses", "rotate_bytes"), [("append", 1), ("flush", 10**6), ("finish", 1)])
def test_a_disk_that_refuses_costs_the_requests_of_a_while(
    spool: Path, fake_clock: Any, refuses: str, rotate_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    clock, sampler = fake_clock(), FilledSampler("1")
    writer = writer_of(spool, clock, rotate_bytes)
    writer.add(sampler)
    with monkeypatch.context() as patch:
        patch.setattr(OpenSegment, refuses, full)
        sampler.fill("a")
        writer.step()
    sampler.fill("b")  # too soon
    writer.step()
    clock.now += RETRY_S
    sampler.fill("c")
    sampler.close()
    writer.step()
    found = [name for segment in ids(spool) for name in segment]
    assert ("b" in found, "c" in found) == (False, True)
    assert sampler.counts.logged + sampler.counts.dropped == 6
    assert sampler.counts.dropped == 2 if refuses == "finish" else sampler.counts.dropped == 4


def test_a_folder_that_cannot_be_made(tmp_path: Path, fake_clock: Any) -> None:
    (tmp_path / "file").write_text("")
    clock, sampler = fake_clock(), FilledSampler("1")
    writer = writer_of(tmp_path / "file" / "spool", clock)
    writer.add(sampler)
    for _ in range(3):
        sampler.fill("a")
        clock.now += RETRY_S
        writer.step()
    assert (sampler.counts.logged, sampler.counts.dropped) == (0, 6)


def test_the_spool_is_bounded(spool: Path, fake_clock: Any) -> None:
    clock, sampler = fake_clock(), FilledSampler("1")
    writer = writer_of(spool, clock, rotate_bytes=100, spool_bytes=300)
    writer.add(sampler)
    for _ in range(20):
        sampler.fill("a")
        clock.now += RETRY_S
        writer.step()
    assert folder_bytes(spool) <= 300 + 150
    assert sampler.counts.dropped + sampler.counts.logged == 40
    for path in finished_segments(spool):
        path.unlink()
    written = sampler.counts.logged
    sampler.fill("a")
    clock.now += RETRY_S
    writer.step()
    assert sampler.counts.logged == written + 2


def test_the_thread_writes_by_itself_and_finishes_when_it_is_closed(spool: Path, fake_clock: Any) -> None:
    writer = writer_of(spool, fake_clock())
    sampler = FilledSampler("1", writer.wake)
    writer.add(sampler)
    writer.start()
    sampler.fill("a")
    writer.wake()
    writer.close()
    assert ids(spool) == [["a"]]
