"""Tells the kernels of plain requests which callers the guard has let through, and what with.

Kernels take only what was allowed here before: the same bytes of `authorization`, or a connection with the same certificate,
with a request of the same plan. What they do not take comes to the guard, and then here again.
"""

import time
from collections.abc import Callable
from math import inf
from typing import Final

from penstock_server.access.gate import AccessGate, Caller
from penstock_server.access.identity import STRANGER
from penstock_server.access.limits import depth_ns, interval_ns, key_of
from penstock_server.call import Call
from penstock_server.plain.callers import CallerBucket
from penstock_server.plain.requests import MAX_BYTES, PlainRequests
from penstock_server.transport.native import NativeTransport

_NEVER_NS: Final = 1 << 62
_SECOND_NS: Final = 1e9


class KnownCallers:
    """The guard's word to the kernels; on the reactor's thread.

    Args:
        gate: has let callers through.
        requests: the plain requests of this worker.
        transport: has their calls.
        now_ns: the monotonic clock.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        gate: AccessGate,
        requests: PlainRequests,
        transport: NativeTransport,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._gate = gate
        self._requests = requests
        self._callers = requests.ask_callers(transport.streams_at)
        self._transport = transport
        self._now_ns = now_ns
        self._wall = wall

    def admitted(self, message: bytes, call: Call, caller: Caller, authorization: list[str]) -> None:
        """A caller was let through with this message."""
        slot = self._transport.slot_of(call)
        if slot is None or caller.identity is STRANGER or len(message) > MAX_BYTES:
            return
        plan = self._requests.plan_of(message)
        if plan < 0:
            return
        mark = self._callers.permit(
            authorization[0].encode("latin-1") if authorization else caller.identity.names,
            plan,
            now_ns=self._now_ns(),
            until_ns=self._until_ns(caller.identity.expires_s),
            bucket=self._bucket(caller),
        )
        if not authorization:
            self._transport.mark_peer(slot, mark)

    def forget(self) -> None:
        """Has every caller come to the guard again: it checks against something else from now on."""
        self._callers.forget()

    def _until_ns(self, expires_s: float) -> int:
        return _NEVER_NS if expires_s == inf else self._now_ns() + int((expires_s - self._wall()) * _SECOND_NS)

    def _bucket(self, caller: Caller) -> CallerBucket | None:
        limit, name = caller.rights.limit, caller.identity.name
        if limit is None:
            return None
        return CallerBucket(self._gate.buckets.address_of(name), key_of(name), interval_ns(limit), depth_ns(limit))
