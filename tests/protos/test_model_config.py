"""Triton's model configuration has the same fields here as in its own client."""

from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2 as triton

from penstock import inference_pb2 as pb


def fields(message: Any) -> dict[str, Any]:
    """The numbers and types of all fields, and the numbers of all values, by their names."""
    found = {f"{message.name}.{each.name}": (each.number, each.type) for each in message.fields}
    for kind in message.enum_types:
        found |= {f"{message.name}.{kind.name}.{value.name}": value.number for value in kind.values}
    for nested in message.nested_types:
        found |= {f"{message.name}.{name}": value for name, value in fields(nested).items()}
    return found


@pytest.mark.parametrize("name", sorted(triton.DESCRIPTOR.message_types_by_name))
def test_every_message_is_tritons(name: str) -> None:
    assert fields(pb.__dict__[name].DESCRIPTOR) == fields(triton.DESCRIPTOR.message_types_by_name[name])


def test_every_datatype_is_tritons() -> None:
    assert dict(pb.DataType.items()) == dict(triton.DataType.items())
