import threading

import grpc
import numpy as np
import pytest

from penstock.inference_pb2 import ModelInferResponse
from penstock_client import (
    Backoff,
    Client,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PenstockClientError,
    ServerError,
    ServerUnavailableError,
)

pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture
def client(server):
    with Client(server.address, backoff=Backoff(initial_s=0.001, cap_s=0.002)) as client:
        yield client


def row(age):
    return {"age": age, "city": "Oslo"}


@pytest.mark.long
@pytest.mark.parametrize("in_flight", [1, 2, 16, 1000])
@pytest.mark.parametrize("kind", [list, iter])
def test_answers_come_in_the_order_of_the_requests(client, in_flight, kind):
    answers = client.predict_many("fares", kind([row(age) for age in range(100)]), in_flight=in_flight)
    assert [answer["fare"].tolist() for answer in answers] == [[2.0 * age] for age in range(100)]


def test_requests_of_every_form_are_asked(client):
    rows = [row(1), {"age": [2, 3], "city": ["x", "y"]}, [row(4)], {"city": "x", "age": 5, "more": 1}]
    answers = client.predict_many("fares", rows)
    assert [answer["fare"].tolist() for answer in answers] == [[2.0], [4.0, 6.0], [8.0], [10.0]]


def test_an_array_is_a_request_for_each_row(client, server):
    answers = list(client.predict_many("iris", np.zeros((5, 4), np.float32)))
    assert [answer["species"].tolist() for answer in answers] == [["setosa"]] * 5
    assert len(server.calls("ModelInfer")) == 5


def test_no_rows_give_no_answers(client):
    assert list(client.predict_many("fares", [])) == []


def test_no_more_than_asked_for_are_in_flight(client, server):
    taken, most = 0, 0

    def rows():
        nonlocal taken
        for age in range(20):
            taken += 1
            yield row(age)

    for number, _ in enumerate(client.predict_many("fares", rows(), in_flight=4)):
        most = max(most, taken - number)
    assert most == 4


def test_requests_overlap(client, server):
    client.predict("fares", row(1))
    together = threading.Barrier(4, timeout=10)
    server.models["fares"].answer = lambda request: together.wait() is None or ModelInferResponse()
    assert len(list(client.predict_many("fares", [row(age) for age in range(4)], in_flight=4))) == 4


def test_keys_and_ids_go_with_their_rows(client, server):
    rows, keys, ids = [row(1), row(2)], ["a", "b"], ["r-1", "r-2"]
    answers = list(client.predict_many("fares", rows, routing_keys=iter(keys), request_ids=ids))
    assert [answer.request_id for answer in answers] == ids
    asked = {
        seen.request.id: seen.request.parameters["routing_key"].string_param for seen in server.calls("ModelInfer")
    }
    assert asked == dict(zip(ids, keys, strict=True))
    assert [answer.request_id for answer in client.predict_many("fares", rows, request_ids=ids)] == ids
    assert [answer.request_id for answer in client.predict_many("fares", rows, routing_keys=keys)] == [None, None]


@pytest.mark.parametrize("which", ["routing_keys", "request_ids"])
@pytest.mark.parametrize("given", [["a"], ["a", "b", "c"]])
def test_as_many_keys_and_ids_as_rows_are_expected(client, which, given):
    with pytest.raises(ValueError, match="zip"):
        list(client.predict_many("fares", [row(1), row(2)], **{which: given}))


def test_the_first_error_ends_the_iteration(client, server):
    client.predict("fares", row(1))
    answers = client.predict_many("fares", iter([row(1), row("x"), row(3)]), in_flight=1)
    assert next(answers)["fare"].tolist() == [2.0]
    with pytest.raises(InvalidRequestError, match="got 'x' at row 0"):
        next(answers)
    assert list(answers) == []


def test_errors_can_take_the_answers_places(client, server):
    rows = [row(1), row("x"), row(3), {"age": 4}, row(5)]
    answers = list(client.predict_many("fares", rows, on_error="return"))
    assert [type(answer) for answer in answers[1::2]] == [InvalidRequestError] * 2
    assert [answer["fare"].tolist() for answer in answers[::2]] == [[2.0], [6.0], [10.0]]
    assert answers[1].model == "fares"


def test_an_unknown_model_is_an_error_for_each(client):
    answers = list(client.predict_many("none", [row(1), row(2)], on_error="return"))
    assert [type(answer) for answer in answers] == [ModelNotFoundError] * 2


def test_what_the_server_refuses_is_an_error_in_its_place(client, server):
    client.predict("fares", row(1))
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    answers = list(client.predict_many("fares", [row(age) for age in range(20)], in_flight=1, on_error="return"))
    assert isinstance(answers[0], OverloadedError)
    assert [answer["fare"].tolist() for answer in answers[1:]] == [[2.0 * age] for age in range(1, 20)]


