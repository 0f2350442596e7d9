"""A descriptor pool of Penstock's own.

Every client of the protocol registers the messages of package `inference`, and protobuf's default pool refuses a second
copy. With a pool of its own, Penstock works in one process with `tritonclient` or `kserve`, imported in either order.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

POOL = descriptor_pool.DescriptorPool()
_CLASSES: Final[list[Any]] = []
"""Every message's class, the inner ones too. protobuf itself keeps them weakly: one that nobody holds is collected and made
anew, and a thread that gets it while the collector of another clears it crashes the process."""


def register(serialized_file: bytes) -> Mapping[str, Any]:
    """The file's descriptor, under `DESCRIPTOR`, and by name its top-level message classes and enums with their values.

    Args:
        serialized_file: a serialized `FileDescriptorProto`, whose imports are registered already.
    """
    POOL.AddSerializedFile(serialized_file)
    name = descriptor_pb2.FileDescriptorProto.FromString(serialized_file).name
    descriptor = POOL.FindFileByName(name)
    for found in _with_inner(descriptor.message_types_by_name.values()):
        message = message_factory.GetMessageClass(found)
        # As in protoc's own classes; without it, pickle searches all modules for a message's class.
        message.__module__ = name.removesuffix(".proto").replace("/", ".") + "_pb2"
        _CLASSES.append(message)
    classes = {
        message: message_factory.GetMessageClass(found) for message, found in descriptor.message_types_by_name.items()
    }
    enums = {enum: EnumTypeWrapper(found) for enum, found in descriptor.enum_types_by_name.items()}
    values = {name: value for enum in enums.values() for name, value in enum.items()}
    return {"DESCRIPTOR": descriptor, **classes, **enums, **values}


def _with_inner(descriptors: Iterable[Any]) -> Iterator[Any]:
    """Messages, and those that are declared in them, a map's entries included."""
    for descriptor in descriptors:
        yield descriptor
        yield from _with_inner(descriptor.nested_types)
