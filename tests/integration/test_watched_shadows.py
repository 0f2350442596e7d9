"""Shadows of plain ONNX models: what they are given is counted like what any version answers, by every way of asking.

And several of them at once, beside several canaries.
"""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from penstock_client import Client
from penstock_server.rollout.plan import Arm, TrafficPlan
from penstock_tools.publish import golden, onnx, onnx_graph
from penstock_tools.publish.promote import promote
from penstock_tools.publish.straight import straight

RNG = np.random.default_rng(0)
ROWS = 1500
MATRIX = pd.DataFrame(RNG.normal(size=(ROWS, 3)).astype("f4"), columns=["x", "y", "z"])
MOVED = MATRIX.assign(x=MATRIX["x"] + np.float32(2))


@pytest.fixture(scope="module")
def server(shared_registry: Any, start_shared: Any) -> Any:
    """Model `counted`, of which the shadow alone has a baseline, and `bare`, of which the champion alone has one.

    Model `many` has a champion, two canaries and two shadows.
    """
    model = to_onnx(LogisticRegression().fit(MATRIX, MATRIX["x"] > 0), MATRIX[:1].to_numpy(), options={"zipmap": False})
    graph = onnx_graph.read(model)
    features, rows = straight(graph, MATRIX, None)
    baseline = golden.fit_baseline(graph, features, {name: rows[name].to_numpy() for name in rows})
    watched = {"features": features, "baseline": baseline}
    for name, champion, shadow in (("counted", {}, watched), ("bare", watched, {})):
        onnx.publish(name, graph, registry=shared_registry.uri, alias="champion", **champion)
        onnx.publish(name, graph, registry=shared_registry.uri, alias="shadow", **shadow)
    for alias, weight in (("champion", None), ("canary", 20), ("canary-b", 30), ("shadow", None), ("shadow-b", None)):
        onnx.publish("many", graph, registry=shared_registry.uri, alias=alias, weight=weight)
    promote("many", 5, "shadow-b", sample=50, registry=shared_registry.uri)
    return start_shared("--registry", shared_registry.uri, "--workers", "1").wait_ready()


def ready(server: Any) -> bool:
    """All is loaded: what loads later has other requests take the general path for a moment, with its own view of repeats."""
    return [row["state"] for row in server.models()] == ["READY"] * 9


def test_a_shadow_beside_a_champion_without_baseline_sees_drift(server: Any, until: Any, penstock: Any) -> None:
    until(lambda: ready(server), "all versions are loaded")
    with Client(server.grpc, timeout_s=30) as client:

        def looked(count: int, looks: int) -> None:
            def has_looked() -> bool:
                (found,) = client.drift_state("counted", "@shadow").versions
                return found.rows >= count and found.looks >= looks

            until(has_looked, f"{count} rows are counted, and looked at {looks} times")

        for at in range(300):
            client.predict("counted", MOVED[at : at + 1].to_numpy())
        looked(300, 1)
        for looks, at in enumerate(range(300, ROWS, 300), 2):
            client.predict("counted", MOVED[at : at + 300].to_numpy())
            client.predict("counted", MOVED[at : at + 300].to_numpy())  # a retry, which is compared but not counted
            looked(at + 300, looks)
        assert client.drift_state("counted", "@shadow").versions[0].joint.rows > 0
        # It is asked by its number too, while it is a shadow.
        client.predict("counted", MOVED[:200], version="2")
        looked(ROWS + 200, looks + 1)
        (version,) = client.drift_state("counted", "@shadow").versions
    compared = ROWS + (ROWS - 300)
    until(
        lambda: server.total("penstock_shadow_comparisons_total", model_name="counted") == compared, "all are compared"
    )
    assert (version.version, version.rows, version.predictions.rows) == ("2", ROWS + 200, ROWS + 200)
    assert {column.name: column.drifted for column in version.columns} == {"x": True, "y": False, "z": False}
    assert version.predictions.drifted
    (found,) = json.loads(server.get("/v1/drift/counted?version=@shadow"))["versions"]
    assert (found["version"], found["roles"], found["rows"]) == ("2", ["shadow"], ROWS + 200)
    assert server.total("penstock_drift_window_rows", model_name="counted", model_version="2") == ROWS + 200
    assert server.total("penstock_shadow_dropped_total", model_name="counted") == 0
    # Only what it answered is in the count of answers.
    assert server.total("model_predictions_total", model_name="counted", model_version="2") == 200
    code, output, error = penstock(
        "drift", "counted", "--version", "@shadow", "--server", server.grpc, "--fail-on-drift"
    )
    assert (code, error) == (3, "")
    assert "drifts since" in output