def test_calls_are_tried_again(client, server):
    client.predict("fares", row(1))
    server.fail(grpc.StatusCode.UNAVAILABLE, times=3)
    answers = list(client.predict_many("fares", [row(age) for age in range(20)], in_flight=8))
    assert [answer["fare"].tolist() for answer in answers] == [[2.0 * age] for age in range(20)]
    assert len(server.calls("ModelInfer")) == 24
    server.fail(grpc.StatusCode.UNAVAILABLE, "stopping", times=4)
    with pytest.raises(ServerUnavailableError, match="stopping"):
        list(client.predict_many("fares", [row(1)]))


def test_a_request_ends_at_its_deadline_and_the_others_go_on(client, server):
    client.predict("fares", row(1))
    release = threading.Event()
    answer = server.models["fares"].answer

    def sometimes(request):
        if np.frombuffer(request.raw_input_contents[0], np.int64)[0] == 3:
            release.wait(30)
        return answer(request)

    server.models["fares"].answer = sometimes
    rows = [row(age) for age in range(6)]
    answers = list(client.predict_many("fares", rows, on_error="return", timeout_s=0.5, in_flight=3))
    release.set()
    assert isinstance(answers[3], DeadlineExceededError)
    assert [each["fare"].tolist() for each in answers if each is not answers[3]] == [[0.0], [2.0], [4.0], [8.0], [10.0]]


def test_an_answer_that_came_in_time_is_one_although_it_is_asked_for_later(client, server):
    client.predict("fares", row(1))
    answers = client.predict_many("fares", iter([row(age) for age in range(4)]), in_flight=4, timeout_s=0.5)
    assert next(answers)["fare"].tolist() == [0.0]
    # The others have been answered by now, and their deadline passes.
    assert not threading.Event().wait(0.8)
    assert [answer["fare"].tolist() for answer in answers] == [[2.0], [4.0], [6.0]]


def test_leaving_early_cancels_what_is_in_flight(client, server):
    client.predict("fares", row(1))
    client.metadata("stuck")
    answer = server.models["fares"].answer
    server.models["fares"].answer = lambda request: server.arrived.wait(10) and answer(request)
    first = client.predict_many("fares", [row(1)], in_flight=2)
    stuck = client.predict_many("stuck", iter([{"x": 1.0}, {"x": 2.0}, {"x": 3.0}]), in_flight=2, timeout_s=60)
    errors = []

    def ask():
        try:
            next(stuck)
        except PenstockClientError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert next(first)["fare"].tolist() == [2.0]
    client.close()
    asking.join(10)
    assert [error.code for error in errors] == [grpc.StatusCode.CANCELLED]
    assert server.ended.wait(10)


def test_leaving_the_loop_cancels_the_rest(client, server):
    client.predict("fares", row(1))
    answer = server.models["fares"].answer

    def sometimes(request):
        if np.frombuffer(request.raw_input_contents[0], np.int64)[0]:
            server.arrived.set()
            server.ended.wait(20)
        return answer(request)

    server.models["fares"].answer = sometimes
    for answered in client.predict_many("fares", iter([row(0), row(1)]), in_flight=2, timeout_s=60):
        assert answered["fare"].tolist() == [0.0]
        assert server.arrived.wait(10)
        break
    server.models["fares"].answer = answer
    server.ended.set()
    assert client.predict("fares", row(2))["fare"].tolist() == [4.0]


def test_a_stuck_call_hears_that_the_caller_left(client, server):
    client.predict("fares", row(1))
    client.metadata("stuck")
    # One at a time: the end of any call has the server answer all that wait.
    mixed = client.predict_many("stuck", iter([{"x": 1.0}, {"x": 2.0}]), in_flight=1, timeout_s=0.5, on_error="return")
    assert isinstance(next(mixed), DeadlineExceededError)
    assert server.ended.wait(10)
    mixed.close()


def test_a_client_that_is_closed_ends_it(client, server):
    answers = client.predict_many("fares", iter([row(age) for age in range(9)]), in_flight=2, on_error="return")
    assert next(answers)["fare"].tolist() == [0.0]
    client.close()
    rest = list(answers)
    assert any(isinstance(answer, ServerError) for answer in rest)
    with pytest.raises(PenstockClientError, match="the client is closed"):
        client.predict_many("fares", [row(1)])


@pytest.mark.parametrize("options", [{"in_flight": 0}, {"on_error": "ignore"}])
def test_options_are_checked_at_once(client, options):
    with pytest.raises(ValueError, match="expected in_flight >= 1"):
        client.predict_many("fares", [], **options)


def test_a_changed_model_is_learned_on_the_way(client, server, model_of):
    rows = ({"a": 1.0, "b": 2} for _ in range(3))
    answers = client.predict_many("numbers", rows, in_flight=1)
    assert next(answers)["a"].dtype == np.float64
    server.models["numbers"] = model_of([("a", "FP32", (-1,)), ("b", "INT64", (-1,))])
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "a is FP32")
    assert [answer["a"].dtype for answer in answers] == [np.float32, np.float32]
