"""How the memory of a server's workers grows: over many requests, then over calls that are cancelled or cut off.

Resident memory is read after a warm-up, which lets caches fill.
"""

import selectors
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import inference, models
from bench.load.generator import calls_of
from bench.load.link import links
from bench.load.plan import LoadPlan, endpoint
from bench.load.process import LoadPool
from bench.processes import ProcessMemory, memory_of
from bench.protocols import GRPC
from bench.servers.measured import SERVERS, running

MODEL: Final = "tabular"
WARMUP_REQUESTS: Final = 50_000
_CONNECTIONS, _STREAMS = 8, 8
_MIN_REQUESTS_PER_S: Final = 500.0
_ABANDONED_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class MemoryGrowth:
    """The workers' resident memory at four moments of one server's life.

    Attributes:
        requests: answered between `warm_bytes` and `served_bytes`.
        failed: how many more failed there.
        abandoned: calls between `served_bytes` and `abandoned_bytes`: half cancelled, half on a connection that is cut.
    """

    server: str
    requests: int
    failed: int
    abandoned: int
    started_bytes: int
    warm_bytes: int
    served_bytes: int
    abandoned_bytes: int


def workers_bytes(processes: Sequence[ProcessMemory]) -> int:
    """Resident memory of the processes that answer: all but the supervisor, which is first, or the first if it is alone."""
    return sum(process.rss_bytes for process in (processes[1:] or processes))


def run(name: str, *, requests: int, abandoned: int, on_start: Callable[[str], None] = lambda _: None) -> MemoryGrowth:
    """Serves a model, sends the requests, then the abandoned calls.

    Raises:
        ValueError: the server does not speak gRPC.
        UnavailableError, TimeoutError, LoadError: it could not be measured.
    """
    if SERVERS[name].protocol is not GRPC:
        raise ValueError(f"memory is measured over gRPC, and {name} does not speak it")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        files = models.write(Path(folder) / "models", {MODEL})
        sent = inference.messages(MODEL, rows=1)
        with running(SERVERS[name].command(Path(folder) / "models", files)) as server, LoadPool() as pool:

            def memory_bytes() -> int:
                return workers_bytes(memory_of(server.pid))

            inference.first_answer(server.grpc, sent[0], timeout_s=60)
            started = memory_bytes()
            on_start(f"{name}: warming up")
            pool.run(_plan(server.grpc, sent, WARMUP_REQUESTS))
            warm = memory_bytes()
            on_start(f"{name}: {requests:,} requests")
            result = pool.run(_plan(server.grpc, sent, requests))
            served = memory_bytes()
            on_start(f"{name}: {abandoned:,} abandoned calls")
            cancel(server.grpc, sent, abandoned // 2)
            cut_off(server.grpc, sent, abandoned - abandoned // 2)
            inference.first_answer(server.grpc, sent[0], timeout_s=60)
            left = memory_bytes()
    return MemoryGrowth(name, result.succeeded, result.failed, abandoned, started, warm, served, left)


def cancel(address: str, messages: Sequence[bytes], count: int) -> None:
    """Starts calls and cancels each at once, some before and some after the server saw them."""
    with inference.channel(address) as opened:
        call = inference.infer(opened)
        for start in range(0, count, _ABANDONED_AT_ONCE):
            batch = range(start, min(count, start + _ABANDONED_AT_ONCE))
            started = [call.future(messages[number % len(messages)], timeout=10) for number in batch]
            for each in started:
                each.cancel()


def cut_off(address: str, messages: tuple[bytes, ...], count: int) -> None:
    """Sends calls and closes their connection at once."""
    calls = calls_of(LoadPlan(address, inference.METHOD, messages))
    for start in range(0, count, _ABANDONED_AT_ONCE):
        with selectors.DefaultSelector() as selector, links(endpoint(address), calls, 1, selector) as opened:
            for _ in range(min(count - start, _ABANDONED_AT_ONCE)):
                opened[0].connection.submit(time.perf_counter())
            opened[0].flush()


def _plan(address: str, messages: tuple[bytes, ...], requests: int) -> LoadPlan:
    return LoadPlan(
        address,
        inference.METHOD,
        messages,
        connections=_CONNECTIONS,
        streams=_STREAMS,
        max_requests=requests,
        duration_s=60 + requests / _MIN_REQUESTS_PER_S,
    )
