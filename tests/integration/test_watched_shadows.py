"""Shadows of plain ONNX models: what they are given is counted like what any version answers, by every way of asking."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from penstock_client import Client
from penstock_tools.publish import golden, onnx, onnx_graph
from penstock_tools.publish.straight import straight

RNG = np.random.default_rng(0)
ROWS = 1500
MATRIX = pd.DataFrame(RNG.normal(size=(ROWS, 3)).astype("f4"), columns=["x", "y", "z"])
MOVED = MATRIX.assign(x=MATRIX["x"] + np.float32(2))


@pytest.fixture(scope="module")
def server(shared_registry: Any, start_shared: Any) -> Any:
    """Model `counted`, of which the shadow alone has a baseline, and `bare`, of which the champion alone has one."""
    model = to_onnx(LogisticRegression().fit(MATRIX, MATRIX["x"] > 0), MATRIX[:1].to_numpy(), options={"zipmap": False})
    graph = onnx_graph.read(model)
    features, rows = straight(graph, MATRIX, None)
    baseline = golden.fit_baseline(graph, features, {name: rows[name].to_numpy() for name in rows})
    watched = {"features": features, "baseline": baseline}
    for name, champion, shadow in (("counted", {}, watched), ("bare", watched, {})):
        onnx.publish(name, graph, registry=shared_registry.uri, alias="champion", **champion)
        onnx.publish(name, graph, registry=shared_registry.uri, alias="shadow", **shadow)
    return start_shared("--registry", shared_registry.uri, "--workers", "1").wait_ready()


def ready(server: Any, model: str) -> bool:
    return [row["state"] for row in server.models() if row["name"] == model] == ["READY", "READY"]


def test_a_shadow_beside_a_champion_without_baseline_sees_drift(server: Any, until: Any, penstock: Any) -> None:
    until(lambda: ready(server, "counted"), "the shadow is loaded")
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
    until(lambda: ready(server, "bare"), "the shadow is loaded")
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
