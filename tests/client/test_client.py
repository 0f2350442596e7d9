import socket
import threading

import grpc
import numpy as np
import pandas as pd
import polars as pl
import pytest

from penstock.inference_pb2 import ModelInferResponse
from penstock_client import (
    Backoff,
    Client,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelState,
    OverloadedError,
    PenstockClientError,
    ServerError,
    ServerUnavailableError,
    TensorSpec,
    UnsupportedError,
)

pytestmark = pytest.mark.usefixtures("transport")

QUICK = Backoff(initial_s=0.001, cap_s=0.002)


@pytest.fixture
def client(server):
    with Client(server.address, backoff=QUICK) as client:
        yield client


@pytest.fixture
def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


AGES = [41, 7]
FARES = [
    {"age": AGES, "city": ["Oslo", None]},
    {"city": np.array(["Oslo", "Bergen"]), "age": np.array(AGES, np.int8)},
    [{"age": 41, "city": "Oslo"}, {"age": 7, "city": b"\xff"}],
    pd.DataFrame({"age": AGES, "city": ["Oslo", None]}),
    pd.DataFrame({"age": AGES, "city": ["Oslo", None]}).convert_dtypes(),
    pd.DataFrame({"city": pd.Categorical(["Oslo", None]), "age": np.array(AGES, float)}, index=["x", "y"]),
    pl.DataFrame({"age": AGES, "city": ["Oslo", None]}),
    pl.DataFrame({"age": AGES, "city": ["Oslo", None]}, schema={"age": pl.UInt8, "city": pl.Categorical}),
]


@pytest.mark.parametrize("rows", FARES, ids=range(len(FARES)))
def test_columns_of_every_form_reach_the_model(client, rows):
    assert client.predict("fares", rows)["fare"].tolist() == [82.0, 14.0]


MATRICES = [
    np.zeros((2, 4)),
    np.zeros((2, 4), int),
    [[0, 0, 0, 0], [0, 0, 0, None]],
    {"X": np.zeros((2, 4))},
    {"a": [0, 0], "b": [0, 0], "c": [0, None], "d": [0, 0]},
    pd.DataFrame(np.zeros((2, 4))),
    pl.DataFrame(np.zeros((2, 4))),
]


@pytest.mark.parametrize("rows", MATRICES, ids=range(len(MATRICES)))
def test_a_matrix_of_every_form_reaches_the_model(client, rows):
    assert client.predict("iris", rows)["species"].tolist() == ["setosa", "setosa"]


@pytest.mark.parametrize(("dtype", "datatype"), [(np.float32, "FP32"), (np.float64, "FP64"), (np.int64, "FP64")])
def test_an_array_for_numeric_columns_is_one_tensor(client, server, dtype, datatype):
    prediction = client.predict("numbers", np.array([[1, 2], [3, 4]], dtype))
    assert prediction["features"].tolist() == [[1, 2], [3, 4]]
    assert server.calls("ModelInfer")[0].request.inputs[0].datatype == datatype


def test_a_prediction_says_how_it_came_about(client):
    prediction = client.predict("fares", {"age": 41, "city": "Oslo"}, request_id="r-1")
    assert (prediction.model, prediction.version, prediction.role) == ("fares", "3", "champion")
    assert prediction.request_id == "r-1"
    timing = prediction.timing
    assert (timing.queue_s, timing.compute_s, timing.batch_rows) == (0.00025, 0.00004, 8)
    assert 0 < timing.round_trip_s < 10


def test_options_and_headers_arrive(server):
    with Client(server.address, headers={"Authorization": "Bearer x"}) as client:
        client.predict("fares", {"age": 1, "city": "x"}, version="@champion", routing_key="u", outputs=["fare"])
    for seen in server.seen:
        assert seen.headers["authorization"] == "Bearer x"
    request = server.calls("ModelInfer")[0].request
    assert (request.model_version, request.parameters["routing_key"].string_param) == ("@champion", "u")
    assert server.calls("ModelMetadata")[0].request.version == "@champion"


def test_metadata_index_and_health(client):
    metadata = client.metadata("fares")
    assert metadata.inputs == (TensorSpec("age", "INT64", (-1,)), TensorSpec("city", "BYTES", (-1, 1), missing=""))
    assert (metadata.name, metadata.versions, metadata.platform, metadata.outputs) == ("fares", ("1",), "fake", ())
    assert client.index() == (
        ModelState("fares", "3", "READY", ""),
        ModelState("fares", "4", "LOADING", "fetching"),
    )
    assert client.index(only_ready=True) == (ModelState("fares", "3", "READY", ""),)
    assert client.is_live()
    assert client.is_ready()
    assert client.is_ready("fares")
    assert not client.is_ready("nothing")


