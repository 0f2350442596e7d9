"""Late predictions, asked for once more: by threads and by tasks."""

import asyncio
import threading

import grpc
import pytest

from penstock_client import AsyncClient, Balancing, Client, DeadlineExceededError, InvalidRequestError, RetryBudget
from penstock_client.hedged import HedgedAwaitedCalls, HedgedCalls
from penstock_client.steps import Failure
from penstock_client.testing import FakeServer
from tests.client.conftest import standard_models

ROW = {"age": 41, "city": "Oslo"}
INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"
GONE = Failure(grpc.StatusCode.UNAVAILABLE, "gone")
OTHER = Failure(grpc.StatusCode.INTERNAL, "other")
WAIT_S = 10.0
SOON = 0.02


class Scripted:
    """Each call waits for its event, and ends in its outcome."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.events = [threading.Event() for _ in outcomes]
        self.timeouts = []

    def call(self, path, payload, timeout_s, headers=()):
        at = len(self.timeouts)
        self.timeouts.append(timeout_s)
        assert self.events[at].wait(WAIT_S)
        # What comes after it waits until it was heard.
        return self.outcomes[at]

    def close(self):
        for event in self.events:
            event.set()


def hedged(calls, affords=lambda: True):
    return HedgedCalls(calls, SOON, affords)


def test_an_answer_in_time_is_asked_for_once():
    calls = Scripted(b"one")
    calls.events[0].set()
    assert hedged(calls).call(INFER, b"", 5.0) == b"one"
    assert calls.timeouts == [5.0]


def test_the_sooner_answer_counts():
    calls = Scripted(b"one", b"two")
    calls.events[1].set()
    assert hedged(calls).call(INFER, b"", 5.0) == b"two"
    assert calls.timeouts == [5.0, 5.0 - SOON]
    calls.close()


@pytest.mark.parametrize(("outcomes", "expected"), [((GONE, b"two"), b"two"), ((b"one", GONE), b"one")])
def test_a_failure_waits_for_the_other_answer(outcomes, expected):
    calls = Scripted(*outcomes)
    first, second = calls.events if outcomes[0] is GONE else reversed(calls.events)
    threading.Timer(0.05, first.set).start()
    threading.Timer(0.15, second.set).start()
    assert hedged(calls).call(INFER, b"", 5.0) == expected


def test_where_both_fail_one_failure_is_told():
    calls = Scripted(GONE, OTHER)
    threading.Timer(0.05, calls.close).start()
    assert hedged(calls).call(INFER, b"", 5.0) in (GONE, OTHER)


@pytest.mark.parametrize("options", [{"path": LIVE}, {"timeout_s": SOON}])
def test_other_methods_and_short_calls_are_made_once_and_here(options):
    calls = Scripted(b"one")
    calls.events[0].set()
    assert hedged(calls).call(**{"path": INFER, "payload": b"", "timeout_s": 5.0} | options) == b"one"
    assert len(calls.timeouts) == 1


def test_what_the_budget_does_not_afford_is_not_asked_for():
    calls = Scripted(b"one")
    threading.Timer(0.1, calls.close).start()
    assert hedged(calls, lambda: False).call(INFER, b"", 5.0) == b"one"
    assert len(calls.timeouts) == 1


@pytest.fixture
def servers():
    started = [FakeServer(standard_models()) for _ in range(2)]
    yield started
    for server in started:
        server.stop()


def slow(server, held):
    arrived, fares = threading.Event(), server.models["fares"].answer
    server.models["fares"].answer = lambda request: arrived.set() or (held.wait(WAIT_S) and fares(request))
    return arrived


@pytest.mark.usefixtures("transport")
def test_a_slow_server_keeps_no_caller_waiting(servers):
    held = threading.Event()
    slow(servers[0], held)
    with Client([server.address for server in servers], hedge_after_s=SOON, timeout_s=WAIT_S) as client:
        assert client.metadata("fares").name == "fares"
        for _ in range(6):
            assert client.predict("fares", ROW)["fare"].tolist() == [82.0]
        held.set()
    assert len(servers[0].calls("ModelInfer")) >= 1
    assert len(servers[1].calls("ModelInfer")) >= 6


def test_each_second_attempt_takes_of_the_budget(servers):
    held = threading.Event()
    slow(servers[0], held)
    with Client(
        servers[0].address, hedge_after_s=SOON, budget=RetryBudget(tokens=2), timeout_s=0.3, retries=0
    ) as client:
        client.metadata("fares")
        for _ in range(3):
            with pytest.raises(DeadlineExceededError):
                client.predict("fares", ROW)
    held.set()
    assert len(servers[0].calls("ModelInfer")) == 4


async def test_a_slow_server_keeps_no_task_waiting_and_hears_of_it(servers):
    held = threading.Event()
    slow(servers[0], held)
    addresses = [server.address for server in servers]
    async with AsyncClient(addresses, hedge_after_s=SOON, balancing=Balancing(check_every_s=60)) as client:
        await client.metadata("fares")
        for _ in range(6):
            assert (await client.predict("fares", ROW))["fare"].tolist() == [82.0]
        assert [place.in_flight for place in client._calls._calls._places.all] == [0, 0]
    held.set()


async def test_errors_and_cancelling_asyncio(servers):
    async with AsyncClient(servers[0].address, hedge_after_s=SOON) as client:
        with pytest.raises(InvalidRequestError):
            await client.predict("fares", {"age": ["old"], "city": ["x"]})
        held = threading.Event()
        arrived = slow(servers[0], held)
        task = asyncio.create_task(client.predict("fares", ROW))
        assert await asyncio.to_thread(arrived.wait, WAIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.set()


class AwaitedScript:
    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.count = 0

    async def call(self, path, payload, timeout_s, headers=()):
        self.count += 1
        wait_s, outcome = self.outcomes[self.count - 1]
        await asyncio.sleep(wait_s)
        return outcome


@pytest.mark.parametrize(
    ("outcomes", "affords", "expected", "count"),
    [
        ([(0, b"one")], True, b"one", 1),
        ([(0.1, b"one")], False, b"one", 1),
        ([(WAIT_S, b"one"), (0, b"two")], True, b"two", 2),
        ([(0.1, GONE), (0.2, b"two")], True, b"two", 2),
        ([(0.05, GONE), (0.1, OTHER)], True, OTHER, 2),
        ([(0, GONE)], True, GONE, 1),
    ],
)
async def test_the_table_of_awaited_attempts(outcomes, affords, expected, count):
    calls = AwaitedScript(*outcomes)
    assert await HedgedAwaitedCalls(calls, SOON, lambda: affords).call(INFER, b"", 5.0) == expected
    assert calls.count == count


def test_the_time_is_checked_on_construction():
    with pytest.raises(ValueError, match="hedge_after_s is expected above 0"):
        Client("a:1", hedge_after_s=0)


def test_a_forked_process_has_threads_of_its_own(servers):
    with Client(servers[0].address, hedge_after_s=1.0) as client:
        client.predict("fares", ROW)
        before = client._calls._threads
        client._calls.forget()
        assert client._calls._threads is not before
        assert client.predict("fares", ROW)["fare"].tolist() == [82.0]
