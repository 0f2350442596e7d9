"""Where calls wait whose model is not in memory: the supervisor has it loaded, and they are tried again when routes change.

Many callers share one load. How many wait, how many bytes their messages take, and for how long, is bounded; what finds no
room, or waits too long, is refused with the time after which another try may be worth it. It all happens on the reactor's
thread, after the request path has found that there is no executor: a model that is in memory costs nothing here.
"""

import threading
from collections.abc import Callable, Collection
from typing import Final

import structlog

from penstock_server.call import Call
from penstock_server.clock import Clock
from penstock_server.errors import DeadlinePassedError, PenstockError, StandbyError

log = structlog.get_logger(__name__)

MOST_BYTES: Final = 1 << 28
"""Of the messages that wait."""
LOOK_S: Final = 0.05
"""How late a call may learn that it has waited too long."""
ASK_AGAIN_S: Final = 1.0
"""The supervisor is asked for a model again after this time, if its calls still wait: it may have given the model up."""


class _Waiting:
    """A call that waits.

    Attributes:
        retry: handles the call again.
        refuse: ends it with an error.
        is_left: its caller left, or it is over.
    """

    __slots__ = ("call", "deadline_s", "is_left", "left", "limit_s", "refuse", "retry", "size_bytes")

    def __init__(
        self,
        call: Call,
        retry: Callable[[], None],
        refuse: Callable[[PenstockError], None],
        left: Callable[[], None],
        *,
        deadline_s: float,
        limit_s: float,
        size_bytes: int,
    ) -> None:
        self.call = call
        self.deadline_s = deadline_s
        self.retry = retry
        self.refuse = refuse
        self.left = left
        self.limit_s = limit_s
        self.size_bytes = size_bytes
        self.is_left = False

    def cancelled(self) -> None:
        """Gives the call up: its caller left."""
        self.is_left = True
        self.left()


class WaitingRoom:
    """Keeps calls until their models are there.

    Args:
        ask: tells the supervisor that a model is wanted.
        post: has the reactor run an action; from any thread.
        clock: the time.
        wait_s: how long a call waits at most.
        most_calls: how many wait at most.

    Attributes:
        calls: how many wait now.
    """

    def __init__(
        self,
        ask: Callable[[str], None],
        post: Callable[[Callable[[], None]], None],
        *,
        clock: Clock,
        wait_s: float,
        most_calls: int,
    ) -> None:
        self._ask = ask
        self._post = post
        self._clock = clock
        self._wait_s = wait_s
        self._most_calls = most_calls
        self._lines: dict[str, list[_Waiting]] = {}
        self._asked_s: dict[str, float] = {}
        self._size_bytes = 0
        self.calls = 0
        self._is_watched = False

    def admit(
        self,
        standby: StandbyError,
        call: Call,
        *,
        retry: Callable[[], None],
        refuse: Callable[[PenstockError], None],
        left: Callable[[], None],
        since_s: float,
        deadline_s: float,
        size_bytes: int,
    ) -> None:
        """Keeps a call, or refuses it at once if there is no room.

        Args:
            standby: says which model is wanted; what the call is refused with.
            call: the call.
            retry: handles it again, when other versions may be served.
            refuse: ends it with an error.
            left: is told that its caller left.
            since_s: when it came.
            deadline_s: when its caller gives up.
            size_bytes: what it keeps in memory.
        """
        now_s = self._clock()
        is_full = self.calls >= self._most_calls or (self.calls and self._size_bytes + size_bytes > MOST_BYTES)
        if is_full:
            standby.args = (f"{standby}; {self.calls:,} calls wait for models already, which is all that may",)
        limit_s = min(since_s + self._wait_s, deadline_s)
        if limit_s <= now_s or is_full:
            self._want(standby.model, now_s)  # the next one may find it
            refuse(self._too_late(standby.model, deadline_s, now_s) if limit_s <= now_s else standby)
            return
        waiting = _Waiting(call, retry, refuse, left, deadline_s=deadline_s, limit_s=limit_s, size_bytes=size_bytes)
        call.pending = waiting
        call.watch()
        self._lines.setdefault(standby.model, []).append(waiting)
        self.calls += 1
        self._size_bytes += size_bytes
        self._want(standby.model, now_s)
        self._watch()

    def routes_changed(self, models: Collection[str]) -> None:
        """Handles all calls for these models again; those whose models are still not there come back."""
        for name in [name for name in self._lines if name in models]:
            for waiting in self._take(name):
                if not waiting.is_left and not waiting.call.is_over:
                    waiting.call.pending = None
                    self._retry(waiting)

    def _retry(self, waiting: _Waiting) -> None:
        try:
            waiting.retry()
        except Exception:
            log.exception("a call that waited for its model failed")
            waiting.call.fail(PenstockError())

    def expire(self) -> None:
        """Refuses the calls that have waited too long, drops those that were left, and asks again for the others' models."""
        now_s = self._clock()
        for name in list(self._lines):
            for waiting in self._take(name):
                if waiting.is_left or waiting.call.is_over:
                    continue
                if waiting.limit_s <= now_s:
                    waiting.call.pending = None
                    waiting.refuse(self._too_late(name, waiting.deadline_s, now_s))
                else:
                    self._lines.setdefault(name, []).append(waiting)
                    self.calls += 1
                    self._size_bytes += waiting.size_bytes
            if name in self._lines:
                self._want(name, now_s)
        self._asked_s = {name: at_s for name, at_s in self._asked_s.items() if name in self._lines}
        self._is_watched = False
        self._watch()

    def _take(self, name: str) -> list[_Waiting]:
        taken = self._lines.pop(name)
        self.calls -= len(taken)
        self._size_bytes -= sum(waiting.size_bytes for waiting in taken)
        return taken

    def _want(self, model: str, now_s: float) -> None:
        if now_s - self._asked_s.get(model, float("-inf")) >= ASK_AGAIN_S:
            self._asked_s[model] = now_s
            self._ask(model)

    def _watch(self) -> None:
        """Looks at the calls again soon, as long as some wait."""
        if self._lines and not self._is_watched:
            self._is_watched = True
            timer = threading.Timer(LOOK_S, self._post, [self.expire])
            timer.daemon = True
            timer.start()

    def _too_late(self, model: str, deadline_s: float, now_s: float) -> PenstockError:
        if deadline_s <= now_s:
            return DeadlinePassedError(f"model {model!r} was not loaded before the deadline")
        return StandbyError(f"model {model!r} was not loaded within {self._wait_s:g} s; try again later", model)
