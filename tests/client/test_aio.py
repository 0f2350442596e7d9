import asyncio

import grpc
import numpy as np
import pandas as pd
import polars as pl
import pytest

from penstock_client import (
    AsyncClient,
    Backoff,
    DeadlineExceededError,
    InvalidRequestError,
    PenstockClientError,
    ServerError,
    ServerUnavailableError,
)

pytestmark = pytest.mark.usefixtures("transport")

ROWS = {"age": [41, 7], "city": ["Oslo", None]}


@pytest.fixture
async def client(server):
    async with AsyncClient(server.address, backoff=Backoff(initial_s=0.001, cap_s=0.002)) as client:
        yield client


async def until(event):
    assert await asyncio.to_thread(event.wait, 10)


@pytest.mark.parametrize("rows", [ROWS, pd.DataFrame(ROWS), pl.DataFrame(ROWS)], ids=["dict", "pandas", "polars"])
async def test_columns_reach_the_model(client, rows):
    prediction = await client.predict("fares", rows, request_id="r-1")
    assert prediction["fare"].tolist() == [82.0, 14.0]
    assert (prediction.version, prediction.role, prediction.request_id) == ("3", "champion", "r-1")


async def test_many_calls_at_once_share_the_client(client):
    calls = [client.predict("fares", {"age": age, "city": "x"}) for age in range(50)]
    answers = await asyncio.gather(*calls)
    assert [prediction["fare"].tolist() for prediction in answers] == [[2.0 * age] for age in range(50)]


async def test_metadata_index_and_health(client):
    assert [spec.name for spec in (await client.metadata("fares")).inputs] == ["age", "city"]
    assert [state.version for state in await client.index(only_ready=True)] == ["3"]
    assert await client.is_live()
    assert await client.is_ready("fares")
    assert not await client.is_ready("nothing")


async def test_a_server_that_is_back_answers(client, server):
    server.fail(grpc.StatusCode.UNAVAILABLE, times=2)
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc_retry_pushback_ms="1")
    assert (await client.predict("fares", ROWS)).version == "3"
    assert len(server.calls("ModelInfer")) == 4


async def test_the_retries_end(client, server):
    server.fail(grpc.StatusCode.UNAVAILABLE, "stopping", times=9)
    with pytest.raises(ServerUnavailableError, match="stopping") as failed:
        await client.predict("fares", ROWS)
    assert isinstance(failed.value.__cause__, grpc.RpcError)
    assert failed.value.server == server.address


async def test_rows_that_do_not_fit_are_refused(client):
    with pytest.raises(InvalidRequestError, match="missing 'city'"):
        await client.predict("fares", {"age": [1]})


async def test_the_deadline_is_grpcs_own(client, server):
    await client.metadata("stuck")
    with pytest.raises(DeadlineExceededError):
        await client.predict("stuck", {"x": [1]}, timeout_s=1)
    await until(server.ended)


async def test_cancelling_the_task_cancels_the_call(client, server):
    task = asyncio.create_task(client.predict("stuck", {"x": [1]}, timeout_s=60))
    await until(server.arrived)
    assert not server.ended.is_set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(server.ended)
    assert (await client.predict("fares", ROWS)).version == "3"


async def test_cancelling_one_caller_leaves_the_others(client, server):
    stuck = asyncio.create_task(client.predict("stuck", {"x": [1]}, timeout_s=60))
    await until(server.arrived)
    others = [asyncio.create_task(client.predict("fares", ROWS)) for _ in range(5)]
    stuck.cancel()
    assert [prediction.version for prediction in await asyncio.gather(*others)] == ["3"] * 5
    with pytest.raises(asyncio.CancelledError):
        await stuck


async def test_a_timeout_of_asyncio_cancels_the_call(client, server):
    scope = asyncio.timeout(None)

    async def ask():
        async with scope:
            await client.predict("stuck", {"x": [1]}, timeout_s=60)

    task = asyncio.create_task(ask())
    await until(server.arrived)
    scope.reschedule(0)
    with pytest.raises(TimeoutError):
        await task
    await until(server.ended)


