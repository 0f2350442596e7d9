import asyncio
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pytest

from penstock_client import Prediction, ServerUnavailableError, Timing
from penstock_tools.demo.plan import IN_FLIGHT
from penstock_tools.demo.results import Tally
from penstock_tools.demo.stream import Batch
from penstock_tools.demo.traffic import GIVE_UP_FAILURES, Pace, send


@dataclass
class FakeClient:
    """Answers class 1 for every row; fails every n-th call."""

    fail_each: int = 0
    keys: list[str] = field(default_factory=list)
    in_flight: int = 0
    most: int = 0

    async def predict(self, model, rows, *, routing_key):
        self.keys.append(routing_key)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        fails = self.fail_each and len(self.keys) % self.fail_each == 0
        await asyncio.sleep(0)
        self.in_flight -= 1
        if fails:
            raise ServerUnavailableError("gone", model=model, server="here:1")
        outputs = MappingProxyType({"label": np.ones(len(rows["temp"]), np.int64)})
        return Prediction(outputs, model, "1", "champion", None, Timing(None, None, None, 0.0))


def stream(count, rows=4):
    for at in range(count):
        yield Batch(4 + at * 9 // count, f"AA{at}", {"temp": np.zeros(rows)}, np.arange(rows) % 2)


def fast(requests):
    return Pace(requests, 1e-9, asyncio.Event())


async def test_every_request_is_sent_once_and_counted():
    client, tally = FakeClient(), Tally("2")
    await send(stream(500), [client], tally, fast(500))
    assert sorted(client.keys) == sorted(f"AA{at}" for at in range(500))
    assert (tally.requests, tally.rows, tally.failures, tally.month) == (500, 2000, 0, 12)
    assert tally.score("1").accuracy == 0.5
    assert 1 < client.most <= IN_FLIGHT


async def test_clients_share_the_work():
    clients = [FakeClient(), FakeClient()]
    await send(stream(100), clients, Tally("2"), fast(100))
    assert sum(len(client.keys) for client in clients) == 100
    assert all(client.keys for client in clients)


async def test_failures_are_counted_with_their_reason():
    tally = Tally("2")
    await send(stream(100), [FakeClient(fail_each=10)], tally, fast(100))
    assert (tally.requests, tally.failures) == (100, 10)
    assert tally.errors == {"gone (model 'flights' at here:1)": 10}


async def test_it_gives_up_on_a_server_that_is_gone():
    client, tally = FakeClient(fail_each=1), Tally("2")
    await send(stream(10_000), [client], tally, fast(10_000))
    assert GIVE_UP_FAILURES <= tally.failures <= GIVE_UP_FAILURES + IN_FLIGHT


@pytest.mark.parametrize(("sent", "expected"), [(51, True), (50, False)])
async def test_half_way_is_told(sent, expected):
    pace = fast(100)
    await send(stream(sent), [FakeClient()], Tally("2"), pace)
    assert pace.halfway.is_set() is expected


async def test_requests_wait_until_they_are_due():
    now, waits = 0.0, []

    async def sleep(seconds):
        nonlocal now
        waits.append(seconds)
        now += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock_tools.demo.traffic.asyncio.sleep", sleep)
        await send(stream(5), [InstantClient()], Tally("2"), Pace(5, 10.0, asyncio.Event()), clock=lambda: now)
    assert waits == [2.0] * 4


class InstantClient(FakeClient):
    async def predict(self, model, rows, *, routing_key):
        outputs = MappingProxyType({"label": np.ones(len(rows["temp"]), np.int64)})
        return Prediction(outputs, model, "1", None, None, Timing(None, None, None, 0.0))
