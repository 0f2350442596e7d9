"""Predictions over one stream, from threads and from tasks."""

import math
import queue
import threading
from contextlib import aclosing

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InvalidRequestError,
    PenstockClientError,
    ServerError,
    ServerUnavailableError,
)
from tests.client.conftest import reply_to

WAIT_S = 10.0


def row(age):
    return {"age": age, "city": "Oslo"}


ROWS = [row(age) for age in range(20)]
FARES = [[2.0 * age] for age in range(20)]


@pytest.fixture
def client(server):
    with Client(server.address, timeout_s=WAIT_S) as client:
        yield client


def bad(request):
    if request.id == "bad":
        raise ValueError("no such age")
    return reply_to(request, {"fare": ("FP64", [1.0])})


def test_answers_come_in_the_servers_order_with_ids(client, server):
    ids = [f"r-{age}" for age in range(20)]
    answers = list(client.predict_stream("fares", iter(ROWS), request_ids=ids, headers={"x-tenant": "a"}))
    assert [answer["fare"].tolist() for answer in answers] == FARES
    assert [answer.request_id for answer in answers] == ids
    assert (answers[0].version, answers[0].role) == ("3", "champion")
    assert math.isnan(answers[0].timing.round_trip_s)
    seen = server.calls("ModelStreamInfer")
    assert len(seen) == 20
    assert {call.headers["x-tenant"] for call in seen} == {"a"}


def test_options_go_with_every_request(client, server):
    list(client.predict_stream("fares", ROWS[:2], version="3", routing_key="u", priority=2, outputs=["fare"]))
    for call in server.calls("ModelStreamInfer"):
        assert (call.request.model_version, call.request.parameters["routing_key"].string_param) == ("3", "u")
        assert (call.request.parameters["priority"].uint64_param, call.request.outputs[0].name) == (2, "fare")


def test_an_array_is_a_request_for_each_of_its_rows(client):
    answers = list(client.predict_stream("iris", np.zeros((3, 4))))
    assert [answer["species"].tolist() for answer in answers] == [["setosa"]] * 3


def test_an_answer_comes_while_the_next_rows_are_awaited(client):
    rows: queue.Queue[dict | None] = queue.Queue()
    answers = client.predict_stream("fares", iter(rows.get, None))
    for age in (1, 2):
        rows.put(row(age))
        assert next(answers)["fare"].tolist() == [2.0 * age]
    rows.put(None)
    assert list(answers) == []


def test_the_first_error_ends_the_stream_with_its_meaning(client, server):
    server.models["fares"].answer = bad
    answers = client.predict_stream("fares", ROWS[:3], request_ids=["a", "bad", "c"])
    assert next(answers).request_id == "a"
    with pytest.raises(InvalidRequestError, match=rf"no such age \(model 'fares' at {server.address}\)") as failed:
        next(answers)
    assert isinstance(failed.value.__cause__, grpc.RpcError)


def test_errors_can_take_the_places_of_answers(client, server):
    server.models["fares"].answer = bad
    first, second, third = client.predict_stream("fares", ROWS[:3], request_ids=["a", "bad", "c"], on_error="return")
    assert (first.request_id, third.request_id) == ("a", "c")
    assert isinstance(second, ServerError)
    assert (second.details, second.model) == ("no such age", "fares")


def test_a_server_that_gives_messages_for_statuses_is_understood(client, server, monkeypatch):
    server.models["fares"].answer = bad
    monkeypatch.setattr("penstock_client.testing.ENDS_WITH_STATUS", ("another", "header"))
    with pytest.raises(ServerError, match="no such age"):
        list(client.predict_stream("fares", ROWS[:1], request_ids=["bad"]))


def test_rows_that_cannot_be_sent_end_the_stream_after_the_answers_before(client):
    answers = client.predict_stream("fares", [row(1), row("old"), row(3)])
    assert next(answers)["fare"].tolist() == [2.0]
    with pytest.raises(InvalidRequestError, match="column 'age' is INT64") as failed:
        next(answers)
    assert failed.value.model == "fares"


