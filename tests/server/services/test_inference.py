import gc
import json
import weakref
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.inference_pb2 import DESCRIPTOR
from penstock_server.errors import DeadlinePassedError, InvalidInputError, NotFoundError, NotReadyError, PenstockError
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.prediction.decode import TensorDecoder
from penstock_server.prediction.predictor import Predictor
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.services.inference import inference_methods
from penstock_server.services.triton import triton_methods
from tests.examples import examples

PATH = "/inference.GRPCInferenceService/"


@pytest.fixture
def ask(predictor: Predictor, fake_call: Any) -> Callable[..., Any]:
    """The reply to one message of a unary method."""
    methods = inference_methods(predictor)

    def send(method: str, request: Any, reply: Any) -> Any:
        call = fake_call()
        methods.unary[PATH + method](request if isinstance(request, bytes) else request.SerializeToString(), call)
        return reply.FromString(call.answer)

    return send


def test_every_method_of_the_service_is_served(predictor: Predictor) -> None:
    methods = inference_methods(predictor) | triton_methods(predictor, lambda *_: None, workers=1, allows_control=False)
    described = DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert {*methods.unary, *methods.streams} == {PATH + name for name in described}
    assert [*methods.streams] == [PATH + "ModelStreamInfer"]


def test_a_live_server_says_so(ask: Any) -> None:
    assert ask("ServerLive", b"", pb.ServerLiveResponse).live


@pytest.mark.parametrize(
    ("models", "is_ready"),
    [
        ({"m": "1"}, True),
        ({"m": "1", "n": ""}, True),
        ({"m": "", "n": ""}, False),
        ({}, True),
        ({"m": "1", "is_settled": False}, False),
    ],
)
def test_a_server_is_ready_unless_none_of_its_models_answers(
    ask: Any, predictor: Predictor, routing_table_of: Any, models: Any, is_ready: bool
) -> None:
    predictor.routing_table = routing_table_of(**models)
    assert ask("ServerReady", b"", pb.ServerReadyResponse).ready is is_ready


@pytest.mark.parametrize("wanted", ["", "1", "2", "@champion"])
def test_a_ready_model_says_so(ask: Any, wanted: str) -> None:
    assert ask("ModelReady", pb.ModelReadyRequest(name="m", version=wanted), pb.ModelReadyResponse).ready


@pytest.mark.parametrize(
    ("method", "kind"), [("ModelReady", pb.ModelReadyRequest), ("ModelMetadata", pb.ModelMetadataRequest)]
)
@pytest.mark.parametrize(
    ("name", "wanted", "error", "said"),
    [
        ("z", "", NotFoundError, "model 'z' is not served"),
        ("m", "7", NotFoundError, "no version '7'"),
        ("m", "9", NotReadyError, "version 9 is unavailable: damaged"),
        ("n", "", NotReadyError, "model 'n' has no version ready"),
    ],
)
def test_who_is_not_ready_says_why(
    ask: Any, method: str, kind: Any, name: str, wanted: str, error: type[PenstockError], said: str
) -> None:
    with pytest.raises(error, match=said):
        ask(method, kind(name=name, version=wanted), None)


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "RepositoryIndex"])
def test_what_is_no_message_is_refused(ask: Any, method: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the message is not a {method}Request of the Open Inference Protocol"):
        ask(method, b"\xff", None)


def test_server_metadata(ask: Any) -> None:
    reply = ask("ServerMetadata", b"", pb.ServerMetadataResponse)
    assert (reply.name, reply.version) == ("penstock", version("penstock"))
    assert "binary_tensor_data" in reply.extensions


def test_model_metadata(ask: Any) -> None:
    reply = ask("ModelMetadata", pb.ModelMetadataRequest(name="m"), pb.ModelMetadataResponse)
    assert (reply.name, list(reply.versions), reply.platform) == ("m", ["1", "2"], "onnxruntime_onnx")
    shown = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in (*reply.inputs, *reply.outputs)]
    assert shown == [("x", "FP64", [-1, 1]), ("y", "FP64", [-1, 1])]
    assert not any(tensor.parameters for tensor in (*reply.inputs, *reply.outputs))


def test_metadata_names_a_matrixs_columns(ask: Any, predictor: Predictor) -> None:
    model = predictor.routing_table.model("m")
    inputs = (TensorInfo("x", "FP64", (ANY, 2), ("age", 'a "name", é')),)
    model.executors["1"].decoder = TensorDecoder(Signature(inputs, (), True))
    reply = ask("ModelMetadata", pb.ModelMetadataRequest(name="m", version="1"), pb.ModelMetadataResponse)
    assert json.loads(reply.inputs[0].parameters["columns"].string_param) == ["age", 'a "name", é']


