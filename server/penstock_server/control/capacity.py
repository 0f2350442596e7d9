"""Has the capacity of the server followed: reads each second what the supervisor, the counters and the system know."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from penstock.names import CANARY, CHAMPION
from penstock_server.capacity.busy import busy_s
from penstock_server.capacity.estimate import Room, ServerCapacity
from penstock_server.capacity.meter import CapacityMeter, MeterReading, VersionReading, counted
from penstock_server.clock import monotonic
from penstock_server.control.view import ServerView
from penstock_server.metrics.store import CounterStore

LOOK_S: Final = 1.0


def reading(view: ServerView, counters: CounterStore, at_s: float) -> MeterReading:
    """What there is to see now; it reads a few files of the system."""
    listening = [worker for worker in view.workers if worker.is_listening]
    known = [worker.connections for worker in listening if worker.connections is not None]
    return MeterReading(
        at_s,
        {worker.pid: busy for worker in listening if (busy := busy_s(worker.pid)) is not None},
        sum(known) if known else None,
        [
            VersionReading(
                version.key,
                version.runs,
                counted(held, version.runs.short_rows),
                CHAMPION in version.roles or CANARY in version.roles,
            )
            for version in view.versions
            if version.runs is not None and (held := counters.of_version(version.key))
        ],
    )


async def follow(meter: CapacityMeter, view: Callable[[], ServerView], counters: CounterStore) -> None:
    """Looks each second, until cancelled; on the loop, where it takes less than a millisecond."""
    while True:
        meter.look(reading(view(), counters, monotonic()))
        await asyncio.sleep(LOOK_S)


def shown(known: ServerCapacity | Room) -> dict[str, Any]:
    """What /v1/server shows of a server, and /v1/models of a model."""
    return {"ratio": _rounded(known.ratio), "requests_per_s": _rounded(known.requests_per_s)}


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")
