"""A real server of two workers tells failures by key, and compares a shadow by request, whichever worker gets what."""

from typing import Any

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_client import Client
from penstock_server.rollout.plan import Arm, TrafficPlan

pytestmark = pytest.mark.slow

KEYS = [f"customer-{number}" for number in range(10)]


@pytest.fixture(scope="module")
def server(shared_registry: Any, start_shared: Any, flag_model: bytes, opposite_model: bytes) -> Any:
    shared_registry.publish("drawn", flag_model, alias="champion")
    shared_registry.publish("drawn", flag_model, alias="canary", weight=30)
    shared_registry.publish("shadowed", flag_model, alias="champion")
    shared_registry.publish("shadowed", opposite_model, alias="shadow")
    return start_shared("--registry", shared_registry.uri, "--workers", "2").wait_ready()


def test_a_client_that_fails_over_and_over_is_one_draw(server: Any, until: Any) -> None:
    until(lambda: [row["state"] for row in server.models()] == ["READY"] * 4, "all versions are loaded")
    plan = TrafficPlan("1", (Arm("2", 0.3),))
    version_of = {key: plan.choose("drawn", key)[0] for key in KEYS}

    def fail(channel: grpc.Channel, key: str, version: str = "") -> None:
        request = pb.ModelInferRequest(model_name="drawn", model_version=version)
        request.parameters["routing_key"].string_param = key
        request.inputs.add(name="X", datatype="FP32", shape=[1, 7])
        request.raw_input_contents.append(bytes(28))
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(request.SerializeToString(), timeout=30)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    # Each channel has a connection of its own, to either worker.
    for _ in range(4):
        with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            for key in KEYS + [KEYS[0]] * 10:
                fail(channel, key)
            fail(channel, KEYS[0], version="2")
    failed = {version: sum(version_of[key] == version for key in KEYS) for version in "12"}
    assert min(failed.values()) > 0

    def counted(which: str, version: str) -> float:
        found: float = server.total(
            "penstock_routed_key_failures_total", model_name="drawn", model_version=version, which=which
        )
        return found

    broken = version_of[KEYS[0]]
    until(lambda: server.total("penstock_routed_failures_total", model_name="drawn") == 80, "all failures are counted")
    for version, keys in failed.items():
        assert counted("first", version) == counted("fourth", version) == keys
        others = keys - (version == broken)
        assert counted("counted", version) == 4 * others + 32 * (version == broken)


def test_the_rows_of_a_request_are_compared_as_one(server: Any, until: Any) -> None:
    until(lambda: [row["state"] for row in server.models()] == ["READY"] * 4, "all versions are loaded")
    with Client(server.grpc, timeout_s=30) as client:
        for rows in (8, 1, 3):
            client.predict("shadowed", np.ones((rows, 2), np.float32))

    def of(name: str, **labels: str) -> float:
        found: float = server.total(name, model_name="shadowed", model_version="2", **labels)
        return found

    until(lambda: of("penstock_shadow_comparisons_total", result="disagree") == 12, "all rows are compared")
    until(lambda: of("penstock_shadow_request_differing_ratio_bucket", le="+Inf") == 3, "each request counts once")
    assert of("penstock_shadow_request_differing_ratio_bucket", le="0.999") == 0
    assert of("penstock_shadow_request_score_distance_bucket", le="+Inf") == 3
