"""The flights as requests, sent with many in flight over a few connections at an even rate; each reply is counted.

Decides what a request holds, when it is sent, and what a failure is: anything but an answer. The clients do not retry, since
a retry would hide a failure.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_client import AsyncClient, PenstockClientError
from penstock_tools.demo import flights
from penstock_tools.demo.plan import CONNECTIONS, IN_FLIGHT, MODEL, due_s
from penstock_tools.demo.results import Reply, Tally

if TYPE_CHECKING:
    import pandas as pd

GIVE_UP_FAILURES: Final = 100
"""One failure fails the demo. After this many the server is gone, and sending the rest shows nothing."""

LABEL: Final = "label"
"""The output that holds the predicted class."""


@dataclass(frozen=True, slots=True)
class FlightBatch:
    """The rows of one request.

    Attributes:
        month: of 2013, that of the first row.
        key: the routing key, the number of the first flight: a flight gets the same version every day.
        rows: columns by name.
        answers: the truth, of shape [rows]: 1 where the flight arrived late, else 0.
    """

    month: int
    key: str
    rows: dict[str, NDArray[Any]]
    answers: NDArray[np.int64]


def thinned(frame: "pd.DataFrame", rows: int) -> "pd.DataFrame":
    """At most that many rows of the frame, evenly spaced, in its order."""
    if rows >= len(frame):
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, rows).astype(np.int64)]


def batches(frame: "pd.DataFrame", size: int) -> Iterator[FlightBatch]:
    """The frame in its order, `size` rows at a time; the last may have fewer."""
    table, answers = flights.table(frame), flights.answers(frame)
    months, carriers, numbers = (frame[name].to_numpy() for name in ("month", "carrier", "flight"))
    for start in range(0, len(frame), size):
        part = slice(start, start + size)
        yield FlightBatch(
            month=int(months[start]),
            key=f"{carriers[start]}{numbers[start]}",
            rows={name: column[part] for name, column in table.items()},
            answers=answers[part],
        )


def until(is_done: Callable[[], bool], stream: Iterable[FlightBatch], *, at_most: int) -> Iterator[FlightBatch]:
    """The stream, then its last batch again until something is done, at most this many times."""
    last: FlightBatch | None = None
    for batch in stream:
        last = batch
        yield batch
    for _ in range(at_most):
        if last is None or is_done():
            return
        yield last


@dataclass(frozen=True, slots=True)
class Schedule:
    """When requests are due.

    Attributes:
        requests: without the repeats at the end.
        seconds: they are spread evenly over this time.
        halfway: set when the request in the middle is due.
    """

    requests: int
    seconds: float
    halfway: asyncio.Event


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Sequence[AsyncClient]]:
    """Clients with one connection each, closed on leaving."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                # gRPC would share one connection between channels that are alike.
                AsyncClient(address, retries=0, options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(CONNECTIONS)
        ]


async def send(
    stream: Iterator[FlightBatch],
    clients: Sequence[AsyncClient],
    tally: Tally,
    schedule: Schedule,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Sends the stream and counts the replies, until the last one is there or too many requests have failed."""
    numbered = enumerate(stream)
    started = clock()

    async def caller(client: AsyncClient) -> None:
        for at, batch in numbered:
            wait_s = started + due_s(at, schedule.requests, schedule.seconds) - clock()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if at == schedule.requests // 2:
                schedule.halfway.set()
            if tally.failures >= GIVE_UP_FAILURES:
                return
            await _request(client, batch, tally, started, clock)

    async with asyncio.TaskGroup() as tasks:
        for at in range(IN_FLIGHT):
            tasks.create_task(caller(clients[at % len(clients)]))


async def _request(
    client: AsyncClient, batch: FlightBatch, tally: Tally, started: float, clock: Callable[[], float]
) -> None:
    sent = clock()
    try:
        prediction = await client.predict(MODEL, batch.rows, routing_key=batch.key)
    except PenstockClientError as error:
        tally.failed(str(error))
        return
    answered = clock()
    tally.answered(
        Reply(
            at_s=answered - started,
            took_s=answered - sent,
            month=batch.month,
            version=prediction.version,
            role=prediction.role or "",
            rows=len(batch.answers),
            right=int(np.count_nonzero(prediction[LABEL] == batch.answers)),
        )
    )
