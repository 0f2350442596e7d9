"""A request of a million rows to a cheap model: what health checks and other models feel while it is answered.

They are asked at an even rate before and meanwhile, from processes of their own, and latencies count from when each
call was due. So a worker that answers nobody for a second delays all calls of that second.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import grpc
import numpy as np
from grpc_health.v1 import health_pb2

from bench import inference
from bench.faults import graphs
from bench.faults.mix.questions import Questions, request
from bench.faults.number import Number
from bench.faults.scenario import Run
from bench.faults.served import serving
from bench.load.plan import LoadPlan, LoadResult
from bench.load.process import LoadProcess
from bench.results import percentile
from penstock.names import HEALTH_SERVICE

ROWS: Final = 1_000_000
_RATE_PER_S: Final = 100.0
_GRACE_S: Final = 60.0
_GIANT_S: Final = 120.0
_LEAD_S: Final = 0.3
_MESSAGE_BYTES: Final = 64 * 2**20


def play(run: Run) -> Iterator[Number]:
    """Measures both p99s alone, then while giant requests follow each other."""
    duration_s = run.lasting_s(full=20, quick=6)
    repository = run.folder / "repository"
    graphs.put(repository, "layers", 1, graphs.layers())
    graphs.put(repository, "promoted", 1, graphs.answering(1))
    with (
        serving(run.folder / "server", "--model-repository", str(repository), models={"layers", "promoted"}) as (
            server,
            state,
        ),
        ExitStack() as stack,
    ):
        plans = _plans(server.grpc, duration_s)
        processes = {name: stack.enter_context(LoadProcess()) for name in plans}
        run.say(f"others alone for {duration_s:g} s")
        before = _measure(processes, plans)
        stop = threading.Event()
        endings: list[tuple[float, str]] = []
        giants = threading.Thread(target=_ask_giants, args=(server.grpc, stop, endings), daemon=True)
        giants.start()
        time.sleep(_LEAD_S)
        run.say(f"the same while {ROWS:,} rows are asked")
        during = _measure(processes, plans)
        stop.set()
        giants.join(_GIANT_S)
        restarts = state.restarts()
    for name in plans:
        p99s = [_p99_ms(results[name]) for results in (before, during)]
        note = f"{_shown(p99s[0])} -> {_shown(p99s[1])} ms, slowest {_slowest_ms(during[name]):.0f} ms"
        ratio = p99s[1] / p99s[0] if p99s[0] and p99s[1] else None
        yield Number(f"p99 of {name}, meanwhile against before", ratio, note)
    failed = {name: during[name].failed for name in plans}
    yield Number("failed calls of others", sum(failed.values()), str(failed))
    yield Number("restarts of workers", restarts)
    seconds = [took_s for took_s, _ in endings]
    codes = sorted({code for _, code in endings})
    yield Number("s per giant request", sum(seconds) / len(seconds) if seconds else None, f"{len(endings)}: {codes}")


def _plans(address: str, duration_s: float) -> dict[str, LoadPlan]:
    questions = Questions(0)
    rows = tuple(questions.of("promoted", 1).request.SerializeToString() for _ in range(64))
    health = (health_pb2.HealthCheckRequest().SerializeToString(),)
    calls = {"health": (f"/{HEALTH_SERVICE}/Check", health), "another model": (inference.METHOD, rows)}
    return {
        name: LoadPlan(
            address,
            path,
            messages,
            connections=1,
            streams=10_000,
            # Answers count only in the window, so it lasts longer than the sending: until all calls have ended.
            duration_s=duration_s + _GRACE_S,
            max_requests=int(_RATE_PER_S * duration_s),
            rate_per_s=_RATE_PER_S,
        )
        for name, (path, messages) in calls.items()
    }


def _measure(processes: dict[str, LoadProcess], plans: dict[str, LoadPlan]) -> dict[str, LoadResult]:
    for name, process in processes.items():
        process.start(plans[name])
    return {name: process.result() for name, process in processes.items()}


def _ask_giants(address: str, stop: threading.Event, endings: list[tuple[float, str]]) -> None:
    """Asks a million rows, one request after another."""
    rows = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)
    message = request("layers", "FP32", rows.shape, rows.tobytes()).SerializeToString()
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", _MESSAGE_BYTES))
    with grpc.insecure_channel(address, options) as channel:
        call = inference.infer(channel)
        while not stop.is_set():
            started = time.monotonic()
            try:
                call(message, timeout=_GIANT_S)
                code = "OK"
            except grpc.RpcError as error:
                code = f"{error.code().name}: {(error.details() or '')[:100]}"
            endings.append((time.monotonic() - started, code))
            if code != "OK":
                stop.wait(0.1)


def _p99_ms(result: LoadResult) -> float | None:
    found = percentile(result.latencies_s, 99)
    return None if found is None else found * 1e3


def _slowest_ms(result: LoadResult) -> float:
    return float(result.latencies_s.max(initial=0.0)) * 1e3


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"
