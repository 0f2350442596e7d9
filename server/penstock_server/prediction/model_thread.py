"""Runs work off the reactor, one piece after another, and hands each result back to it.

What crosses the threads are messages: a function over values that nobody changes goes in, its result comes back as an
action posted to the reactor. So a model thread never sees a call, a queue or a counter.
"""

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

Post = Callable[[Callable[[], None]], None]
"""Runs an action soon on the reactor's thread; safe from any thread."""

_Job = tuple[Callable[[], Any], Callable[[Any], None]]
JOIN_S: Final = 5.0


class ModelThread:
    """A thread that runs pieces of work in the order given; it starts with the first.

    Its owner gives it one piece at a time and the next one after the result, so that several owners take turns.
    """

    def __init__(self, name: str, post: Post) -> None:
        self._name = name
        self._post = post
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Runs `work`, which must not raise, and posts `then` with its result to the reactor."""
        self._jobs.put((work, then))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread after what it was given; does not wait for it."""
        self._jobs.put(None)

    def join(self) -> None:
        """Waits for the thread's end after `close`, for a few seconds at most: a model may hang."""
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, then = job
            self._post(partial(then, work()))
            # While it waits the thread must not keep the last batch's memory.
            del job, work, then
