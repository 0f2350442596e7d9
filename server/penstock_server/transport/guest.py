"""What else may use the reactor's thread: another port, whose sockets are behind one descriptor.

The native transport watches the descriptor beside its own sockets. For the others a thread does, which has the reactor run
each turn: a hand-off more per turn, and else the same.
"""

import select
import threading
from collections.abc import Callable
from typing import Final, Protocol

LOOK_MS: Final = 50
"""How often a guest looks after its connections when nothing happens."""


class Guest(Protocol):
    """A port that shares the reactor's thread; all but `drained` is for that thread.

    Attributes:
        descriptor: readable when there is something to do.
        drained: set when nothing is left to answer, after `begin_drain`.
    """

    descriptor: int
    drained: threading.Event

    def turn(self) -> None:
        """Takes up what is there now."""

    def look_after(self) -> None:
        """Does what is due by time; called a few times in a tenth of a second."""

    def begin_drain(self) -> None:
        """Accepts nothing more, refuses what comes, and answers what runs."""

    def give_up(self) -> None:
        """Ends what still runs with an error."""

    def close(self) -> None:
        """Ends everything."""


class GuestThread:
    """Watches a guest's descriptor, and has the reactor run its turns.

    Args:
        post: has the reactor run an action.
    """

    def __init__(self, guest: Guest, post: Callable[[Callable[[], None]], None]) -> None:
        self._guest = guest
        self._post = post
        self._is_over = False
        self._thread = threading.Thread(target=self._watch, name="guest", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def drain(self, grace_s: float, last_words_s: float) -> None:
        """Waits until the guest has answered what runs, at most so long; then ends it.

        Args:
            grace_s: how long that may take.
            last_words_s: the end of the grace, in which errors leave.
        """
        self._post(self._guest.begin_drain)
        if not self._guest.drained.wait(max(0.0, grace_s - last_words_s)):
            self._post(self._guest.give_up)
            self._guest.drained.wait(last_words_s)
        self._is_over = True
        self._thread.join()
        closed = threading.Event()

        def close() -> None:
            self._guest.close()
            closed.set()

        self._post(close)
        closed.wait(last_words_s)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._guest.descriptor, select.POLLIN)
        while not self._is_over:
            is_ready = bool(poll.poll(LOOK_MS))
            done = threading.Event()

            def act(is_ready: bool = is_ready, done: threading.Event = done) -> None:
                try:
                    if is_ready:
                        self._guest.turn()
                    self._guest.look_after()
                finally:
                    done.set()

            self._post(act)
            while not done.wait(1.0) and not self._is_over:
                pass
