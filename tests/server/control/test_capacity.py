import os
import time
from pathlib import Path

import pytest

from penstock_server.batching.cost import Cost
from penstock_server.capacity.estimate import BatchRuns, Room, ServerCapacity, TurnCost
from penstock_server.capacity.meter import CapacityMeter
from penstock_server.control import capacity
from penstock_server.control.capacity import follow, reading, shown
from penstock_server.control.view import ServerView, VersionView, WorkerView
from penstock_server.metrics.counters import CountersShape, open_counters
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.store import CounterStore

RUNS = BatchRuns(Cost(1e-5, 1e-6), max_rows=64)
VIEW = ServerView(
    versions=(
        VersionView("m", "1", "READY", ("champion",), runs=RUNS),
        VersionView("m", "2", "READY", ("shadow",), runs=RUNS),
        VersionView("m", "3", "LOADING"),
        VersionView("n", "1", "READY", ("champion",), runs=RUNS),
    ),
    workers=(
        WorkerView(0, os.getpid(), True, 0, connections=3),
        WorkerView(1, 2**31 - 1, True, 0, connections=4),
        WorkerView(2, 1, False, 0, connections=5),
    ),
    problems={},
    reloads=0,
    failed_reloads=0,
)


def recorded(store: CounterStore, slot: int, version: str, requests: int) -> None:
    shape = CountersShape()
    recorder = Recorder(open_counters(Path(store.version(slot, ("m", version), shape)), shape))
    for _ in range(requests):
        recorder.batch(arrived_s=[9.0], rows=1, started_s=9.0, ended_s=10.0, features_s=0.0, infer_s=0.1)


def test_what_the_server_knows_is_read_together() -> None:
    with CounterStore() as store:
        recorded(store, 0, "1", 2)
        recorded(store, 1, "1", 3)
        recorded(store, 0, "2", 1)
        found = reading(VIEW, store, 5.0)
    assert (found.at_s, found.busy_s.keys(), found.connections) == (5.0, {os.getpid()}, 7)
    assert [(each.key, each.counted.answered, each.answers) for each in found.versions] == [
        (("m", "1"), 5, True),
        (("m", "2"), 1, False),
    ]


async def test_it_is_looked_at_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LOOK_S", 0.0)
    meter, looks = CapacityMeter(TurnCost(1e-5, 1e-5, 1e-6), workers=1, cores=1), 0

    def view() -> ServerView:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise InterruptedError
        return VIEW

    with CounterStore() as store:
        recorded(store, 0, "1", 2)
        with pytest.raises(InterruptedError):
            await follow(meter, view, store)
    assert meter.known().models.keys() == {"m"}


def test_a_look_takes_little() -> None:
    meter = CapacityMeter(TurnCost(1e-5, 1e-5, 1e-6), workers=1, cores=1)
    with CounterStore() as store:
        recorded(store, 0, "1", 2)
        meter.look(reading(VIEW, store, 1.0))
        began_s = time.thread_time()
        for at in range(20):
            recorded(store, 0, "1", 1)
            meter.look(reading(VIEW, store, 2.0 + at))
        assert time.thread_time() - began_s < 20 * 0.01


def test_numbers_are_shown_as_far_as_they_mean_something() -> None:
    assert shown(ServerCapacity(0.123456, None)) == {"ratio": 0.1235, "requests_per_s": None}
    assert shown(Room(123_456.7, 1.0)) == {"ratio": 1.0, "requests_per_s": 123_500.0}
