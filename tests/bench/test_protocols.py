import json

import pytest

from bench import inference, models, protocols
from bench.load.plan import LoadPlan

PLAN = LoadPlan("127.0.0.1:1", inference.METHOD, (b"x",), connections=4, streams=8)


@pytest.mark.parametrize("each", [protocols.GRPC, protocols.JSON])
def test_all_protocols_call_the_copies_in_turn(each) -> None:
    sent = each.messages("mlp", rows=1, copies=100)
    assert len(sent) == 100
    assert all(name.encode() in message for name, message in zip(models.copies("mlp", 100), sent, strict=True))


def test_json_carries_the_rows_of_the_tensor() -> None:
    body = json.loads(protocols.JSON.messages("tabular", rows=2, copies=1)[0])
    assert body["rows"] == inference.tensors("tabular", 2)[0].tolist()
    with pytest.raises(ValueError, match="no string columns"):
        protocols.JSON.messages("strings", rows=1, copies=1)


def test_a_stream_becomes_a_connection_over_http() -> None:
    plan = protocols.JSON.adapt(PLAN)
    assert (plan.connections, plan.streams, plan.is_http1) == (32, 1, True)
    assert protocols.GRPC.adapt(PLAN) is PLAN
