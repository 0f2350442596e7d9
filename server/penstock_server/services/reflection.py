"""Server reflection: grpcurl and similar tools can list and call what is served without the .proto files.

grpcio has v1alpha alone. v1 is the same file in another package, so its description is made of the other's.

Source: grpc/reflection/v1/reflection.proto.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool
from grpc_health.v1 import health_pb2 as _health  # noqa: F401 - registers its file in the default pool
from grpc_reflection.v1alpha import reflection_pb2 as pb

from penstock import penstock_pb2 as _control  # noqa: F401 - registers its file in our pool
from penstock.inference_pb2 import DESCRIPTOR
from penstock.names import CONTROL_SERVICE, HEALTH_SERVICE, INFERENCE_SERVICE, REFLECTION_SERVICES
from penstock.pool import POOL
from penstock_server.call import Call
from penstock_server.parse import parse_small
from penstock_server.transport.interface import Methods, StreamReceiver

SERVICES: Final = (INFERENCE_SERVICE, CONTROL_SERVICE, HEALTH_SERVICE, *REFLECTION_SERVICES)
_NOT_FOUND: Final = 5
_UNIMPLEMENTED: Final = 12


def reflection_methods() -> Methods:
    return Methods({}, dict.fromkeys((f"/{name}/ServerReflectionInfo" for name in REFLECTION_SERVICES), _reflect))


def _reflect(call: Call) -> StreamReceiver:
    def receive(message: bytes | None) -> None:
        if message is None:
            call.finish()
            return
        request = parse_small(pb.ServerReflectionRequest, message, "grpc.reflection")
        call.send(answer(request).SerializeToString())

    return receive


def _as_v1(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """The description of v1."""
    alpha_package, package = (name.rpartition(".")[0] for name in reversed(REFLECTION_SERVICES))
    file = FileDescriptorProto()
    file.CopyFrom(alpha)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", package
    for field in (field for message in file.message_type for field in message.field if field.type_name):
        field.type_name = field.type_name.replace(f".{alpha_package}.", f".{package}.")
    for method in (method for service in file.service for method in service.method):
        method.input_type = method.input_type.replace(f".{alpha_package}.", f".{package}.")
        method.output_type = method.output_type.replace(f".{alpha_package}.", f".{package}.")
    return file


POOL.AddSerializedFile(_as_v1(FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)).SerializeToString())


def answer(request: Any) -> Any:
    reply = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
    kind = request.WhichOneof("message_request")
    if kind == "list_services":
        reply.list_services_response.service.extend(pb.ServiceResponse(name=name) for name in SERVICES)
    elif kind == "file_by_filename":
        _add_file(reply, lambda pool: pool.FindFileByName(request.file_by_filename))
    elif kind == "file_containing_symbol":
        _add_file(reply, lambda pool: _file_of(pool, request.file_containing_symbol))
    else:
        reply.error_response.error_code = _UNIMPLEMENTED
        reply.error_response.error_message = f"{kind} is not served; there are no extensions in proto3"
    return reply


def _add_file(reply: Any, find: Callable[[DescriptorPool], Any]) -> None:
    for pool in (POOL, Default()):
        try:
            found = find(pool)
        except KeyError:
            continue
        # Only what is served: other packages of this process also register files in the default pool.
        if found.name == DESCRIPTOR.name or any(name in SERVICES for name in _service_names(found)):
            reply.file_descriptor_response.file_descriptor_proto.append(found.serialized_pb)
            return
    reply.error_response.error_code = _NOT_FOUND
    reply.error_response.error_message = "not found"


def _file_of(pool: DescriptorPool, symbol: str) -> Any:
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:
        # The protocol's symbols are methods too, which the pool keeps apart.
        return pool.FindMethodByName(symbol).containing_service.file


def _service_names(file: Any) -> list[str]:
    return [service.full_name for service in file.services_by_name.values()]
