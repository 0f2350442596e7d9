"""The calls for retraining that servers on one registry share, for the thread that calls: leases and tags of the models."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError
from typing import Any, Final, TypeVar

import structlog

from penstock_server.clock import Clock, monotonic
from penstock_server.control.lease_keeper import LeaseKeeper, WritesRegistry
from penstock_server.errors import PenstockError, UnavailableError, UnsupportedError
from penstock_server.rollout.registered import Expected, SetTag

log = structlog.get_logger(__name__)

ANSWER_S: Final = 40.0
"""How long a thread waits for the loop, which waits no longer for a registry."""
REFRESH_S: Final = 5.0
"""How long it is waited for what was written to be read; nobody reads any more when the server stops."""

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


class SharedCalls:
    """What `retraining.retrainer.Fleet` says, by a registry.

    A model of a folder has no tags: such a server acts for it alone.

    Args:
        holder: this server's name in leases; no other run of a server has it.
        lease_tag, calls_tag: names of the two tags.
        tags: of each model those that are known here; called on the loop.
        registry: where they are written.
        refresh: has the registry read again; returns when that is known here.
        lease_s: how long a lease lasts.
        max_bytes: how long a tag may be.
        run: has a coroutine run on the loop, and waits for it.
        clock: for leases.
    """

    def __init__(
        self,
        *,
        holder: str,
        lease_tag: str,
        calls_tag: str,
        tags: Callable[[], Mapping[str, Mapping[str, str]]],
        registry: WritesRegistry,
        refresh: Callable[[], Coroutine[Any, Any, None]],
        lease_s: float,
        max_bytes: int,
        run: Run[Any],
        clock: Clock = monotonic,
    ) -> None:
        self.look_s = lease_s / 10
        self.max_bytes = max_bytes
        self._lease_tag = lease_tag
        self._calls_tag = calls_tag
        self._tags = tags
        self._registry = registry
        self._refresh = refresh
        self._run = run
        self._leases = LeaseKeeper(
            holder=holder, tag=lease_tag, registry=registry, refresh=self._refreshed, lease_s=lease_s, clock=clock
        )
        self._unshared: set[str] = set()

    def records(self) -> Mapping[str, str]:
        return self._run(self._records())  # type: ignore[no-any-return]

    def hold(self, model: str) -> str:
        try:
            is_held = self._run(self._leases.hold(model))
        except UnsupportedError:
            self._unshared.add(model)
            return ""
        self._unshared.discard(model)
        other = self._leases.others(model)
        return "" if is_held else f"the server {other} acts for this model" if other else "it waits for its turn"

    def is_held(self, model: str) -> bool:
        return model in self._unshared or self._leases.is_held(model)

    def write(self, model: str, before: str, after: str) -> None:
        if model not in self._unshared and before != after:
            self._run(self._write(model, before, after))

    def release(self, model: str) -> None:
        try:
            self._run(self._leases.release(model))
        except PenstockError as error:  # it ends by itself
            log.warning("a lease cannot be given back", model=model, reason=str(error))

    async def _records(self) -> Mapping[str, str]:
        found = self._tags()
        for model in {*found, *self._leases.models}:
            self._leases.seen(model, found.get(model, {}).get(self._lease_tag, ""))
        return {model: tags[self._calls_tag] for model, tags in found.items() if self._calls_tag in tags}

    async def _write(self, model: str, before: str, after: str) -> None:
        expected = Expected({self._lease_tag: self._leases.value(model), self._calls_tag: before})
        await self._registry.write(model, expected, (SetTag("", self._calls_tag, after),))
        await self._refreshed()

    async def _refreshed(self) -> None:
        try:
            async with asyncio.timeout(REFRESH_S):
                await self._refresh()
        except TimeoutError:
            log.warning("the registry is not read again in time")


def run_on(loop: asyncio.AbstractEventLoop) -> Run[Any]:
    """Runs coroutines on a loop for another thread.

    The function that it gives raises what the coroutine raises, and `UnavailableError` where the loop has no time, or ends.
    """

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        waiting = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return waiting.result(ANSWER_S)
        except (TimeoutError, CancelledError):
            waiting.cancel()
            raise UnavailableError("the server's loop has no time for the registry") from None

    return run