def test_a_shadow_without_baseline_is_compared_with_a_counted_champion(server: Any, until: Any) -> None:
    until(lambda: ready(server), "all versions are loaded")
    with Client(server.grpc, timeout_s=30) as client:
        client.predict("bare", MATRIX[:70])
        client.predict("bare", MATRIX[70:100].to_numpy())
        until(
            lambda: server.total("penstock_shadow_comparisons_total", model_name="bare", result="agree") == 100,
            "all rows are compared",
        )
        assert client.drift_state("bare", "@champion").versions[0].rows == 100
    assert server.total("penstock_shadow_dropped_total", model_name="bare") == 0
    assert server.total("penstock_shadow_score_distance_sum", model_name="bare") == 0


def roles(server: Any) -> list[tuple[str, str, float | None, float | None, str]]:
    return [
        (row["version"], row["role"], row["weight"], row["sample"], row["state"])
        for row in server.models()
        if row["name"] == "many"
    ]


def test_canaries_share_the_keys_and_shadows_the_batches(server: Any, until: Any, shared_registry: Any) -> None:
    wanted = [
        ("1", "champion", None, None, "READY"),
        ("2", "canary", 20.0, None, "READY"),
        ("3", "canary", 30.0, None, "READY"),
        ("4", "shadow", None, 100.0, "READY"),
        ("5", "shadow", None, 50.0, "READY"),
    ]
    until(lambda: roles(server) == wanted, "every version has its role")
    keys = [f"customer-{number}" for number in range(200)]

    def versions(client: Client) -> list[str]:
        return [client.predict("many", MATRIX[:2].to_numpy(), routing_key=key).version for key in keys]

    def of(name: str, **labels: str) -> float:
        return float(server.total(name, model_name="many", **labels))

    with Client(server.grpc, timeout_s=30) as client:
        found = versions(client)
        plan = TrafficPlan("1", (Arm("2", 0.2), Arm("3", 0.3, "canary-b")))
        assert found == [plan.choose("many", key)[0] for key in keys]
        counts = {version: found.count(version) for version in "123"}
        assert min(counts.values()) > 10
        named = [client.predict("many", MATRIX[:2].to_numpy(), version=alias).version for alias in ("@canary-b", "3")]
        assert named == ["3", "3"]
        for version, count in counts.items():
            assert of("penstock_routed_requests_total", model_version=version) == count
            assert of("penstock_routed_latency_seconds_bucket", model_version=version, le="+Inf") == count
        assert of("penstock_requests_total", model_version="3") == counts["3"] + 2
        champions = 2 * counts["1"]

        def is_compared() -> bool:
            return of("penstock_shadow_comparisons_total", model_version="4", result="agree") == champions

        until(is_compared, "the first shadow has every row of the champion's")
        shadows = {each["version"]: each for each in reports(server)}
        every, some = shadows["4"], shadows["5"]
        assert (every["agreement"], every["sample"], every["dropped"]["sampled_out"]) == (1.0, 100.0, 0)
        assert sum(pair["rows"] for pair in every["classes"]) == champions
        assert all(pair["champion"] == pair["shadow"] for pair in every["classes"])
        assert sum(cell["count"] for cell in every["time_ratios"]) > 0
        assert some["sample"] == 50.0
        assert 0 < some["rows"]["agree"] < champions
        # Both are drawn for the batches of the champion alone, and the first takes each: so each is told of at once.
        until(lambda: _told(server, "5") == champions, "each row is compared or left out")

        promote("many", 2, "canary", 50, registry=shared_registry.uri)
        until(lambda: ("2", "canary", 50.0, None, "READY") in roles(server), "the canary has grown")
        after = versions(client)
        moved = [(before, now) for before, now in zip(found, after, strict=True) if before != now]
        assert set(moved) == {("1", "2")}


def reports(server: Any) -> list[dict[str, Any]]:
    return [each for each in json.loads(server.get("/v1/shadows"))["shadows"] if each["model"] == "many"]


def _told(server: Any, version: str) -> int:
    """The rows of a shadow that were compared or left out."""
    (found,) = [each for each in reports(server) if each["version"] == version]
    return int(found["rows"]["agree"] + found["dropped"]["sampled_out"])