async def test_cancelling_a_pause_makes_no_further_attempt(server):
    server.fail(grpc.StatusCode.UNAVAILABLE, grpc_retry_pushback_ms="30000")
    async with AsyncClient(server.address, timeout_s=60) as client:
        await client.metadata("fares")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.predict("fares", ROWS)
    assert len(server.calls("ModelInfer")) <= 1


async def test_closing_ends_calls_with_an_error_and_no_cancellation(server):
    client = AsyncClient(server.address)
    task = asyncio.create_task(client.predict("stuck", {"x": [1]}))
    await until(server.arrived)
    await client.close()
    with pytest.raises(ServerError, match="the client was closed during the call"):
        await task


async def test_a_closed_client_says_so(server):
    client = AsyncClient(server.address)
    await client.close()
    with pytest.raises(PenstockClientError, match="the client is closed"):
        await client.is_live()


def test_a_client_may_be_made_before_the_loop(server):
    client = AsyncClient(server.address)

    async def ask():
        async with client:
            return await client.predict("fares", ROWS)

    assert asyncio.run(ask()).version == "3"


async def test_the_drift_report_comes_back(drift_address):
    async with AsyncClient(drift_address) as client:
        (version,) = (await client.drift_state("m", "@champion")).versions
    assert (version.model, version.version, version.columns[0].name) == ("m", "@champion", "delay")


def row(age):
    return {"age": age, "city": "Oslo"}


async def late_rows(ages):
    for age in ages:
        await asyncio.sleep(0)
        yield row(age)


@pytest.mark.parametrize("in_flight", [1, 5, 1000])
@pytest.mark.parametrize("rows", [lambda: [row(age) for age in range(30)], lambda: late_rows(range(30))])
async def test_many_answers_come_in_the_order_of_the_requests(client, in_flight, rows):
    answers = [answer["fare"].tolist() async for answer in client.predict_many("fares", rows(), in_flight=in_flight)]
    assert answers == [[2.0 * age] for age in range(30)]


async def test_an_array_is_a_request_for_each_row(client, server):
    assert [len(each) async for each in client.predict_many("iris", np.zeros((3, 4)))] == [1, 1, 1]
    assert len(server.calls("ModelInfer")) == 3


async def test_errors_of_many_end_the_loop_or_take_the_answers_places(client):
    rows = [row(1), row("x"), row(3)]
    answers = [each async for each in client.predict_many("fares", rows, on_error="return")]
    assert isinstance(answers[1], InvalidRequestError)
    assert [answer["fare"].tolist() for answer in answers[::2]] == [[2.0], [6.0]]
    with pytest.raises(InvalidRequestError):
        [each async for each in client.predict_many("fares", rows)]
    with pytest.raises(ValueError, match="in_flight"):
        client.predict_many("fares", rows, in_flight=0)


async def test_no_more_of_many_are_taken_than_asked_for(client):
    taken = 0

    def rows():
        nonlocal taken
        for age in range(20):
            taken += 1
            yield row(age)

    given = 0
    async for _ in client.predict_many("fares", rows(), in_flight=4):
        assert taken - given <= 4
        given += 1
    assert given == 20


async def test_leaving_many_cancels_what_is_in_flight(client, server):
    await client.metadata("stuck")
    answers = client.predict_many("stuck", [{"x": 1.0}] * 3, in_flight=2, timeout_s=60)
    task = asyncio.create_task(anext(answers))
    await until(server.arrived)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(server.ended)


async def test_a_request_like_an_earlier_one_is_the_same_and_tried_again_alike(client, server):
    await client.predict("fares", row(41), request_id="r")
    server.fail(grpc.StatusCode.UNAVAILABLE, times=2)
    found = await client.predict("fares", row(41), request_id="r")
    assert (found["fare"].tolist(), found.request_id) == ([82.0], "r")
    first, *others = (seen.request for seen in server.calls("ModelInfer"))
    assert others == [first] * 3
    server.fail(grpc.StatusCode.INTERNAL, "broken")
    with pytest.raises(ServerError, match="broken"):
        await client.predict("fares", row(41))
