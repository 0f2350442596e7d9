"""The callers: many requests in flight over a few connections, at an even pace, each reply counted.

Decides when a request is sent and what is a failure: anything but an answer, with no retries that would hide it. What is
sent is `stream`'s, what is made of the replies `tally`'s business.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_client import AsyncClient, PenstockClientError
from penstock_tools.demo.plan import CONNECTIONS, IN_FLIGHT, MODEL, due_s
from penstock_tools.demo.results import Reply, Tally
from penstock_tools.demo.stream import Batch

GIVE_UP_FAILURES: Final = 100
"""The demo has failed at the first; there is no point in sending the rest to a server that is gone."""

LABEL: Final = "label"
"""The output that holds the predicted class."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When requests are due, and what happens half-way.

    Attributes:
        requests: how many there are, repeats at the end not counted.
        seconds: over how long they are spread.
        halfway: set when the request in the middle is due.
    """

    requests: int
    seconds: float
    halfway: asyncio.Event


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Sequence[AsyncClient]]:
    """Clients with a connection each, closed on leaving."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                # gRPC would share one connection between channels that are alike.
                AsyncClient(address, retries=0, options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(CONNECTIONS)
        ]


async def send(
    stream: Iterator[Batch],
    clients: Sequence[AsyncClient],
    tally: Tally,
    pace: Pace,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Sends the stream, and counts what comes back until the last reply is there or too much has failed."""
    numbered = enumerate(stream)
    started = clock()

    async def caller(client: AsyncClient) -> None:
        for at, batch in numbered:
            wait_s = started + due_s(at, pace.requests, pace.seconds) - clock()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if at == pace.requests // 2:
                pace.halfway.set()
            if tally.failures >= GIVE_UP_FAILURES:
                return
            await _ask(client, batch, tally, started, clock)

    async with asyncio.TaskGroup() as tasks:
        for at in range(IN_FLIGHT):
            tasks.create_task(caller(clients[at % len(clients)]))


async def _ask(client: AsyncClient, batch: Batch, tally: Tally, started: float, clock: Callable[[], float]) -> None:
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
