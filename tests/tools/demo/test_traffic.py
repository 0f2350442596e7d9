import asyncio
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from penstock_client import Prediction, ServerUnavailableError, Timing
from penstock_tools.demo import flights
from penstock_tools.demo.plan import IN_FLIGHT
from penstock_tools.demo.results import Tally
from penstock_tools.demo.traffic import GIVE_UP_FAILURES, FlightBatch, Schedule, batches, send, thinned, until


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
        yield FlightBatch(4 + at * 9 // count, f"AA{at}", {"temp": np.zeros(rows)}, np.arange(rows) % 2)


def fast(requests):
    return Schedule(requests, 1e-9, asyncio.Event())


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
async def test_half_way_is_an_event(sent, expected):
    schedule = fast(100)
    await send(stream(sent), [FakeClient()], Tally("2"), schedule)
    assert schedule.halfway.is_set() is expected


async def test_requests_wait_until_they_are_due():
    now, waits = 0.0, []

    async def sleep(seconds):
        nonlocal now
        waits.append(seconds)
        now += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock_tools.demo.traffic.asyncio.sleep", sleep)
        await send(stream(5), [InstantClient()], Tally("2"), Schedule(5, 10.0, asyncio.Event()), clock=lambda: now)
    assert waits == [2.0] * 4


class InstantClient(FakeClient):
    async def predict(self, model, rows, *, routing_key):
        outputs = MappingProxyType({"label": np.ones(len(rows["temp"]), np.int64)})
        return Prediction(outputs, model, "1", None, None, Timing(None, None, None, 0.0))


@pytest.fixture(scope="module")
def frame():
    rows = 23
    columns = {name: ["AA"] * rows for name in flights.STRINGS} | {
        name: np.arange(rows, dtype=np.float64) for name in flights.NUMBERS
    }
    return pd.DataFrame(
        columns
        | {"late": [row % 3 == 0 for row in range(rows)], "month": [4] * 10 + [5] * 13, "flight": np.arange(rows) + 100}
    )


def test_batches_hold_every_row_once_in_order(frame):
    found = list(batches(frame, 8))
    assert [len(batch.answers) for batch in found] == [8, 8, 7]
    assert np.concatenate([batch.rows["temp"] for batch in found]).tolist() == frame["temp"].tolist()
    assert np.concatenate([batch.answers for batch in found]).tolist() == frame["late"].astype(int).tolist()
    assert all(batch.rows.keys() == set(flights.COLUMNS) for batch in found)


def test_a_batch_has_the_month_and_the_key_of_its_first_row(frame):
    assert [(batch.month, batch.key) for batch in batches(frame, 8)] == [(4, "AA100"), (4, "AA108"), (5, "AA116")]


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (2, 2), (10, 10), (23, 23), (99, 23)])
def test_thinning_keeps_the_order_and_spreads_evenly(frame, rows, expected):
    kept = thinned(frame, rows)["temp"].tolist()
    assert len(set(kept)) == expected
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert rows == 1 or kept[-1] == 22


@pytest.mark.parametrize(("done_after", "at_most", "repeats"), [(0, 5, 0), (3, 5, 3), (99, 5, 5), (99, 0, 0)])
def test_the_last_batch_is_repeated_until_done_within_a_limit(frame, done_after, at_most, repeats):
    asked = iter(range(1000))
    found = list(until(lambda: next(asked) >= done_after, batches(frame, 8), at_most=at_most))
    assert len(found) == 3 + repeats
    assert all(batch is found[2] for batch in found[3:])


def test_an_empty_stream_ends_at_once():
    assert list(until(lambda: False, [], at_most=9)) == []
