"""A descriptor pool of Penstock's own.

Every client of the protocol registers the messages of package `inference`, and protobuf's default pool refuses a second
copy. With a pool of its own, Penstock works in one process with `tritonclient` or `kserve`, imported in either order.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

POOL = descriptor_pool.DescriptorPool()


def register(serialized_file: bytes) -> Mapping[str, Any]:
    """The file's descriptor, under `DESCRIPTOR`, and its top-level message classes by name.

    Args:
        serialized_file: a serialized `FileDescriptorProto`, whose imports are registered already.
    """
    POOL.AddSerializedFile(serialized_file)
    name = descriptor_pb2.FileDescriptorProto.FromString(serialized_file).name
    descriptor = POOL.FindFileByName(name)
    classes = {
        message: message_factory.GetMessageClass(found) for message, found in descriptor.message_types_by_name.items()
    }
    for found in classes.values():
        # As in protoc's own classes; without it, pickle searches all modules for a message's class.
        found.__module__ = name.removesuffix(".proto").replace("/", ".") + "_pb2"
    return {"DESCRIPTOR": descriptor, **classes}
