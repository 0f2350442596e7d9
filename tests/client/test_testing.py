"""The server that users test with, asked as they ask it, and by a foreign client."""

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from penstock_client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    ModelNotFoundError,
    ModelState,
    OverloadedError,
    ServerUnavailableError,
)
from penstock_client.testing import FakeModel, FakeServer, SeenLabel


def doubled(rows):
    return {"twice": rows["x"] * 2, "text": [f"{value:g}" for value in rows["x"]]}


@pytest.fixture
def fake():
    with FakeServer({"m": FakeModel(doubled, inputs={"x": "FP32"}, version="7")}) as server:
        yield server


@pytest.fixture
def client(fake):
    with Client(fake.address, retries=0) as client:
        yield client


def test_a_function_answers(client):
    prediction = client.predict("m", {"x": [1.5, 2]}, request_id="r")
    assert (prediction["twice"].tolist(), prediction["text"].tolist()) == ([3.0, 4.0], ["1.5", "2"])
    assert (prediction.model, prediction.version, prediction.request_id) == ("m", "7", "r")


def test_texts_come_as_texts_and_missing_ones_as_declared(fake, client):
    fake.add(
        "t", lambda rows: {"upper": [text.upper() for text in rows["t"]]}, inputs={"t": "BYTES"}, missing={"t": "-"}
    )
    assert client.predict("t", {"t": ["a", None]})["upper"].tolist() == ["A", "-"]


def test_only_the_outputs_asked_for_are_answered(client):
    assert list(client.predict("m", {"x": [1.0]}, outputs=["text"])) == ["text"]


def test_what_a_model_declares_can_have_shapes(fake, client):
    fake.add("s", lambda rows: {"y": rows["x"].sum(1)}, inputs={"x": ("FP64", (-1, 2))}, outputs={"y": "FP64"})
    assert client.predict("s", [[1.0, 2.0]])["y"].tolist() == [3.0]
    assert client.metadata("s").outputs[0].datatype == "FP64"


def test_parameters_tell_the_role_and_the_times(fake, client):
    fake.models["m"].parameters = {"penstock_role": "canary", "penstock_queue_us": 250}
    prediction = client.predict("m", {"x": [1.0]})
    assert (prediction.role, prediction.timing.queue_s) == ("canary", 0.00025)


def test_the_next_calls_fail_as_told(fake, client):
    fake.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
    with pytest.raises(OverloadedError, match="the queue is full"):
        client.predict("m", {"x": [1.0]})
    assert client.predict("m", {"x": [1.0]})["twice"].tolist() == [2.0]


def test_a_function_that_refuses_is_an_invalid_request(fake, client):
    def refuse(rows):
        raise ValueError("x is negative")

    fake.add("r", refuse, inputs={"x": "FP32"})
    with pytest.raises(InvalidRequestError, match="x is negative"):
        client.predict("r", {"x": [-1.0]})


def test_states_are_told(fake, client):
    fake.models["m"].is_ready = False
    assert not client.is_ready("m")
    assert client.index() == (ModelState("m", "7", "UNAVAILABLE", ""),)
    assert client.index(only_ready=True) == ()
    with pytest.raises(ServerUnavailableError, match="not ready"):
        client.predict("m", {"x": [1.0]})
    with pytest.raises(ModelNotFoundError):
        client.predict("none", {"x": [1.0]})
    assert client.is_ready()
    fake.is_healthy = False
    assert not client.is_ready()


async def test_asyncio(fake):
    async with AsyncClient(fake.address) as client:
        assert (await client.predict("m", {"x": [1.0]}))["twice"].tolist() == [2.0]


@pytest.mark.parametrize("is_raw", [True, False])
def test_a_foreign_client_is_answered(fake, is_raw):
    client = InferenceServerClient(fake.address)
    tensor = InferInput("x", [2], "FP32")
    tensor.set_data_from_numpy(np.array([1, 2], np.float32))
    if not is_raw:
        tensor._raw_content = None
        tensor._input.contents.fp32_contents[:] = [1, 2]
    answer = client.infer("m", [tensor], outputs=[InferRequestedOutput("twice")])
    assert answer.as_numpy("twice").tolist() == [2.0, 4.0]
    client.close()


@pytest.mark.parametrize(
    ("given", "came"),
    [
        (
            ({"a": 1, "b": [0, 2]}, None),
            [SeenLabel("m", "a", 1), SeenLabel("m", "b", 0), SeenLabel("m", "b", 2, row=1)],
        ),
        (({"a": "x"}, {"a": 3.5}), [SeenLabel("m", "a", "x", 3.5)]),
        ((None, {"a": 3.5}), [SeenLabel("m", "a", None, 3.5)]),
    ],
)
def test_labels_are_kept(fake, client, given, came):
    labels, values = given
    assert client.feedback("m", labels, values=values) == len(came)
    assert fake.labels == came


def test_what_is_no_label_is_refused(fake):
    client = InferenceServerClient(fake.address)
    tensor = InferInput("ids", [2], "BYTES")
    tensor.set_data_from_numpy(np.array(["a", "b"], object))
    labels = InferInput("labels", [1], "FP64")
    labels.set_data_from_numpy(np.array([1.0]))
    with pytest.raises(InferenceServerException, match="expected 'ids' and as many of each other input"):
        client.infer("penstock.feedback", [tensor, labels])
    client.close()
    assert fake.labels == []
