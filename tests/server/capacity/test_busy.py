import os
import time
from pathlib import Path

import pytest

from penstock_server.capacity import busy
from penstock_server.capacity.busy import busy_s


def test_a_process_that_works_is_busy() -> None:
    before, ends_s = busy_s(os.getpid()), time.process_time() + 0.1
    while time.process_time() < ends_s:
        pass
    after = busy_s(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before > 0.05


def test_a_process_that_is_gone_is_not() -> None:
    assert busy_s(2**31 - 1) is None


@pytest.mark.parametrize(
    ("schedstat", "expected"),
    [("1500000000 500000000 7\n", 2.0), ("0 0 0\n", 3.5), ("nonsense", 3.5), (None, 3.5)],
)
def test_the_wait_for_a_core_counts_where_the_kernel_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedstat: str | None, expected: float
) -> None:
    monkeypatch.setattr(busy, "_PROC", tmp_path)
    monkeypatch.setattr(busy, "_TICKS_PER_S", 100)
    thread = tmp_path / "7" / "task" / "7"
    thread.mkdir(parents=True)
    (thread / "stat").write_text("7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 300 50 0 0\n")
    if schedstat is not None:
        (thread / "schedstat").write_text(schedstat)
    assert busy_s(7) == pytest.approx(expected)


def test_a_line_that_cannot_be_read_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "_PROC", tmp_path)
    thread = tmp_path / "7" / "task" / "7"
    thread.mkdir(parents=True)
    (thread / "stat").write_text("7 (worker) S\n")
    assert busy_s(7) is None
