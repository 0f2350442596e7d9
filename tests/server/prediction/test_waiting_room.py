from collections.abc import Callable
from typing import Any

import pytest

from penstock_server.errors import DeadlinePassedError, PenstockError, StandbyError
from penstock_server.prediction import waiting_room
from penstock_server.prediction.waiting_room import WaitingRoom

NEVER = float("inf")


class Asker:
    """A room whose timers are the test's, and its callers."""

    def __init__(self, fake_call: Any, fake_clock: Any, monkeypatch: pytest.MonkeyPatch, most_calls: int = 3) -> None:
        self.clock = fake_clock()
        self.asked: list[str] = []
        self.timers: list[Callable[[], None]] = []
        self.loaded: set[str] = set()
        self.answered: list[str] = []
        self.left = 0
        self._fake_call = fake_call
        monkeypatch.setattr(waiting_room.threading, "Timer", self._timer)
        self.room = WaitingRoom(
            self.asked.append, lambda action: action(), clock=self.clock, wait_s=30, most_calls=most_calls
        )

    def _timer(self, _after_s: float, _post: Any, arguments: list[Callable[[], None]]) -> Any:
        asker = self

        class Timer:
            def start(self) -> None:
                asker.timers.extend(arguments)

        return Timer()

    def call(self, model: str, *, deadline_s: float = NEVER, name: str = "", since_s: float | None = None) -> Any:
        call = self._fake_call(deadline_s=deadline_s)
        since_s = self.clock() if since_s is None else since_s

        def handle() -> None:
            if model in self.loaded:
                call.finish(b"answer")
                self.answered.append(name)
            else:
                self.room.admit(
                    StandbyError(f"{model} is not in memory", model),
                    call,
                    retry=handle,
                    refuse=call.fail,
                    left=self._leave,
                    since_s=since_s,
                    deadline_s=deadline_s,
                    size_bytes=100,
                )

        handle()
        return call

    def _leave(self) -> None:
        self.left += 1

    def look(self, later_s: float) -> None:
        self.clock.now += later_s
        self.timers.pop()()


@pytest.fixture
def asker(fake_call: Any, fake_clock: Any, monkeypatch: pytest.MonkeyPatch) -> Asker:
    return Asker(fake_call, fake_clock, monkeypatch)


def test_many_callers_share_one_load_and_are_answered_in_order(asker: Asker) -> None:
    calls = [asker.call("m", name=name) for name in "abc"]
    assert (asker.asked, asker.room.calls, [call.is_over for call in calls]) == (["m"], 3, [False] * 3)
    asker.room.routes_changed({"other"})  # another model's
    assert (asker.asked, asker.room.calls) == (["m"], 3)
    asker.loaded.add("m")
    asker.room.routes_changed({"m"})
    assert (asker.answered, asker.room.calls) == (["a", "b", "c"], 0)


def test_the_supervisor_is_asked_again_while_calls_wait(asker: Asker) -> None:
    asker.call("m")
    asker.look(0.05)
    assert asker.asked == ["m"]
    asker.look(1.0)
    assert asker.asked == ["m", "m"]
    asker.loaded.add("m")
    asker.room.routes_changed({"m"})
    asker.look(1.0)
    assert (asker.asked, asker.timers) == (["m", "m"], [])


@pytest.mark.parametrize(
    ("deadline_s", "after_s", "error", "text"),
    [
        (NEVER, 30.0, StandbyError, "model 'm' was not loaded within 30 s; try again later"),
        (2.0, 2.0, DeadlinePassedError, "model 'm' was not loaded before the deadline"),
    ],
)
def test_a_call_waits_until_its_deadline_and_for_a_bounded_time(
    asker: Asker, deadline_s: float, after_s: float, error: type[PenstockError], text: str
) -> None:
    call = asker.call("m", deadline_s=asker.clock() + deadline_s)
    asker.look(after_s - 0.1)
    assert not call.is_over
    asker.look(0.1)
    assert (type(call.answer), str(call.answer), asker.room.calls) == (error, text, 0)


def test_time_counts_from_the_calls_arrival_however_often_routes_change(asker: Asker) -> None:
    call = asker.call("m")
    for _ in range(5):
        asker.clock.now += 5
        asker.room.routes_changed({"m"})
    asker.look(5)
    assert isinstance(call.answer, StandbyError)


def test_no_more_wait_than_may_and_the_others_are_refused_at_once(asker: Asker) -> None:
    for _ in range(3):
        asker.call("m")
    refused = asker.call("other")
    assert (type(refused.answer), asker.room.calls) == (StandbyError, 3)
    assert str(refused.answer) == "other is not in memory; 3 calls wait for models already, which is all that may"
    # The next try may find it.
    assert asker.asked == ["m", "other"]


def test_messages_are_bounded_too_but_one_always_waits(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_room, "MOST_BYTES", 150)
    first, second = asker.call("m"), asker.call("m")
    assert (first.is_over, second.is_over) == (False, True)


def test_a_caller_that_leaves_is_forgotten(asker: Asker) -> None:
    call = asker.call("m")
    call.leave()
    assert asker.left == 1
    asker.loaded.add("m")
    asker.room.routes_changed({"m"})
    assert (asker.answered, asker.room.calls) == ([], 0)


def test_what_fails_when_it_is_handled_again_ends_its_call_alone(asker: Asker, fake_call: Any) -> None:
    broken, call = fake_call(), asker.call("m", name="a")

    def retry() -> None:
        raise RuntimeError("a bug")

    asker.room.admit(
        StandbyError("", "m"),
        broken,
        retry=retry,
        refuse=broken.fail,
        left=lambda: None,
        since_s=asker.clock(),
        deadline_s=NEVER,
        size_bytes=1,
    )
    asker.loaded.add("m")
    asker.room.routes_changed({"m"})
    assert (type(broken.answer), call.is_over) == (PenstockError, True)
