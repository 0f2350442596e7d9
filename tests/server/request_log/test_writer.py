import os
from pathlib import Path
from typing import Any

import pytest

from penstock_server.request_log.files import OpenSegment, finished_segments, folder_bytes
from penstock_server.request_log.sampler import Kept, RequestTap
from penstock_server.request_log.segment import (
    LoggedRequest,
    LoggedTensor,
    SegmentHeader,
    framed,
    read_segment,
)
from penstock_server.request_log.writer import RETRY_S, RequestLogThread


class Report:
    def __init__(self) -> None:
        self.logged = 0
        self.dropped = 0

    def request_logged(self, rows: int) -> None:
        self.logged += rows

    def request_log_dropped(self, reason: str, rows: int) -> None:
        assert reason == "disk"
        self.dropped += rows


class Tap(RequestTap):
    """A tap that a test fills."""

    def __init__(self, version: str, wake: Any = lambda: None) -> None:
        header = SegmentHeader("m", version, (LoggedTensor(("x",), "FP64"),), ())
        self.counts = Report()
        super().__init__(header, sample_ratio=1.0, report=self.counts, wake=wake)

    def keep(self, text: str) -> None:
        self._waiting.append(Kept(1.0, "", 2, b"\x1a" + bytes([len(text)]) + text.encode(), (bytes(16),), (), 100))


def ids(spool: Path) -> list[list[str]]:
    """The ids in each finished segment."""
    return [[request.request_id for request in read_segment(path)[1]] for path in finished_segments(spool)]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "log" / ".spool"


def thread_of(spool: Path, clock: Any, rotate_bytes: int = 10**6, spool_bytes: int = 10**7) -> RequestLogThread:
    return RequestLogThread(spool, rotate_bytes=rotate_bytes, rotate_s=60.0, spool_bytes=spool_bytes, clock=clock)


def test_a_segment_a_version_and_closed_when_it_is_old(spool: Path, fake_clock: Any) -> None:
    clock, taps = fake_clock(), [Tap("1"), Tap("2")]
    thread = thread_of(spool, clock)
    for tap in taps:
        thread.add(tap)
    thread.step()
    assert not spool.exists()
    for name in "ab":
        for tap in taps:
            tap.keep(name)
        thread.step()
    assert (len(list(spool.iterdir())), ids(spool)) == (2, [])  # its writer holds them still
    clock.now += 60
    thread.step()
    assert ids(spool) == [["a", "b"], ["a", "b"]]
    assert [tap.counts.logged for tap in taps] == [4, 4]


def test_a_segment_is_closed_when_it_is_large(spool: Path, fake_clock: Any) -> None:
    tap = Tap("1")
    request = LoggedRequest(1.0, "a", "", 2, (bytes(16),), ())
    thread = thread_of(spool, fake_clock(), rotate_bytes=len(framed(tap.header)) + 2 * len(framed(request)))
    thread.add(tap)
    for name in "abcde":
        tap.keep(name)
    thread.step()
    assert ids(spool) == [["a", "b"], ["c", "d"]]
    assert tap.counts.logged == 10


def test_an_unloaded_version_leaves_nothing_open(spool: Path, fake_clock: Any) -> None:
    thread, tap = thread_of(spool, fake_clock()), Tap("1")
    thread.add(tap)
    tap.keep("a")
    tap.close()
    thread.step()
    assert ids(spool) == [["a"]]
    tap.keep("never taken")
    thread.step()
    assert ids(spool) == [["a"]]


def test_what_was_written_is_there_when_the_worker_is_killed(spool: Path, fake_clock: Any) -> None:
    thread, tap = thread_of(spool, fake_clock()), Tap("1")
    thread.add(tap)
    tap.keep("a")
    thread.step()
    segment = thread._segments[tap]
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

    clock, tap = fake_clock(), Tap("1")
    thread = thread_of(spool, clock, rotate_bytes)
    thread.add(tap)
    with monkeypatch.context() as patch:
        patch.setattr(OpenSegment, refuses, full)
        tap.keep("a")
        thread.step()
    tap.keep("b")  # too soon
    thread.step()
    clock.now += RETRY_S
    tap.keep("c")
    tap.close()
    thread.step()
    found = [name for segment in ids(spool) for name in segment]
    assert ("b" in found, "c" in found) == (False, True)
    assert tap.counts.logged + tap.counts.dropped == 6
    assert tap.counts.dropped == 2 if refuses == "finish" else tap.counts.dropped == 4


def test_a_folder_that_cannot_be_made(tmp_path: Path, fake_clock: Any) -> None:
    (tmp_path / "file").write_text("")
    clock, tap = fake_clock(), Tap("1")
    thread = thread_of(tmp_path / "file" / "spool", clock)
    thread.add(tap)
    for _ in range(3):
        tap.keep("a")
        clock.now += RETRY_S
        thread.step()
    assert (tap.counts.logged, tap.counts.dropped) == (0, 6)


def test_the_spool_is_bounded(spool: Path, fake_clock: Any) -> None:
    clock, tap = fake_clock(), Tap("1")
    thread = thread_of(spool, clock, rotate_bytes=100, spool_bytes=300)
    thread.add(tap)
    for _ in range(20):
        tap.keep("a")
        clock.now += RETRY_S
        thread.step()
    assert folder_bytes(spool) <= 300 + 150
    assert tap.counts.dropped + tap.counts.logged == 40
    for path in finished_segments(spool):
        path.unlink()
    written = tap.counts.logged
    tap.keep("a")
    clock.now += RETRY_S
    thread.step()
    assert tap.counts.logged == written + 2


def test_the_thread_writes_by_itself_and_finishes_when_it_is_closed(spool: Path, fake_clock: Any) -> None:
    thread = thread_of(spool, fake_clock())
    tap = Tap("1", thread.wake)
    thread.add(tap)
    thread.start()
    tap.keep("a")
    thread.wake()
    thread.close()
    assert ids(spool) == [["a"]]