def test_an_absent_server_is_neither_live_nor_ready(closed_port):
    with Client(f"127.0.0.1:{closed_port}") as client:
        assert not client.is_live()
        assert not client.is_ready()


def test_an_absent_server_is_named(closed_port):
    address = f"127.0.0.1:{closed_port}"
    with (
        Client(address, retries=1, backoff=QUICK) as client,
        pytest.raises(ServerUnavailableError, match=f"model 'fares' at {address}") as failed,
    ):
        client.predict("fares", {"age": 1, "city": ""})
    assert isinstance(failed.value.__cause__, grpc.RpcError)


def test_a_server_that_is_back_answers(client, server):
    server.fail(grpc.StatusCode.UNAVAILABLE, times=3)
    assert client.predict("fares", FARES[0])["fare"].tolist() == [82.0, 14.0]
    assert len(server.calls("ModelInfer")) == 4


def test_the_retries_end_with_the_servers_words(client, server):
    server.fail(grpc.StatusCode.UNAVAILABLE, "stopping", times=9)
    with pytest.raises(ServerUnavailableError, match="stopping"):
        client.predict("fares", FARES[0])
    assert len(server.calls("ModelInfer")) == 4


@pytest.mark.parametrize(
    ("code", "trailers", "calls"),
    [
        (grpc.StatusCode.UNAVAILABLE, {"grpc_retry_pushback_ms": "1"}, 2),
        (grpc.StatusCode.UNAVAILABLE, {"grpc_retry_pushback_ms": "-1"}, 1),
        (grpc.StatusCode.UNAVAILABLE, {"grpc_retry_pushback_ms": "60000"}, 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, {}, 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, {"grpc_retry_pushback_ms": "1"}, 2),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, {"grpc_retry_pushback_ms": "-1"}, 1),
        (grpc.StatusCode.DEADLINE_EXCEEDED, {}, 1),
        (grpc.StatusCode.INTERNAL, {"grpc_retry_pushback_ms": "1"}, 1),
        (grpc.StatusCode.ABORTED, {}, 1),
    ],
)
def test_pushback_is_followed(client, server, code, trailers, calls):
    server.fail(code, **trailers)
    try:
        client.predict("fares", FARES[0])
    except PenstockClientError as error:
        assert error.code is code  # noqa: PT017 - some rows answer, others raise
    assert len(server.calls("ModelInfer")) == calls


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (grpc.StatusCode.NOT_FOUND, ModelNotFoundError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, OverloadedError),
        (grpc.StatusCode.UNIMPLEMENTED, UnsupportedError),
        (grpc.StatusCode.INTERNAL, ServerError),
    ],
)
def test_a_status_becomes_its_error(client, server, code, meaning):
    server.fail(code, "because")
    with pytest.raises(meaning) as failed:
        client.predict("fares", FARES[0])
    error = failed.value
    assert (error.details, error.code, error.model, error.server) == ("because", code, "fares", server.address)
    assert error.__cause__.code() is code


ROW = {"age": 41, "city": "Oslo"}


def test_a_request_like_an_earlier_one_is_the_same_and_tried_again_alike(client, server):
    first = client.predict("fares", ROW, request_id="r")
    assert client.predict("fares", ROW, request_id="r").timing.batch_rows == 8
    one, other = (seen.request for seen in server.calls("ModelInfer"))
    assert one == other
    server.fail(grpc.StatusCode.UNAVAILABLE, times=3)
    found = client.predict("fares", ROW, request_id="r")
    assert (found["fare"].tolist(), found.role) == (first["fare"].tolist(), "champion")
    assert len(server.calls("ModelInfer")) == 6
    server.fail(grpc.StatusCode.UNAVAILABLE, "stopping", times=9)
    with pytest.raises(ServerUnavailableError, match="stopping"):
        client.predict("fares", ROW)
    assert len(server.calls("ModelInfer")) == 10


def test_a_request_like_an_earlier_one_fails_alike(client, server):
    client.predict("fares", ROW)
    server.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    with pytest.raises(OverloadedError, match="full") as failed:
        client.predict("fares", ROW)
    assert (failed.value.model, failed.value.server) == ("fares", server.address)
    assert isinstance(failed.value.__cause__, grpc.RpcError)
    for options in ({"timeout_s": 0}, {"priority": -1}, {"request_id": 7}):
        with pytest.raises(InvalidRequestError):
            client.predict("fares", ROW, **options)
    with pytest.raises(InvalidRequestError, match="got 'x' at row 0"):
        client.predict("fares", {"age": "x", "city": "Oslo"})
    assert len(server.calls("ModelInfer")) == 2


