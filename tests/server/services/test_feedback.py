"""The roads by which labels come."""

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import inference_pb2
from penstock import penstock_pb2 as pb
from penstock.names import FEEDBACK_MODEL
from penstock.tensors import to_raw
from penstock_server.errors import InvalidInputError, LimitedError, NotFoundError, PenstockError, UnsupportedError
from penstock_server.labels.label_file import KIND, LabelWriter
from penstock_server.labels.ring import Ring, rings_in
from penstock_server.labels.settings import LabelSettings, OwnLabelSettings
from penstock_server.labels.wire import PASSED_ON, RECEIVED_NS, ROW
from penstock_server.prediction.model_thread import ModelThread
from penstock_server.prediction.predictor import Predictor
from penstock_server.services.feedback import LARGE_BYTES, MOST_WAITING, Feedback
from penstock_server.services.inference import inference_methods

FEEDBACK, STREAM = "/penstock.v1.Penstock/Feedback", "/penstock.v1.Penstock/FeedbackStream"
INFERENCE = "/inference.GRPCInferenceService/"


class LateThread:
    """Runs what it is given when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def start(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self.jobs.append((work, then))

    def run(self) -> None:
        jobs, self.jobs = self.jobs, []
        for work, then in jobs:
            then(work())


class World:
    """Feedback before a folder."""

    def __init__(self, folder: Path, predictor: Predictor, *, places: int = 4096, thread: Any = None) -> None:
        self.folder = folder
        settings = LabelSettings(enabled=True, folder=folder, models={"n": OwnLabelSettings(enabled=False)})
        self.feedback = Feedback(
            settings, LabelWriter(folder, 0, places=places), predictor, thread=thread, now_ns=lambda: 99
        )
        self.methods = self.feedback.methods | inference_methods(predictor, self.feedback)

    @property
    def records(self) -> Any:
        (path,) = rings_in(self.folder, KIND)
        return Ring(path).read(0, 1 << 20)


@pytest.fixture
def world(tmp_path: Path, predictor: Predictor) -> World:
    return World(tmp_path, predictor)


def answered(handler: Any, message: bytes, call: Any) -> None:
    """Has a method answer; raises the error that it answers with."""
    handler(message, call)
    if isinstance(call.answer, PenstockError):
        raise call.answer


def request(ids: list[str], **fields: Any) -> bytes:
    return pb.FeedbackRequest(**{"model": "m", "ids": ids, "numbers": [1.0] * len(ids)} | fields).SerializeToString()


def infer(ids: list[str], **fields: Any) -> bytes:
    made = inference_pb2.ModelInferRequest(model_name=FEEDBACK_MODEL, id="i-1", **fields)
    made.parameters["model"].string_param = "m"
    made.inputs.add(name="ids", datatype="BYTES", shape=[len(ids)])
    made.inputs.add(name="labels", datatype="FP64", shape=[len(ids)])
    made.raw_input_contents.extend([to_raw(np.array(ids, object)), np.ones(len(ids)).tobytes()])
    return made.SerializeToString()


def test_a_message_is_acknowledged_when_its_labels_are_kept(world: World, fake_call: Any) -> None:
    call = fake_call()
    world.methods.unary[FEEDBACK](request(["a", "b"]), call)
    assert pb.FeedbackResponse.FromString(call.answer).taken == 2
    assert world.records[:, RECEIVED_NS].tolist() == [99, 99]


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_the_reserved_model_takes_labels(world: World, fake_call: Any, method: str) -> None:
    call = fake_call()
    if method == "ModelInfer":
        world.methods.unary[INFERENCE + method](infer(["a", "b", "c"]), call)
        answer = inference_pb2.ModelInferResponse.FromString(call.answer)
    else:
        world.methods.streams[INFERENCE + method](call)(infer(["a", "b", "c"]))
        answer = inference_pb2.ModelStreamInferResponse.FromString(call.sent[0]).infer_response
    assert (answer.model_name, answer.id, answer.outputs[0].name) == (FEEDBACK_MODEL, "i-1", "taken")
    assert np.frombuffer(answer.raw_output_contents[0], "<i8").tolist() == [3]
    assert len(world.records) == 3


def test_a_name_that_comes_twice_is_the_last_one(world: World, fake_call: Any) -> None:
    call = fake_call()
    world.methods.unary[INFERENCE + "ModelInfer"](infer(["a"]) + b"\x0a\x01z", call)
    assert isinstance(call.answer, NotFoundError)
    assert len(world.records) == 0


def test_gateways_find_the_reserved_model(world: World, fake_call: Any) -> None:
    call = fake_call()
    asked = inference_pb2.ModelMetadataRequest(name=FEEDBACK_MODEL).SerializeToString()
    world.methods.unary[INFERENCE + "ModelMetadata"](asked, call)
    found = inference_pb2.ModelMetadataResponse.FromString(call.answer)
    assert [tensor.name for tensor in found.inputs] == ["ids", "labels", "values", "rows", "models"]
    call = fake_call()
    world.methods.unary[INFERENCE + "ModelReady"](asked, call)
    assert inference_pb2.ModelReadyResponse.FromString(call.answer).ready


@pytest.mark.parametrize(
    ("message", "error", "said"),
    [
        (request(["a"], model="z"), NotFoundError, "model 'z' is not served; served now: 'm', 'n'"),
        (request(["a"], model="n"), NotFoundError, "labels of model 'n' are not taken here"),
        (request([]), InvalidInputError, "the message has 0 ids"),
        (b"\xff", InvalidInputError, "the message is not a FeedbackRequest"),
        (request(["a"], passed_on=b"x" * 64), InvalidInputError, "labels that are passed on come alone"),
        (request([], model="", passed_on=b"x"), InvalidInputError, "labels that are passed on take 64 bytes each"),
        (request([str(each) for each in range(9)]), LimitedError, "labels come faster than they are joined"),
    ],
)
def test_what_is_refused_leaves_nothing(
    tmp_path: Path, predictor: Predictor, fake_call: Any, message: bytes, error: type[PenstockError], said: str
) -> None:
    world, call = World(tmp_path, predictor, places=8), fake_call()
    with pytest.raises(error, match=said):
        answered(world.methods.unary[FEEDBACK], message, call)
    assert len(world.records) == 0


def test_labels_of_a_peer_are_marked(world: World, fake_call: Any) -> None:
    record = np.zeros((1, 8), np.int64)
    call = fake_call()
    world.methods.unary[FEEDBACK](pb.FeedbackRequest(passed_on=record.tobytes()).SerializeToString(), call)
    assert pb.FeedbackResponse.FromString(call.answer).taken == 1
    assert world.records[0, ROW] == PASSED_ON


def test_a_server_without_labels_says_how_to_turn_them_on(predictor: Predictor, fake_call: Any) -> None:
    feedback = Feedback(LabelSettings(), None, predictor)
    with pytest.raises(UnsupportedError, match=r"started without \[labels\] enabled"):
        answered(feedback.methods.unary[FEEDBACK], request(["a"]), fake_call())
    with pytest.raises(NotFoundError):
        answered(inference_methods(predictor, feedback).unary[INFERENCE + "ModelInfer"], infer(["a"]), fake_call())


def test_each_message_of_a_stream_is_acknowledged_in_its_turn(
    tmp_path: Path, predictor: Predictor, fake_call: Any
) -> None:
    thread, call = LateThread(), fake_call()
    world = World(tmp_path, predictor, thread=thread)
    receive = world.methods.streams[STREAM](call)
    large = request([str(each) for each in range(3000)])
    assert len(large) > LARGE_BYTES
    for message in (request(["a"]), large, request(["b", "c"]), None):
        receive(message)
    assert [pb.FeedbackResponse.FromString(reply).taken for reply in call.sent] == [1]
    assert not call.is_over
    thread.run()
    assert [pb.FeedbackResponse.FromString(reply).taken for reply in call.sent] == [1, 3000, 2]
    assert call.is_over
    assert len(world.records) == 3003


def test_an_error_ends_a_stream(world: World, fake_call: Any) -> None:
    call = fake_call()
    receive = world.methods.streams[STREAM](call)
    receive(request(["a"]))
    receive(request(["a"], model="z"))
    receive(request(["b"]))
    assert isinstance(call.answer, NotFoundError)
    assert len(world.records) == 1


def test_a_stream_that_does_not_wait_for_replies_ends(tmp_path: Path, predictor: Predictor, fake_call: Any) -> None:
    call = fake_call()
    world = World(tmp_path, predictor, thread=LateThread())
    receive = world.methods.streams[STREAM](call)
    receive(request([str(each) for each in range(3000)]))
    for _ in range(MOST_WAITING):
        receive(request(["a"]))
    with pytest.raises(PenstockError, match="messages of this stream wait"):
        receive(request(["a"]))


def test_a_stream_takes_many_small_messages_at_once(tmp_path: Path, predictor: Predictor, fake_call: Any) -> None:
    thread, call = LateThread(), fake_call()
    world = World(tmp_path, predictor, thread=thread)
    receive = world.methods.streams[STREAM](call)
    receive(request([str(each) for each in range(3000)]))
    for _ in range(MOST_WAITING):
        receive(request(["a"]))
    thread.run()
    assert len(call.sent) == MOST_WAITING + 1


def test_a_thread_reads_large_messages(tmp_path: Path, predictor: Predictor, fake_call: Any) -> None:
    posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    thread, call = ModelThread("labels", posted.put), fake_call()
    world = World(tmp_path, predictor, thread=thread)
    world.methods.unary[FEEDBACK](request([str(each) for each in range(3000)]), call)
    posted.get(timeout=10)()
    assert pb.FeedbackResponse.FromString(call.answer).taken == 3000
    thread.close()
    thread.join()
