"""A descriptor pool of Penstock's own.

The messages of package `inference` are also registered by every other client of the protocol, and protobuf's default
pool refuses a second copy, whichever comes first. In a pool of its own this copy meets no other, so a process may
import `tritonclient` or `kserve` beside Penstock, in either order.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

POOL = descriptor_pool.DescriptorPool()


def register(serialized_file: bytes) -> Mapping[str, Any]:
    """The file's descriptor, under `DESCRIPTOR`, and its top-level message classes by name.

    Args:
        serialized_file: a serialized `FileDescriptorProto`, its imports registered before.
    """
    POOL.AddSerializedFile(serialized_file)
    name = descriptor_pb2.FileDescriptorProto.FromString(serialized_file).name
    descriptor = POOL.FindFileByName(name)
    classes = {
        message: message_factory.GetMessageClass(found) for message, found in descriptor.message_types_by_name.items()
    }
    for found in classes.values():
        # As protoc's own classes have it; without it, pickle looks for a message's class in every module there is.
        found.__module__ = name.removesuffix(".proto").replace("/", ".") + "_pb2"
    return {"DESCRIPTOR": descriptor, **classes}
