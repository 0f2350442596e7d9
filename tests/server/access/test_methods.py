import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock import penstock_pb2
from penstock.names import CONTROL_SERVICE, FEEDBACK_MODEL, HEALTH_SERVICE, INFERENCE_SERVICE, REFLECTION_SERVICES
from penstock.wire import varint
from penstock_server.access.methods import NEEDS, Need, model_of, need_of
from penstock_server.access.policy import EVERY_MODEL, NO_MODEL
from penstock_server.errors import InvalidInputError

OIP = f"/{INFERENCE_SERVICE}/"
PENSTOCK = f"/{CONTROL_SERVICE}/"


def labels(**fields: object) -> pb.ModelInferRequest:
    """A request to the reserved model that takes labels."""
    return pb.ModelInferRequest(model_name=FEEDBACK_MODEL, **fields)


@pytest.mark.parametrize(
    ("path", "message", "need"),
    [
        (OIP + "ModelInfer", pb.ModelInferRequest(model_name="m"), Need("infer", "m")),
        (OIP + "ModelStreamInfer", pb.ModelInferRequest(model_name="m"), Need("infer", "m")),
        (OIP + "ModelInfer", pb.ModelInferRequest(), Need("infer", EVERY_MODEL)),
        (OIP + "ServerLive", pb.ServerLiveRequest(), Need(None, NO_MODEL)),
        (OIP + "ServerReady", pb.ServerReadyRequest(), Need(None, NO_MODEL)),
        (OIP + "ServerMetadata", pb.ServerMetadataRequest(), Need("read", NO_MODEL)),
        (OIP + "ModelReady", pb.ModelReadyRequest(name="m", version="2"), Need("read", "m")),
        (OIP + "ModelMetadata", pb.ModelMetadataRequest(name="m"), Need("read", "m")),
        (OIP + "ModelConfig", pb.ModelConfigRequest(name="m"), Need("read", "m")),
        (OIP + "ModelStatistics", pb.ModelStatisticsRequest(), Need("read", EVERY_MODEL)),
        (OIP + "RepositoryIndex", pb.RepositoryIndexRequest(), Need("read", EVERY_MODEL)),
        (OIP + "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m"), Need("control", "m")),
        (OIP + "RepositoryModelLoad", pb.RepositoryModelLoadRequest(repository_name="m"), Need("control", "m")),
        (
            OIP + "RepositoryModelLoad",
            pb.RepositoryModelLoadRequest(repository_name="r", model_name="m"),
            Need("control", "m"),
        ),
        (OIP + "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(), Need("control", EVERY_MODEL)),
        (OIP + "TraceSetting", pb.TraceSettingRequest(model_name="m"), Need("read", "m")),
        (OIP + "TraceSetting", pb.TraceSettingRequest(settings={"a": {}}), Need("control", EVERY_MODEL)),
        (OIP + "LogSettings", pb.LogSettingsRequest(), Need("read", NO_MODEL)),
        (OIP + "LogSettings", pb.LogSettingsRequest(settings={"a": {}}), Need("control", EVERY_MODEL)),
        (OIP + "SystemSharedMemoryRegister", pb.ServerLiveRequest(), Need("control", EVERY_MODEL)),
        (f"/{CONTROL_SERVICE}/DriftState", pb.ModelReadyRequest(name="m"), Need("read", "m")),
        (OIP + "ModelMetadata", pb.ModelMetadataRequest(name=FEEDBACK_MODEL), Need("read", NO_MODEL)),
        (OIP + "ModelInfer", labels(), Need("feedback", EVERY_MODEL)),
        (OIP + "ModelInfer", labels(parameters={"model": {"string_param": "m"}}), Need("feedback", "m")),
        (
            OIP + "ModelInfer",
            labels(parameters={"model": {"string_param": "m"}}, inputs=[{"name": "models"}]),
            Need("feedback", EVERY_MODEL),
        ),
        (PENSTOCK + "Feedback", penstock_pb2.FeedbackRequest(model="m"), Need("feedback", "m")),
        (PENSTOCK + "FeedbackStream", penstock_pb2.FeedbackRequest(models=["m", "m"]), Need("feedback", "m")),
        (PENSTOCK + "Feedback", penstock_pb2.FeedbackRequest(models=["m", "n"]), Need("feedback", EVERY_MODEL)),
        (PENSTOCK + "Feedback", penstock_pb2.FeedbackRequest(model="m", models=["n"]), Need("feedback", EVERY_MODEL)),
        (PENSTOCK + "Feedback", penstock_pb2.FeedbackRequest(), Need("feedback", EVERY_MODEL)),
        (PENSTOCK + "Feedback", penstock_pb2.FeedbackRequest(model="m", passed_on=b"x"), Need("feedback", EVERY_MODEL)),
        (PENSTOCK + "RolloutState", penstock_pb2.RolloutStateRequest(), Need("read", EVERY_MODEL)),
        (PENSTOCK + "RolloutState", penstock_pb2.RolloutStateRequest(model="m"), Need("read", "m")),
        (PENSTOCK + "RolloutCommand", penstock_pb2.RolloutCommandRequest(model="m"), Need("control", "m")),
        (
            PENSTOCK + "RolloutCommand",
            penstock_pb2.RolloutCommandRequest(command="abort"),
            Need("control", EVERY_MODEL),
        ),
        (f"/{HEALTH_SERVICE}/Check", pb.ModelReadyRequest(), Need(None, NO_MODEL)),
        (f"/{HEALTH_SERVICE}/Watch", pb.ModelReadyRequest(name=INFERENCE_SERVICE), Need(None, NO_MODEL)),
        (f"/{HEALTH_SERVICE}/Check", pb.ModelReadyRequest(name="m"), Need("read", "m")),
        (f"/{REFLECTION_SERVICES[0]}/ServerReflectionInfo", pb.ServerLiveRequest(), Need("read", NO_MODEL)),
        ("/new.Service/Method", pb.ServerLiveRequest(), Need("control", EVERY_MODEL)),
    ],
)
def test_what_calls_take(path: str, message: pb.ModelInferRequest, need: Need) -> None:
    assert need_of(path, message.SerializeToString()) == need


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in NEEDS
        if NEEDS[path](b"") != Need(None, NO_MODEL)
        and "ServerM" not in path
        and "Reflection" not in path
        and "Index" not in path
    ],
)
def test_what_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(InvalidInputError):
        need_of(path, b"\x0a\x05ab")


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