@pytest.mark.parametrize(("missing", "said"), [(None, {}), ("", {"missing": ""})])
def test_model_metadata_says_which_text_is_a_missing_value(
    ask: Any, predictor: Predictor, missing: str | None, said: dict[str, str]
) -> None:
    decoder = predictor.routing_table.models["m"].executors["1"].decoder
    decoder.inputs = (TensorInfo("city", "BYTES", (ANY, 1), missing=missing),)
    reply = ask("ModelMetadata", pb.ModelMetadataRequest(name="m", version="1"), pb.ModelMetadataResponse)
    assert {name: value.string_param for name, value in reply.inputs[0].parameters.items()} == said


READY = [("m", "1", "READY", ""), ("m", "2", "READY", "")]


@pytest.mark.parametrize(
    ("only_ready", "expected"),
    [
        (False, [*READY, ("m", "9", "UNAVAILABLE", "damaged"), ("n", "9", "UNAVAILABLE", "damaged")]),
        (True, READY),
    ],
)  # fmt: skip
def test_repository_index(ask: Any, only_ready: bool, expected: Any) -> None:
    reply = ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=only_ready), pb.RepositoryIndexResponse)
    assert [(one.name, one.version, one.state, one.reason) for one in reply.models] == expected


@pytest.mark.parametrize(("only_ready", "shown"), [(False, 1), (True, 0)])
def test_a_model_that_is_registered_and_not_served_is_in_the_index(
    ask: Any, predictor: Predictor, only_ready: bool, shown: int
) -> None:
    models = {"sk": ServedModel("sk", None, {}, problem="a scikit-learn model; run penstock publish")}
    predictor.routing_table = RoutingTable(models, is_settled=True)
    reply = ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=only_ready), pb.RepositoryIndexResponse)
    expected = [("sk", "", "UNAVAILABLE", "a scikit-learn model; run penstock publish")] * shown
    assert [(one.name, one.version, one.state, one.reason) for one in reply.models] == expected


class Stream:
    """A `ModelStreamInfer` call and the executor behind it."""

    def __init__(self, predictor: Predictor, call: Any) -> None:
        self.call = call
        self.receive = inference_methods(predictor).streams[PATH + "ModelStreamInfer"](call)
        self.executors = predictor.routing_table.models["m"].executors

    def run(self, version: str = "1") -> None:
        while self.executors[version].due_s() != float("inf"):
            self.executors[version].run(100.0)

    @property
    def replies(self) -> list[Any]:
        """The value of each answer, or its error's text."""
        replies = [pb.ModelStreamInferResponse.FromString(message) for message in self.call.sent]
        return [
            reply.error_message or float(np.frombuffer(reply.infer_response.raw_output_contents[0])[0])
            for reply in replies
        ]


@pytest.fixture
def stream(predictor: Predictor, fake_call: Any) -> Stream:
    return Stream(predictor, fake_call())


def test_a_stream_answers_in_the_order_of_its_requests(stream: Stream, infer_message: Any) -> None:
    for value, wanted in ((1.0, "2"), (2.0, "1"), (3.0, "2")):
        stream.receive(infer_message(value, model_version=wanted))
    stream.run("1")
    assert stream.replies == []  # the first is not answered yet
    stream.run("2")
    assert stream.replies == [2.0, 4.0, 6.0]
    assert not stream.call.is_over
    stream.receive(None)
    assert stream.call.answer is None


def test_a_stream_ends_after_its_last_answer(stream: Stream, infer_message: Any) -> None:
    stream.receive(infer_message(1.0))
    stream.receive(None)
    assert not stream.call.is_over
    stream.run()
    assert stream.replies == [2.0]
    assert stream.call.answer is None


def test_an_empty_stream_ends_with_its_caller(stream: Stream) -> None:
    stream.receive(None)
    assert (stream.call.sent, stream.call.answer) == ([], None)


def test_an_error_is_an_answer_among_others(stream: Stream, infer_message: Any) -> None:
    stream.receive(infer_message(1.0))
    stream.receive(infer_message(2.0, model_name="z"))
    stream.receive(b"\xff")
    stream.receive(infer_message(3.0))
    stream.run()
    assert stream.replies == [
        2.0, "model 'z' is not served; served now: 'm', 'n'",
        "the message is not a ModelInferRequest of the Open Inference Protocol", 6.0,
    ]  # fmt: skip
    assert not stream.call.is_over


