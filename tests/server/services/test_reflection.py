from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as pb

from penstock_server.errors import InvalidInputError
from penstock_server.services.reflection import SERVICES, answer, reflection_methods

PATHS = [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")]


def files_in(reply: Any) -> list[FileDescriptorProto]:
    return [FileDescriptorProto.FromString(one) for one in reply.file_descriptor_response.file_descriptor_proto]


def test_services_are_listed() -> None:
    request = pb.ServerReflectionRequest(host="h", list_services="*")
    reply = answer(request)
    assert [service.name for service in reply.list_services_response.service] == list(SERVICES)
    assert (reply.valid_host, reply.original_request) == ("h", request)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_listed_is_described(service: str) -> None:
    (file,) = files_in(answer(pb.ServerReflectionRequest(file_containing_symbol=service)))
    package, _, name = service.rpartition(".")
    assert file.package == package
    assert name in [one.name for one in file.service]
    assert list(file.dependency) == []
    (same,) = files_in(answer(pb.ServerReflectionRequest(file_by_filename=file.name)))
    assert same == file


@pytest.mark.parametrize(
    "symbol",
    ["inference.ModelInferRequest", "inference.GRPCInferenceService.ModelInfer", "grpc.health.v1.HealthCheckRequest"],
)
def test_symbols_within_are_found(symbol: str) -> None:
    assert len(files_in(answer(pb.ServerReflectionRequest(file_containing_symbol=symbol)))) == 1


@pytest.mark.parametrize(
    "request_of",
    [
        {"file_containing_symbol": "no.Such"},
        {"file_by_filename": "no/such.proto"},
        {"file_by_filename": "google/protobuf/descriptor.proto"},
        {"file_containing_symbol": "google.protobuf.FileDescriptorProto"},
    ],
)
def test_what_is_not_served_is_not_found(request_of: dict[str, str]) -> None:
    reply = answer(pb.ServerReflectionRequest(**request_of))
    assert (reply.error_response.error_code, reply.error_response.error_message) == (5, "not found")
    assert files_in(reply) == []


@pytest.mark.parametrize(
    "request_of",
    [
        {"all_extension_numbers_of_type": "inference.ModelInferRequest"},
        {"file_containing_extension": pb.ExtensionRequest(containing_type="a.B", extension_number=1)},
        {},
    ],
)
def test_extensions_are_not_served(request_of: dict[str, Any]) -> None:
    assert answer(pb.ServerReflectionRequest(**request_of)).error_response.error_code == 12


def test_both_versions_say_the_same_of_themselves() -> None:
    first, alpha = (
        files_in(answer(pb.ServerReflectionRequest(file_containing_symbol=path[1:].split("/")[0])))[0] for path in PATHS
    )
    assert first.name == "grpc/reflection/v1/reflection.proto"
    pool = DescriptorPool()
    pool.Add(first)  # its types are there
    method = pool.FindMethodByName("grpc.reflection.v1.ServerReflection.ServerReflectionInfo")
    assert method.input_type.full_name == "grpc.reflection.v1.ServerReflectionRequest"
    assert b"v1alpha" not in first.SerializeToString()
    assert [[(field.name, field.number) for field in message.field] for message in first.message_type] == [
        [(field.name, field.number) for field in message.field] for message in alpha.message_type
    ]


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_answers_each_message_and_ends_with_the_caller(fake_call: Any, path: str) -> None:
    call = fake_call()
    receive = reflection_methods().streams[path](call)
    for _ in range(2):
        receive(pb.ServerReflectionRequest(list_services="").SerializeToString())
    receive(None)
    assert len(call.sent) == 2
    assert call.answer is None
    with pytest.raises(InvalidInputError, match="the message is not a ServerReflectionRequest"):
        reflection_methods().streams[path](fake_call())(b"\xff")