NAMES = st.sampled_from([b"shop", b"secret", b"", b"\xff", "é".encode()])
FIELDS = st.one_of(
    NAMES.map(lambda name: field(1, name)),
    NAMES.map(lambda name: b"\x8a\x00" + varint(len(name)) + name),  # the same tag, longer than it need be
    NAMES.map(lambda name: b"\x0a\x84\x00" + name.ljust(4, b"x")),
    NAMES.map(lambda name: b"\x0b" + field(1, name) + b"\x0c"),  # a group with the same number
    NAMES.map(lambda name: b"\x63" + field(1, name) + b"\x64"),
    st.just(b"\x08\x05"),
    st.just(b"\x0d\x00\x00\x00\x00"),
    st.tuples(st.integers(2, 20), st.binary(max_size=6)).map(lambda pair: field(*pair)),
    st.binary(max_size=4),
)


@pytest.mark.long
@settings(max_examples=500)
@given(st.lists(FIELDS, max_size=8), st.integers(0, 70))
def test_the_model_is_read_as_the_service_reads_it(fields: list[bytes], more: int) -> None:
    message = b"".join(fields) + field(7, b"") * more
    try:
        wanted = pb.ModelInferRequest.FromString(message).model_name
    except DecodeError:
        wanted = None
    try:
        found = model_of(message)
    except InvalidInputError:
        found = None
    # What the service refuses may be called as it likes; what it takes must have one name.
    assert wanted is None or found == wanted


def test_every_method_of_the_services_is_listed() -> None:
    listed = {path.removeprefix(OIP) for path in NEEDS}
    services = (*pb.DESCRIPTOR.services_by_name.values(), *penstock_pb2.DESCRIPTOR.services_by_name.values())
    served = {method.name for service in services for method in service.methods}
    # Shared memory is refused to all, so it takes the right to control, which what is not listed takes.
    assert {name for name in served if "SharedMemory" not in name} <= {path.rpartition("/")[2] for path in listed}
