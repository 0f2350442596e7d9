from typing import Any

import pytest

from penstock_server.control.process_end import Cause
from penstock_server.control.quarantine import (
    FORGIVEN_S,
    PROCESS_ENDS_ALLOWED,
    PROCESS_FORGIVEN_S,
    SUSPICIOUS_RUN_S,
    TOGETHER_S,
    Quarantine,
    WorkerEnd,
    blame,
    was_killed,
)

A, B = ("m", "1"), ("m", "2")
CASES: dict[str, tuple[WorkerEnd, tuple[Any, str] | None]] = {
    "it was told to end": (WorkerEnd("ended", 0, runs={A: 5.0}), None),
    "it ended by itself while nothing ran": (WorkerEnd("ended", 1), None),
    "it crashed while nothing ran": (WorkerEnd("ended", -11), None),
    "it crashed while it loaded": (
        WorkerEnd("ended", -11, loading=B), (B, "it ended while it loaded it (signal 11, SIGSEGV)"),
    ),
    "it exited while it loaded": (WorkerEnd("ended", 3, loading=B), (B, "it ended while it loaded it (exit code 3)")),
    "it was killed while it loaded, as when memory is short": (
        WorkerEnd("ended", -9, loading=B, runs={A: 0.001}), (B, "it ended while it loaded it (signal 9, SIGKILL)"),
    ),
    "it crashed in a run": (
        WorkerEnd("ended", -6, runs={A: 0.0001}, champions={A}), (A, "it ended while it ran (signal 6, SIGABRT)"),
    ),
    "it crashed while the champion and a canary ran": (
        WorkerEnd("ended", -11, runs={A: 3.0, B: 0.001}, champions={A}),
        (B, "it ended while it ran (signal 11, SIGSEGV)"),
    ),
    "it crashed while two others ran": (
        WorkerEnd("ended", -11, runs={A: 0.2, B: 0.1}), (A, "it ended while it ran (signal 11, SIGSEGV)"),
    ),
    "somebody killed it in the middle of a short run": (WorkerEnd("ended", -9, runs={A: 0.02}, champions={A}), None),
    "it ended itself in a short run": (
        WorkerEnd("ended", 1, runs={A: 0.02}), (A, "it ended while it ran (exit code 1)"),
    ),
    "somebody killed it in a run that was just long enough": (
        WorkerEnd("ended", -9, runs={A: SUSPICIOUS_RUN_S}), (A, "it ended while it ran (signal 9, SIGKILL)"),
    ),
    "somebody ended it": (WorkerEnd("ended", -15, runs={A: 0.02}), None),
    "it was killed in a long run, as when memory is short": (
        WorkerEnd("ended", -9, runs={A: 2.0, B: 0.1}), (A, "it ended while it ran (signal 9, SIGKILL)"),
    ),
    "a run held up its loop": (
        WorkerEnd("silent", -9, runs={A: 10.4, B: 0.1}), (A, "its run held up the whole worker for 10 s"),
    ),
    "a run held up its loop while it loaded": (
        WorkerEnd("silent", -9, loading=B, runs={A: 10.4}), (A, "its run held up the whole worker for 10 s"),
    ),
    "a load held up its loop": (WorkerEnd("silent", -9, loading=B), (B, "its load held up the whole worker")),
    "its loop was silent and nothing ran": (WorkerEnd("silent", -9), None),
    "it was stopped": (WorkerEnd("stopped", -9, loading=B, runs={A: 11.0}), None),
    "it never started": (WorkerEnd("never started", -9), None),
    "a run did not end": (WorkerEnd("long run", -9, runs={A: 61.0, B: 1.0}), (A, "a run had not ended after 61 s")),
    "a run that did not end ended just then": (WorkerEnd("long run", -9), None),
    "a load did not end": (WorkerEnd("long load", -9, loading=B, runs={A: 1.0}), (B, "its load did not end")),
    "it died of a signal without a name": (
        WorkerEnd("ended", -40, loading=B), (B, "it ended while it loaded it (signal 40)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_blame(case: str) -> None:
    end, expected = CASES[case]
    assert blame(end) == expected


def test_a_version_is_out_after_the_second_time_until_its_files_change(fake_clock: Any) -> None:
    quarantine = Quarantine(fake_clock())
    assert not quarantine.note(A, "x", "it ended while it ran")
    assert (quarantine.reason(A, "x"), quarantine.is_doubtful(A, "x")) == (None, True)
    assert not quarantine.note(B, "x", "it ended while it ran")
    assert quarantine.note(A, "x", "its load did not end")
    assert quarantine.reason(A, "x") == (
        "is kept out until its files change: it ended a worker 2 times; the last time its load did not end"
    )
    assert (quarantine.reason(A, "y"), quarantine.is_doubtful(A, "y")) == (None, False)
    assert not quarantine.note(A, "y", "other files start anew")
    assert quarantine.reason(A, "x") is None


def test_whoever_kills_all_workers_at_once_has_one_reason(fake_clock: Any) -> None:
    clock = fake_clock()
    quarantine = Quarantine(clock)
    for _ in range(3):
        assert not quarantine.note(A, "x", "it ended while it loaded it (signal 9, SIGKILL)", was_killed=True)
        clock.now += TOGETHER_S / 4
    assert not quarantine.note(A, "y", "other files", was_killed=True)
    assert not quarantine.note(B, "x", "another version", was_killed=True)
    clock.now += TOGETHER_S
    assert quarantine.note(B, "x", "killed again", was_killed=True)
    assert quarantine.note(A, "y", "it ended while it ran")
    assert quarantine.note(A, "y", "killed just after it", was_killed=True)


@pytest.mark.parametrize(
    ("cause", "code", "expected"),
    [("ended", -9, True), ("ended", -15, True), ("ended", -11, False), ("ended", 1, False), ("silent", -9, False)],
)
def test_who_was_killed(cause: Cause, code: int, expected: bool) -> None:
    assert was_killed(WorkerEnd(cause, code)) == expected


def test_what_lies_long_back_is_forgiven(fake_clock: Any) -> None:
    clock = fake_clock()
    quarantine = Quarantine(clock)
    quarantine.note(A, "x", "how")
    clock.now += FORGIVEN_S
    assert not quarantine.note(A, "x", "how")
    clock.now += FORGIVEN_S / 2
    assert quarantine.note(A, "x", "how")
    clock.now += 10 * FORGIVEN_S
    assert quarantine.reason(A, "x") is not None  # what is out stays out


def test_versions_that_nobody_wants_are_forgotten(fake_clock: Any) -> None:
    quarantine = Quarantine(fake_clock())
    for key in (A, A, B, B):
        quarantine.note(key, "x", "how")
    quarantine.keep({B})
    assert quarantine.reason(A, "x") is None
    assert quarantine.reason(B, "x") is not None


def test_a_version_that_ends_its_own_process_is_kept_out_when_it_does_so_often(fake_clock: Any) -> None:
    clock = fake_clock()
    quarantine = Quarantine(clock)
    found = []
    for _ in range(PROCESS_ENDS_ALLOWED + 1):
        found.append(quarantine.note_process(A, "x", "it ended with signal 11"))
        clock.now += 1
    assert found == [*[False] * PROCESS_ENDS_ALLOWED, True]
    assert quarantine.reason(A, "x") == (
        "is kept out until its files change: it ended its own process 5 times; the last time it ended with signal 11"
    )
    clock.now += 2 * PROCESS_FORGIVEN_S
    assert quarantine.note_process(A, "x", "it ended once more")  # it does not come back by itself
    assert quarantine.reason(A, "y") is None
    assert not quarantine.is_doubtful(A, "x")
    quarantine.keep([])
    assert quarantine.reason(A, "x") is None


def test_a_version_that_ends_its_own_process_now_and_then_stays(fake_clock: Any) -> None:
    clock = fake_clock()
    quarantine = Quarantine(clock)
    for _ in range(20):
        assert not quarantine.note_process(A, "x", "it ended")
        clock.now += PROCESS_FORGIVEN_S / PROCESS_ENDS_ALLOWED
    assert quarantine.reason(A, "x") is None
