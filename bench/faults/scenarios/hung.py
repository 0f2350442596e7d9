"""One request hangs a worker of two, by a loop in its model: what others feel who call with the client and its retries."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import grpc
import numpy as np

from bench import inference
from bench.faults import graphs
from bench.faults.mix.questions import request
from bench.faults.number import Number
from bench.faults.scenario import Run
from bench.faults.served import ServerState, end, happens, serving
from penstock_client import AsyncClient
from penstock_client.errors import PenstockClientError

_CLIENTS: Final = 16
_PAUSE_S: Final = 0.02
_TIMEOUT_S: Final = 30.0
"""Longer than a watchdog may take: a call that waits at the hung worker can then be sent again."""
_MARGIN_S: Final = 3.0
_BEFORE_S, _AFTER_S = 2.0, 3.0
_PROBES: Final = 20
_PROBE_S: Final = 2.0


def play(run: Run) -> Iterator[Number]:
    """Hangs a worker and waits until two workers answer again."""
    patience_s = run.lasting_s(full=90, quick=30)
    repository = run.folder / "repository"
    graphs.put(repository, "plain", 1, graphs.answering(1))
    graphs.put(repository, "hanging", 1, graphs.hanging(is_always=False))
    with serving(
        run.folder / "server",
        *("--model-repository", str(repository), "--workers", "2"),
        models={"plain", "hanging"},
    ) as (server, state):
        found = asyncio.run(_play(server.grpc, state, patience_s, run))
        end(server, patience_s=0.0)  # a hung worker would use up the grace
    yield from found


async def _play(address: str, state: ServerState, patience_s: float, run: Run) -> list[Number]:
    workers = {row["pid"] for row in state.workers()}
    failures: Counter[str] = Counter()
    answers: list[float] = []
    stop = asyncio.Event()
    callers = [asyncio.create_task(_ask(address, at, stop, answers, failures)) for at in range(_CLIENTS)]
    await asyncio.sleep(_BEFORE_S)
    before = Counter(failures)
    run.say(f"hangs a worker; waits for two that answer for up to {patience_s:g} s")
    started = time.monotonic()
    await asyncio.to_thread(_hang, address)
    ended_s = await asyncio.to_thread(
        happens, lambda: workers - {row["pid"] for row in state.workers()}, within_s=patience_s
    )
    back_s = None
    if ended_s is not None:
        ended_s = time.monotonic() - started
        back_s = await asyncio.to_thread(
            happens, lambda: sum(row["listening"] for row in state.workers()) == len(workers), within_s=patience_s
        )
    await asyncio.sleep(_AFTER_S)
    stop.set()
    await asyncio.gather(*callers)
    failures -= before
    reasons = "; ".join(f"{count} × {reason}" for reason, count in failures.most_common(3))
    slowest = f"of {len(answers) + failures.total():,} calls, slowest answer {max(answers, default=0):.1f} s"
    return [
        Number("failed calls of others", failures.total(), f"{slowest}{'; ' * bool(reasons)}{reasons}"),
        Number("s until the hung worker was ended", ended_s),
        Number("s from there until two workers listen", back_s),
        Number("share of new connections that are answered afterwards", await asyncio.to_thread(_answered, address)),
    ]


def _hang(address: str) -> None:
    """Sends the request that loops; its caller gives up soon."""
    rows = np.array([[graphs.MARK]], np.int64)
    message = request("hanging", "INT64", rows.shape, rows.tobytes()).SerializeToString()
    with inference.channel(address) as opened, suppress(grpc.RpcError):
        inference.infer(opened)(message, timeout=1.0)


def _answered(address: str) -> float:
    """The share of new connections whose call is answered: the kernel spreads them over the workers, deaf ones too."""
    rows = np.array([[1.0, 2.0]])
    message = request("plain", "FP64", rows.shape, rows.tobytes()).SerializeToString()
    answered = 0
    for _ in range(_PROBES):
        with inference.channel(address) as opened, suppress(grpc.RpcError):
            inference.infer(opened)(message, timeout=_PROBE_S)
            answered += 1
    return answered / _PROBES


async def _ask(address: str, at: int, stop: asyncio.Event, answers: list[float], failures: Counter[str]) -> None:
    """Asks with the client, its deadline and its retries, and checks the answers."""
    async with AsyncClient(address, timeout_s=_TIMEOUT_S, options=(("grpc.use_local_subchannel_pool", 1),)) as client:
        number = at
        while not stop.is_set():
            number += _CLIENTS
            rows = np.array([[float(number), float(-number)]])
            started = time.monotonic()
            try:
                async with asyncio.timeout(_TIMEOUT_S + _MARGIN_S):
                    found: Any = await client.predict("plain", rows)
                if not np.array_equal(found["y"], rows + 1):
                    failures["a wrong answer"] += 1
                answers.append(time.monotonic() - started)
            except (PenstockClientError, TimeoutError) as error:
                failures[f"{type(error).__name__}: {str(error)[:80]}"] += 1
            await asyncio.sleep(_PAUSE_S)
