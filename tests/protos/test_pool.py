import gc
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import Default, DescriptorPool

from penstock import inference_pb2, pool


def test_messages_live_in_a_pool_of_their_own() -> None:
    assert inference_pb2.ModelInferRequest.DESCRIPTOR.file.pool is pool.POOL
    assert pool.POOL is not Default()


def test_registering_gives_each_top_level_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "POOL", DescriptorPool())
    found = pool.register(inference_pb2.DESCRIPTOR.serialized_pb)
    messages, enums = (getattr(inference_pb2.DESCRIPTOR, f"{kind}_types_by_name") for kind in ("message", "enum"))
    values = {value.name for enum in enums.values() for value in enum.values}
    assert set(found) == {"DESCRIPTOR", *messages, *enums, *values}
    assert found["DataType"].Value("TYPE_FP32") == found["TYPE_FP32"] == 11
    message = found["ModelInferRequest"](model_name="m")
    assert inference_pb2.ModelInferRequest.FromString(message.SerializeToString()).model_name == "m"


def test_a_message_can_be_pickled() -> None:
    message = inference_pb2.ModelInferRequest(model_name="m")
    assert type(message).__module__ == "penstock.inference_pb2"
    assert pickle.loads(pickle.dumps(message)) == message


def _inner(descriptor: Any) -> Iterator[Any]:
    for nested in descriptor.nested_types:
        yield nested
        yield from _inner(nested)


def test_no_message_class_is_ever_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that is collected while another thread makes a message of it crashes protobuf."""
    monkeypatch.setattr(pool, "POOL", DescriptorPool())
    registered = pool.register(inference_pb2.DESCRIPTOR.serialized_pb)
    classes = {
        nested.full_name: weakref.ref(message_factory.GetMessageClass(nested))
        for top in registered["DESCRIPTOR"].message_types_by_name.values()
        for nested in _inner(top)
    }
    assert "inference.ModelInferRequest.InferInputTensor" in classes
    gc.collect()
    assert [name for name, kept in classes.items() if kept() is None] == []
