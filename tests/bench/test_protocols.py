import http.client
import json

import pytest

from bench import inference, models
from bench import protocols as wire
from bench.load import generator
from bench.load.plan import LoadPlan
from bench.rounds import open_plan
from bench.servers.measured import CONTESTANTS, ServerProcess

PLAN = LoadPlan("127.0.0.1:1", inference.METHOD, (b"x",), connections=4, streams=8)


@pytest.mark.parametrize("each", [wire.GRPC, wire.JSON])
def test_all_wires_ask_the_copies_in_turn(each) -> None:
    sent = each.messages("mlp", rows=1, copies=100)
    assert len(sent) == 100
    assert all(name.encode() in message for name, message in zip(models.copies("mlp", 100), sent, strict=True))


def test_json_carries_the_rows_of_the_tensor() -> None:
    body = json.loads(wire.JSON.messages("tabular", rows=2, copies=1)[0])
    assert body["rows"] == inference.tensors("tabular", 2)[0].tolist()
    with pytest.raises(ValueError, match="no string columns"):
        wire.JSON.messages("strings", rows=1, copies=1)


def test_a_stream_becomes_a_connection_over_http() -> None:
    plan = wire.JSON.adapt(PLAN)
    assert (plan.connections, plan.streams, plan.is_http1) == (32, 1, True)
    assert open_plan(plan, 100.0).streams == 1
    assert open_plan(PLAN, 100.0).streams > PLAN.streams
    assert wire.GRPC.adapt(PLAN) is PLAN


@pytest.mark.slow
def test_fastapi_answers_what_the_model_says_under_load(tmp_path) -> None:
    files = models.write(tmp_path, {"mlp"})
    sent = wire.JSON.messages("mlp", rows=1, copies=1)
    with ServerProcess(CONTESTANTS["fastapi"].command(tmp_path, files), protocol="http") as server:
        outputs = inference.expected(files["mlp"], "mlp", rows=1)
        wire.JSON.check(server.address, sent, outputs, 60)
        wrong = [{"scores": each["scores"] + 1} for each in outputs]
        with pytest.raises(inference.WrongAnswerError, match="'scores' differs"):
            wire.JSON.check(server.address, sent, wrong, 60)
        plan = LoadPlan(
            server.address, inference.METHOD, sent, connections=2, streams=2, max_requests=40, duration_s=30
        )
        result = generator.run(wire.JSON.adapt(plan))
        assert (result.succeeded, result.failures) == (40, {})
        connection = http.client.HTTPConnection(server.address, timeout=10)
        connection.request("POST", "/infer", b'{"model": "other", "rows": []}', {"content-type": "application/json"})
        assert connection.getresponse().status == 404
        connection.close()
