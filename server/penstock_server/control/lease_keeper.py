"""Takes, renews and gives back the leases of models: `rollout.lease` decides, and this writes to the registry."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from penstock_server.clock import Clock, monotonic
from penstock_server.rollout.lease import ModelLease, holder_of
from penstock_server.rollout.registered import Change, DeleteTag, Expected, SetTag


class WritesRegistry(Protocol):
    """What a `sources.source.Source` offers to those who write."""

    async def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None: ...


class LeaseKeeper:
    """One server's leases, each in the same tag of its model. All calls are on one loop.

    Args:
        holder: this server's name in them; no other run of a server has it.
        tag: the tag's name.
        registry: where it is written.
        refresh: has the registry read again; returns when that is known here. Else the next look would find the tag as it
            was before it was written, and take it for another server's.
        lease_s: how long a lease lasts.
        clock: for leases.
    """

    def __init__(
        self,
        *,
        holder: str,
        tag: str,
        registry: WritesRegistry,
        refresh: Callable[[], Awaitable[None]],
        lease_s: float,
        clock: Clock = monotonic,
    ) -> None:
        self._holder = holder
        self._tag = tag
        self._registry = registry
        self._refresh = refresh
        self._lease_s = lease_s
        self._clock = clock
        self._leases: dict[str, ModelLease] = {}

    @property
    def models(self) -> AbstractSet[str]:
        """Those that something is known of."""
        return self._leases.keys()

    def seen(self, model: str, value: str) -> None:
        """Takes in what the registry says."""
        known = self._leases.get(model, ModelLease())
        self._leases[model] = known.seen(value, self._holder, self._clock(), self._lease_s)

    def forget(self, but: Collection[str]) -> None:
        """Forgets all models but these."""
        self._leases = {model: lease for model, lease in self._leases.items() if model in but}

    def value(self, model: str) -> str:
        """The tag as it is known here."""
        return self._leases.get(model, ModelLease()).value

    def others(self, model: str) -> str:
        """The name of another server in the tag; "" where there is none."""
        named = holder_of(self.value(model))
        return "" if named == self._holder else named

    def is_held(self, model: str) -> bool:
        """Whether this server may act now; from any thread. It may not once it has written nothing for half of its lease."""
        lease = self._leases.get(model, ModelLease())
        return lease.is_own and lease.wrote_s is not None and self._clock() - lease.wrote_s <= self._lease_s / 2

    async def hold(self, model: str) -> bool:
        """Takes or renews the lease where that is due; whether this server may act now.

        Raises:
            UnavailableError: the registry cannot be written, or another server was sooner.
        """
        lease = self._leases.get(model, ModelLease())
        move = lease.move(self._holder, self._clock(), self._lease_s)
        if move in {"take", "renew"}:
            after = lease.written(self._holder, self._clock())
            await self._registry.write(model, Expected({self._tag: lease.value}), (SetTag("", self._tag, after.value),))
            self._leases[model] = after
            await self._refresh()
        return move != "take" and self.is_held(model)

    async def release(self, model: str) -> None:
        """Gives a lease back that is held, so that nobody waits for its end.

        Raises:
            UnavailableError: the registry cannot be written.
        """
        if self.is_held(model):
            lease = self._leases.pop(model)
            await self._registry.write(model, Expected({self._tag: lease.value}), (DeleteTag("", self._tag),))