def test_rows_that_cannot_be_had_end_the_stream_with_their_own_error(client):
    def rows():
        yield row(1)
        raise RuntimeError("the file is gone")

    answers = client.predict_stream("fares", rows())
    assert next(answers)["fare"].tolist() == [2.0]
    with pytest.raises(RuntimeError, match="the file is gone"):
        next(answers)


def test_fewer_ids_than_rows_are_refused(client):
    with pytest.raises(ValueError, match="fewer request_ids than rows"):
        list(client.predict_stream("fares", ROWS[:2], request_ids=["one"]))


def test_a_stream_that_is_left_early_is_cancelled(client, server):
    ended = threading.Event()
    held = threading.Event()
    server.models["fares"].answer = lambda request: reply_to(request, {"fare": ("FP64", [1.0])})

    def rows():
        try:
            yield row(1)
            held.wait(WAIT_S)
            yield row(2)
        finally:
            ended.set()

    answers = client.predict_stream("fares", rows())
    next(answers)
    answers.close()
    held.set()
    assert ended.wait(WAIT_S)
    assert len(server.calls("ModelStreamInfer")) == 1


def test_a_timeout_ends_the_whole_stream(client):
    never = threading.Event()

    def rows():
        yield row(1)
        never.wait(WAIT_S)

    answers = client.predict_stream("fares", rows(), timeout_s=0.3)
    assert next(answers)["fare"].tolist() == [2.0]
    with pytest.raises(DeadlineExceededError):
        next(answers)
    never.set()


def test_an_absent_server_is_told(server):
    with Client(server.address, retries=0) as client:
        client.metadata("fares")
        server.stop()
        with pytest.raises(ServerUnavailableError):
            list(client.predict_stream("fares", ROWS[:1]))


def test_a_reply_that_is_no_message_is_told(client, monkeypatch):
    monkeypatch.setattr("penstock_client.grpcio.ChannelCalls.stream", lambda *_: (each for each in [b"\xff"]))
    with pytest.raises(ServerError, match="not a ModelStreamInferResponse"):
        list(client.predict_stream("fares", ROWS[:1]))


def test_streams_take_turns_over_several_servers(server):
    with Client([server.address, "other:1"]) as client:
        assert [client._stream_address() for _ in range(3)] == [server.address, "other:1", server.address]


@pytest.mark.parametrize("is_async", [True, False])
async def test_answers_come_in_the_servers_order_asyncio(server, is_async):
    async def slowly():
        for each in ROWS:
            yield each

    async with AsyncClient(server.address) as client:
        rows = slowly() if is_async else ROWS
        fares = [answer["fare"].tolist() async for answer in client.predict_stream("fares", rows)]
    assert fares == FARES


async def test_errors_asyncio(server):
    server.models["fares"].answer = bad
    async with AsyncClient(server.address) as client:
        found = [
            answer
            async for answer in client.predict_stream("fares", ROWS[:2], request_ids=["a", "bad"], on_error="return")
        ]
        assert [isinstance(answer, PenstockClientError) for answer in found] == [False, True]
        with pytest.raises(InvalidRequestError, match="no such age"):
            async for _ in client.predict_stream("fares", ROWS[:1], request_ids=["bad"]):
                pass
        with pytest.raises(InvalidRequestError, match="column 'age' is INT64"):
            async for _ in client.predict_stream("fares", [row("old")]):
                pass


async def test_a_stream_that_is_left_early_is_cancelled_asyncio(server):
    async with AsyncClient(server.address) as client:
        async with aclosing(client.predict_stream("fares", ROWS)) as answers:
            async for answer in answers:
                assert answer["fare"].tolist() == [0.0]
                break
        assert (await client.predict("fares", row(1)))["fare"].tolist() == [2.0]


def test_a_request_has_the_same_bytes_as_alone(client, server):
    client.predict("fares", row(1), request_id="x")
    list(client.predict_stream("fares", [row(1)], request_ids=["x"]))
    (alone,), (streamed,) = server.calls("ModelInfer"), server.calls("ModelStreamInfer")
    assert isinstance(streamed.request, pb.ModelInferRequest)
    assert streamed.request == alone.request
