"""A pipeline that runs in Python crashes, loops and takes 4 GB: what others feel, and when the pipeline answers again."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any, Final, Self

import numpy as np

from bench.faults import graphs, misbehaving
from bench.faults.number import Number
from bench.faults.scenario import Run
from bench.faults.served import serving
from bench.servers.roles import registry_in
from penstock_client import Client
from penstock_client.errors import PenstockClientError

_MODEL: Final = "odd"
_CLIENTS: Final = 4
_PAUSE_S: Final = 0.005
_TIMEOUT_S: Final = 10.0
_LATE_S: Final = 0.5
"""An answer of the other model that takes longer is late."""
_RUN_LIMIT_S: Final = 2.0
_SETTINGS: Final = f"[python]\nallow = true\nmemory_mib = 1024\nrun_limit_s = {_RUN_LIMIT_S}\n"
_REPEATS: Final = 100


def play(run: Run) -> Iterator[Number]:
    """Sends a row of each mark while another model is under load."""
    from penstock_tools.publish.pipeline import publish_pipeline

    uri, _ = registry_in(run.folder)
    pipeline, rows = misbehaving.fitted(), misbehaving.sample()
    run.say("publishes a pipeline that cannot be compiled")
    publish_pipeline(_MODEL, pipeline, rows, registry=uri, alias="champion", allow_python=True, report=lambda _: None)
    repository = run.folder / "repository"
    graphs.put(repository, "plain", 1, graphs.answering(1))
    arguments = ("--registry", uri, "--model-repository", str(repository))
    with (
        serving(
            run.folder / "server", *arguments, settings=_SETTINGS, models={_MODEL, "plain"}, has_training_stack=True
        ) as (server, state),
        _Others(server.grpc) as others,
        Client(server.grpc, timeout_s=120.0) as client,
    ):
        for name, mark in (("a crash", misbehaving.CRASH), ("a loop", misbehaving.LOOP), ("4 GB", misbehaving.EAT)):
            run.say(f"sends a row that asks for {name}")
            told = _told(client, mark)
            run.details.append(f"{name}: {told}")
            yield Number(f"s after {name} until the pipeline answers again", _answers_after_s(client), told)
        failures, slowest, calls = others.stopped()
        late = sum(took_s > _LATE_S for took_s in slowest)
        seen = f"of {calls:,} calls, slowest answer {max(slowest, default=0.0):.2f} s"
        yield Number(
            "failed calls of the other model", failures.total(), f"{seen} {dict(failures.most_common(2)) or ''}"
        )
        yield Number("late calls of the other model", late, f"{seen}; late is more than {_LATE_S:g} s")
        yield Number("workers that ended", state.restarts())
        for count in (1, 64):
            ours, own = _usual_s(client, rows.head(count)), _own_s(pipeline, rows.head(count))
            yield Number(f"ms for {count} rows", ours * 1e3, f"scikit-learn in this process takes {own * 1e3:.2f} ms")


def _told(client: Client, mark: float) -> str:
    try:
        client.predict(_MODEL, {"x": [mark], "z": [1.0]})
    except PenstockClientError as error:
        return str(error)[:120]
    return "answered"


def _answers_after_s(client: Client) -> float:
    started = time.monotonic()
    answer: Any = client.predict(_MODEL, {"x": [2.0], "z": [3.0]})
    if not np.allclose(answer["prediction"], 5.0):
        raise ValueError(f"the pipeline answers {answer['prediction']}, expected 5")
    return time.monotonic() - started


def _usual_s(client: Client, rows: Any) -> float:
    return _median_s(lambda: client.predict(_MODEL, rows))


def _own_s(pipeline: Any, rows: Any) -> float:
    return _median_s(lambda: pipeline.predict(rows))


def _median_s(work: Any) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


class _Others:
    """Callers of the other model, on threads; every answer is checked."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._failures: Counter[str] = Counter()
        self._took_s: list[float] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(_CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped()

    def stopped(self) -> tuple[Counter[str], list[float], int]:
        """The failures, how long the answers took, and how many calls there were, when all callers have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self._failures, self._took_s, len(self._took_s) + self._failures.total()

    def _ask(self, at: int) -> None:
        number = at
        with Client(self._address, timeout_s=_TIMEOUT_S) as client:
            while not self._stop.wait(_PAUSE_S):
                number += _CLIENTS
                rows = np.array([[float(number), float(-number)]])
                started = time.monotonic()
                try:
                    found: Any = client.predict("plain", rows)
                    if not np.array_equal(found["y"], rows + 1):
                        self._failures["a wrong answer"] += 1
                    self._took_s.append(time.monotonic() - started)
                except PenstockClientError as error:
                    self._failures[str(error)[:80]] += 1
