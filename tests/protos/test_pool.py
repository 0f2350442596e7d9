import pickle

import pytest
from google.protobuf.descriptor_pool import Default, DescriptorPool

from penstock import inference_pb2, pool


def test_messages_live_in_a_pool_of_their_own() -> None:
    assert inference_pb2.ModelInferRequest.DESCRIPTOR.file.pool is pool.POOL
    assert pool.POOL is not Default()


def test_registering_gives_each_top_level_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "POOL", DescriptorPool())
    found = pool.register(inference_pb2.DESCRIPTOR.serialized_pb)
    assert set(found) == {"DESCRIPTOR", *inference_pb2.DESCRIPTOR.message_types_by_name}
    message = found["ModelInferRequest"](model_name="m")
    assert inference_pb2.ModelInferRequest.FromString(message.SerializeToString()).model_name == "m"


def test_a_message_can_be_pickled() -> None:
    message = inference_pb2.ModelInferRequest(model_name="m")
    assert type(message).__module__ == "penstock.inference_pb2"
    assert pickle.loads(pickle.dumps(message)) == message