def test_who_asks_for_a_status_gets_one(predictor: Predictor, fake_call: Any, infer_message: Any) -> None:
    stream = Stream(predictor, fake_call(metadata=(("triton_grpc_error", "true"),)))
    stream.receive(infer_message(1.0))
    stream.receive(infer_message(2.0, model_name="z"))
    stream.receive(infer_message(3.0))
    stream.run()
    assert stream.replies == [2.0]
    assert isinstance(stream.call.answer, NotFoundError)


def test_a_stream_that_fails_moves_no_other_callers_rows(
    predictor: Predictor, fake_call: Any, infer_message: Any
) -> None:
    stream = Stream(predictor, fake_call(metadata=(("triton_grpc_error", "true"),)))
    stream.receive(infer_message(1.0, parameters={"timeout": pb.InferParameter(int64_param=1)}))
    stream.receive(infer_message(2.0))
    other = fake_call()
    predictor.infer(infer_message(3.0), other)
    executor = stream.executors["1"]
    executor.run(200.0)  # the first request's time is over, which ends the stream while the others' batch is formed
    assert isinstance(stream.call.answer, DeadlinePassedError)
    assert np.frombuffer(pb.ModelInferResponse.FromString(other.answer).raw_output_contents[0]).tolist() == [6.0]
    assert executor.is_idle
    assert executor.report.left_waiting == (0, 0)  # type: ignore[attr-defined]


def test_a_stream_that_is_left_gives_its_requests_up(stream: Stream, infer_message: Any) -> None:
    for value in (1.0, 2.0):
        stream.receive(infer_message(value))
    stream.call.leave()
    stream.run()
    report: Any = stream.executors["1"].report
    assert report.refusals == {"cancelled": 2}
    assert report.batches == []
    assert stream.call.sent == []


@pytest.mark.parametrize("wants_status", [False, True])
def test_a_stream_that_is_over_leaves_no_reference_cycle(
    predictor: Predictor, fake_call: Any, infer_message: Any, wants_status: bool
) -> None:
    gc.collect()
    gc.disable()
    try:
        call = fake_call(metadata=(("triton_grpc_error", "true"),) if wants_status else ())
        stream = Stream(predictor, call)
        for message in (infer_message(1.0), infer_message(2.0, model_name="z"), b"\xff", infer_message(3.0)):
            stream.receive(message)
        stream.run()
        stream.receive(infer_message(4.0))  # not answered when the caller leaves
        alive = [weakref.ref(one) for one in gc.get_objects() if type(one).__name__ in {"_Stream", "_StreamedCall"}]
        assert len(alive) >= 2
        call.leave()
        call.pending = None  # as transports do
        stream.run()  # what was given up leaves the queue
        del stream
        call.answers.clear()
        assert [one() for one in alive if one() is not None] == []
    finally:
        gc.enable()


def test_names_are_bounded(ask: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected at most 65536"):
        ask("ModelMetadata", pb.ModelMetadataRequest(name="m" * 70_000), None)


def test_large_answers_are_framed_whole(stream: Stream, infer_message: Any) -> None:
    for size in (0, 1, 100, 127, 128, 16_500):
        stream.receive(infer_message(1.0, id="i" * size))
    stream.run()
    ids = [pb.ModelStreamInferResponse.FromString(message).infer_response.id for message in stream.call.sent]
    assert [len(one) for one in ids] == [0, 1, 100, 127, 128, 16_500]


@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.sampled_from(["1", "2", "9"]), max_size=8), runs=st.lists(st.sampled_from("12"), max_size=8))
def test_any_mix_of_executors_keeps_the_order(
    predictor: Predictor, fake_call: Any, infer_message: Any, wanted: list[str], runs: list[str]
) -> None:
    stream = Stream(predictor, fake_call())
    for value, one in enumerate(wanted):
        stream.receive(infer_message(float(value), model_version=one))
        if value < len(runs):
            stream.run(runs[value])
    stream.receive(None)
    for one in "12":
        stream.run(one)
    expected = [
        "model 'm' version 9 is unavailable: damaged" if one == "9" else 2.0 * at for at, one in enumerate(wanted)
    ]
    assert stream.replies == expected
    assert stream.call.answer is None
