"""The stream of what is new, for everybody who looks at the page: server-sent events.

What is shown is computed once a second for all of them together, on a thread, and only while somebody looks. It comes in
sections, of which each is sent when it has changed. Who reads too slowly misses steps in between, and gets the latest.

Source: WHATWG HTML, "Server-sent events".
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Final, Protocol

import structlog

from penstock_server.clock import Clock, monotonic
from penstock_server.errors import OverloadedError

log = structlog.get_logger(__name__)

VIEWERS: Final = 16
"""How many may look at once."""
PERIOD_S: Final = 1.0
REST: Final = 20
"""The pause is this many times as long as what is shown took to compute, if that is more: one core is used for a twentieth."""

Sections = Callable[[], Mapping[str, bytes]]
"""What there is to show, by the name of each part, in one line each; called on a thread, never twice at once."""


class Writes(Protocol):
    """Where the chunks of a stream go."""

    def write(self, chunk: bytes) -> bool:
        """Sends a chunk, unless the one before has not been read yet; whether it was sent."""

    def end(self) -> None:
        """Ends the stream."""


class _Viewer:
    """One who looks.

    Attributes:
        missing: the sections of which the latest was not sent.
    """

    def __init__(self, where: Writes, may_look: Callable[[], bool], missing: set[str]) -> None:
        self.where = where
        self.may_look = may_look
        self.missing = missing


class Feed:
    """Tells everybody who looks what is new. All calls are on the loop.

    Args:
        sections: what there is to show.
        threads: where it is computed.
    """

    def __init__(self, sections: Sections, threads: Executor, *, clock: Clock = monotonic) -> None:
        self._sections = sections
        self._threads = threads
        self._clock = clock
        self._viewers: dict[_Viewer, None] = {}
        self._latest: dict[str, bytes] = {}
        self._task: asyncio.Task[None] | None = None
        self._has_failed = False

    def check_room(self) -> None:
        """Raises `OverloadedError` when as many look as may."""
        if len(self._viewers) >= VIEWERS:
            raise OverloadedError(f"{VIEWERS} look at this server already; close a page and try again")

    def open(self, where: Writes, may_look: Callable[[], bool]) -> Callable[[], None]:
        """Tells one more what there is, from now on.

        Args:
            where: where to.
            may_look: whether it still may; asked before each step, and when it may no longer, its stream ends.

        Returns:
            To be called when it no longer looks.
        """
        viewer = _Viewer(where, may_look, set(self._latest))
        self._viewers[viewer] = None
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        else:
            self._tell(viewer)
        return lambda: self._viewers.pop(viewer, None)

    async def close(self) -> None:
        """Tells nobody anything any more; streams end with their connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._viewers:
                began_s = self._clock()
                await self._look()
                await asyncio.sleep(max(PERIOD_S, REST * (self._clock() - began_s)))
        finally:
            self._latest, self._task = {}, None

    async def _look(self) -> None:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._sections)
        except Exception:
            if not self._has_failed:
                log.exception("the operations page cannot be told what is new")
            self._has_failed = True
            return
        self._has_failed = False
        new = {name for name, body in found.items() if self._latest.get(name) != body}
        self._latest = dict(found)
        for viewer in list(self._viewers):
            viewer.missing |= new
            self._tell(viewer)

    def _tell(self, viewer: _Viewer) -> None:
        if not viewer.may_look():
            viewer.where.end()
            return
        chunk = b"".join(event(name, self._latest[name]) for name in self._latest if name in viewer.missing)
        if chunk and viewer.where.write(chunk):
            viewer.missing.clear()


def event(name: str, body: bytes) -> bytes:
    """One server-sent event; the body is one line."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), body)