def test_a_request_like_an_earlier_one_ends_at_its_deadline(client, server):
    client.predict("fares", ROW)
    release = threading.Event()
    server.models["fares"].answer = lambda _: release.wait(30) and ModelInferResponse()
    with pytest.raises(DeadlineExceededError, match="Deadline Exceeded") as failed:
        client.predict("fares", ROW, timeout_s=0.5)
    release.set()
    assert failed.value.__cause__.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_model_that_changed_is_learned_by_a_request_like_an_earlier_one(client, server, model_of):
    row = {"a": 1.0, "b": 2}
    client.predict("numbers", row)
    server.models["numbers"] = model_of([("a", "FP32", (-1,)), ("b", "INT64", (-1,))])
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "a is FP32")
    assert client.predict("numbers", row)["a"].dtype == np.float32
    client.predict("numbers", row)
    assert [seen.request.inputs[0].datatype for seen in server.calls("ModelInfer")] == ["FP64", "FP64", "FP32", "FP32"]


def test_a_reply_that_cannot_be_read_is_the_servers_error(client, server):
    client.predict("fares", ROW)
    server.models["fares"].answer = lambda request: ModelInferResponse(raw_output_contents=[b"x"])
    with pytest.raises(ServerError, match="0 outputs and 1 raw contents") as failed:
        client.predict("fares", ROW)
    assert failed.value.model == "fares"


def test_the_deadline_is_grpcs_own(client, server):
    client.metadata("stuck")
    with pytest.raises(DeadlineExceededError, match="model 'stuck'"):
        client.predict("stuck", {"x": [1]}, timeout_s=1)
    assert server.arrived.is_set()
    assert server.ended.wait(10), "the server knows that the call is over"
    assert 0 < server.calls("ModelInfer")[0].remaining_s < 2


def test_a_model_that_changed_is_learned(client, server, model_of):
    client.predict("numbers", {"a": [1], "b": [2]})
    server.models["numbers"] = model_of([("a", "FP64", (-1,)), ("c", "BYTES", (-1,))])
    assert client.predict("numbers", {"a": [1], "c": ["x"]})["c"].tolist() == ["x"]


def test_a_request_beyond_the_limit_is_refused_here(server):
    with (
        Client(server.address, max_message_bytes=1000) as client,
        pytest.raises(InvalidRequestError, match="the limit is 1000"),
    ):
        client.predict("numbers", np.zeros((1000, 2)))
    assert not server.calls("ModelInfer")


def test_messages_of_many_megabytes_pass(client, server):
    server.models["numbers"].answer = lambda _: ModelInferResponse()
    rows = np.zeros((400_000, 2))
    assert dict(client.predict("numbers", rows)) == {}
    assert len(server.calls("ModelInfer")[0].request.raw_input_contents[0]) == rows.nbytes


def test_a_reply_beyond_the_limit_is_no_overload(server):
    with Client(server.address, max_message_bytes=4096) as client:
        server.models["numbers"].answer = lambda _: ModelInferResponse(id="x" * 5000)
        with pytest.raises(InvalidRequestError, match="larger than max"):
            client.predict("numbers", np.zeros((1, 2)))


def test_a_closed_client_says_so(server):
    client = Client(server.address)
    client.close()
    with pytest.raises(PenstockClientError, match="the client is closed"):
        client.is_live()


def test_closing_ends_the_calls_of_other_threads(server):
    client = Client(server.address)
    errors = []

    def ask():
        try:
            client.predict("stuck", {"x": [1]})
        except PenstockClientError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert server.arrived.wait(10)
    client.close()
    thread.join(10)
    assert [error.code for error in errors] == [grpc.StatusCode.CANCELLED]


def test_threads_share_a_client(client):
    answers = []

    def ask(age):
        answers.append(client.predict("fares", {"age": [age], "city": ["x"]})["fare"].tolist() == [2.0 * age])

    threads = [threading.Thread(target=ask, args=(age,)) for age in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == [True] * 8


def test_the_drift_report_comes_back(drift_address):
    with Client(drift_address) as client:
        (version,) = client.drift_state("m", "@champion").versions
    assert (version.model, version.version, version.columns[0].name) == ("m", "@champion", "delay")
    assert version.columns[0].HasField("p_value")
    assert not version.columns[0].HasField("psi")


@pytest.mark.parametrize(("model", "error"), [("unknown", ModelNotFoundError), ("broken", ServerError)])
def test_a_drift_report_that_fails_is_the_clients_error(drift_address, model, error):
    with Client(drift_address) as client, pytest.raises(error, match=f"model '{model}' at {drift_address}"):
        client.drift_state(model)


def test_a_server_without_drift_reports_is_unsupported(client):
    with pytest.raises(UnsupportedError):
        client.drift_state()
