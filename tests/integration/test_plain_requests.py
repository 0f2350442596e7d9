"""A server whose kernels take plain requests beside one that leaves all to the general path: one cannot tell them apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock.tensors import datatype_of, to_raw
from tests.server.prediction.plain_world import without_times

TIMEOUT_S = 20.0
INFER = "/inference.GRPCInferenceService/ModelInfer"
ROWS = np.array([[1.0, 2.0], [-1.0, -3.0], [0.5, 0.25]], np.float32)
TEXTS = np.array([["a", "é"], ["", "x" * 1000]], object)


def asked(model: str, arrays: dict[str, Any], **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, **fields)
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
        request.raw_input_contents.append(to_raw(array))
    return request


def changed(request: pb.ModelInferRequest, change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    change(request)
    return request


def with_parameter(name: str, **value: Any) -> pb.ModelInferRequest:
    return changed(asked("flag", FLAG), lambda request: request.parameters[name].MergeFrom(pb.InferParameter(**value)))


FLAG = {"X": ROWS}
STRINGS = {"text": TEXTS, "x": ROWS[:2]}
REQUESTS: list[pb.ModelInferRequest] = [
    asked("flag", FLAG),
    asked("flag", FLAG, id="request 1"),
    asked("flag", {"X": ROWS[:1]}, id="ü"),
    changed(asked("flag", FLAG), lambda request: request.outputs.add(name="probabilities")),
    with_parameter("routing_key", string_param="k"),
    with_parameter("timeout", int64_param=10**7),
    with_parameter("priority", int64_param=3),
    asked("flag", FLAG, model_version="1"),
    asked("flag", FLAG, model_version="@champion"),
    asked("strings", STRINGS),
    asked("strings", STRINGS, id="s"),
    changed(asked("strings", STRINGS), lambda request: request.outputs.add(name="x_out")),
    # What is refused.
    asked("flag", FLAG, model_version="9"),
    asked("nothing", FLAG),
    asked("flag", {"X": ROWS[:, :1]}),
    asked("flag", {"X": ROWS.astype(np.float64)}),
    changed(asked("flag", FLAG), lambda request: request.raw_input_contents.__setitem__(0, bytes(23))),
    with_parameter("priority", int64_param=77),
    changed(asked("flag", FLAG), lambda request: request.outputs.add(name="nothing")),
    changed(asked("strings", STRINGS), lambda request: request.raw_input_contents.__setitem__(0, b"\xff\0\0\0torn")),
]  # fmt: skip


@pytest.fixture(scope="module")
def servers(
    start_shared: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    plain_repository: Path,
) -> tuple[Any, Any]:
    file = tmp_path_factory.mktemp("settings") / "general.toml"
    file.write_text("[serving]\nplain_requests = false\n")
    plain = start_shared("--model-repository", str(plain_repository))
    general = start_shared("--model-repository", str(plain_repository), "--config", str(file))
    return plain.wait_ready(), general.wait_ready()


def end_of(address: str, message: bytes) -> Any:
    """A call's reply without its times, or its status, details and trailers."""
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
        try:
            reply, call = method.with_call(message, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return error.code(), error.details(), list(map(tuple, error.trailing_metadata()))
        return without_times(reply), *(
            list(map(tuple, found())) for found in (call.initial_metadata, call.trailing_metadata)
        )


def test_replies_errors_and_counts_are_the_same(servers: tuple[Any, Any], until: Any) -> None:
    for _ in range(3):  # known from the second time on
        for request in REQUESTS:
            message = request.SerializeToString()
            plain, general = (end_of(server.grpc, message) for server in servers)
            assert plain == general, request
    for name in (
        "penstock_requests_total",
        "penstock_refusals_total",
        "penstock_unrouted_refusals_total",
        "penstock_batch_rows_bucket",
        "penstock_batch_rows_sum",
        "penstock_queue_requests",
    ):
        # A batch is counted right after it is answered.
        assert until(
            lambda name=name: servers[0].samples(name) == servers[1].samples(name) and servers[0].samples(name),
            f"the same is counted in {name}",
        )
