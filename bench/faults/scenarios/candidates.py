"""A champion under full load, while candidates that no server should load are named canary, one after another."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from bench.faults import graphs
from bench.faults.mix.questions import Questions
from bench.faults.number import Number
from bench.faults.registry import FaultRegistry
from bench.faults.scenario import Run
from bench.faults.served import ServerState, happens, serving
from bench.faults.steady import SteadyLoad
from bench.processes import memory_of
from penstock.names import CANARY, CHAMPION

MODEL: Final = "aliased"
_LATE_S: Final = 1.0
_BREATH_S: Final = 2.0
_GONE_S: Final = 10.0
_EATS_GIB: Final = 4.0
_KILLED_GIB: Final = 1.5
_KILL_BYTES: Final = 900 * 2**20
_LOOK_S: Final = 0.02

CANDIDATES: Final[dict[str, tuple[Callable[[], bytes], bool]]] = {
    "eats 4 GiB": (lambda: graphs.eating(_EATS_GIB), False),
    "loops at warm-up": (lambda: graphs.hanging(is_always=True), False),
    "is killed while it loads": (lambda: graphs.eating(_KILLED_GIB), True),
    "never ends loading": (graphs.folding, False),
}
"""Each candidate's graph, and whether the process that loads it is killed, as the kernel does when memory runs out."""


def play(run: Run) -> Iterator[Number]:
    """Names each candidate, waits until the server says what is wrong with it, and takes the name away again."""
    patience_s = run.lasting_s(full=180, quick=30)
    registry = FaultRegistry(run.folder / "registry")
    registry.set_alias(MODEL, CHAMPION, registry.add(MODEL, graphs.answering(1)))
    names = dict.fromkeys(CANDIDATES, "")
    for name, (make, _) in CANDIDATES.items():
        names[name] = registry.add(MODEL, make())
    questions = Questions(0)
    messages = tuple(questions.of(MODEL, 1).request.SerializeToString() for _ in range(64))
    with (
        serving(
            run.folder / "server",
            *("--registry", registry.uri, "--workers", "2"),
            settings="poll_interval_s = 0.5\n",
            models={MODEL},
        ) as (server, state),
        SteadyLoad(server.grpc, messages, late_s=_LATE_S) as load,
    ):
        time.sleep(_BREATH_S)
        for name, (_, is_killed) in CANDIDATES.items():
            before = (load.felt.calls, load.felt.failed, load.felt.late)
            run.say(f"a candidate that {name}; waits for its reason for up to {patience_s:g} s")
            registry.set_alias(MODEL, CANARY, names[name])
            with _killing(state) if is_killed else _nothing():
                told_s = happens(partial(_reason, state, names[name]), within_s=patience_s)
                time.sleep(_BREATH_S)
            yield Number(f"{name}: s until told", told_s, (_reason(state, names[name]) or "")[:300])
            registry.delete_alias(MODEL, CANARY)
            happens(partial(_is_gone, state, names[name]), within_s=_GONE_S)
            run.details.append(
                f"{name}: {load.felt.calls - before[0]:,} calls, {load.felt.failed - before[1]:,} failed, "
                f"{load.felt.late - before[2]:,} late"
            )
        restarts = _answer(state.restarts)
    felt = load.felt
    yield Number("failed calls of the champion", felt.failed, felt.note)
    yield Number(f"calls of the champion later than {_LATE_S:g} s", felt.late)
    yield Number("restarts of workers", restarts)


def _reason(state: ServerState, version: str) -> str:
    """Why a version is not served; "" while the server does not say."""
    with suppress(OSError):
        row = state.version(MODEL, version)
        if row is not None and row["state"] == "UNAVAILABLE":
            return str(row["reason"])
    return ""


def _is_gone(state: ServerState, version: str) -> bool:
    return state.version(MODEL, version) is None


def _answer(ask: Callable[[], int]) -> int | None:
    try:
        return ask()
    except OSError:
        return None


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _killing(state: ServerState) -> Iterator[None]:
    """Plays the kernel that runs out of memory: kills each of the server's processes that grows too large."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_LOOK_S):
            for process in memory_of(state.pid)[1:]:
                if process.rss_bytes > _KILL_BYTES:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
