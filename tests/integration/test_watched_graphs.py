"""Plain ONNX models that were published with a sample: a server counts what they are asked, by every way of asking."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from penstock_client import Client
from penstock_server.models import artifact
from penstock_tools.publish import golden, onnx_graph
from penstock_tools.publish.beside import beside
from penstock_tools.publish.holdout import HeldRows
from penstock_tools.publish.straight import straight

RNG = np.random.default_rng(0)
ROWS = 2000
FRAME = pd.DataFrame({"n": RNG.normal(size=ROWS).astype("f4"), "s": RNG.choice(["a", "b", "c"], ROWS).astype(object)})
MATRIX = pd.DataFrame(RNG.normal(size=(ROWS, 3)).astype("f4"), columns=["x", "y", "z"])


def put_matrix(repository: Path, put_version: Callable[..., Path]) -> None:
    model = to_onnx(LogisticRegression().fit(MATRIX, MATRIX["x"] > 0), MATRIX[:1].to_numpy(), options={"zipmap": False})
    graph = onnx_graph.read(model)
    pipeline, rows = straight(graph, MATRIX, None)
    table = {name: rows[name].to_numpy() for name in rows}
    baseline = golden.fit_baseline(graph, pipeline, table, held=HeldRows(table, (MATRIX["x"] > 0).to_numpy()))
    artifact.write(
        put_version(repository, "matrix", "1", model.SerializeToString()), features=pipeline.spec, baseline=baseline
    )


def put_mixed(repository: Path, put_version: Callable[..., Path]) -> None:
    columns = make_column_transformer((OneHotEncoder(), ["s"]), remainder="passthrough")
    fitted = make_pipeline(columns, LogisticRegression()).fit(FRAME, FRAME["n"] > 0)
    types = [("n", FloatTensorType([None, 1])), ("s", StringTensorType([None, 1]))]
    model = to_onnx(fitted, initial_types=types, target_opset=17, options={"zipmap": False})
    graph = onnx_graph.read(model)
    given = beside(graph, FRAME)
    baseline = golden.counted(graph, given.features, given.table, graph.runtime.run(dict(given.inputs)))
    folder = put_version(repository, "mixed", "1", model.SerializeToString())
    artifact.write(folder, features=given.features, baseline=baseline)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, put_version: Any, start_shared: Any) -> Any:
    repository = tmp_path_factory.mktemp("repository")
    put_matrix(repository, put_version)
    put_mixed(repository, put_version)
    return start_shared("--model-repository", str(repository)).wait_ready()


def counted(client: Client) -> None:
    """Waits until all that the client was answered is counted: a batch is after its answers, and before what comes next."""
    assert client.is_live()


@pytest.mark.parametrize(("model", "frame"), [("matrix", MATRIX), ("mixed", FRAME)])
def test_rows_are_counted_and_drift_is_seen(server: Any, model: str, frame: pd.DataFrame) -> None:
    moved = frame.assign(**{frame.columns[0]: frame[frame.columns[0]] + np.float32(2)})
    with Client(server.grpc, timeout_s=30) as client:
        # Those of one row take the way of requests that are like one before.
        for at in range(200):
            client.predict(model, moved[at : at + 1])
        for at in range(200, ROWS, 300):
            client.predict(model, moved[at : at + 300])
        counted(client)
    (version,) = json.loads(server.get(f"/v1/drift/{model}"))["versions"]
    assert version["rows"] == ROWS
    found = {column["name"]: column for column in version["columns"]}
    assert list(found) == list(frame.columns)
    assert {name for name, column in found.items() if column["drifted"]} == {frame.columns[0]}
    assert all(column["rows"] == ROWS for column in found.values())
    assert version["predictions"]["drifted"]
    (confidence,) = version["answers"]
    assert (confidence["name"], confidence["rows"]) == ("confidence", ROWS)
    scores = server.samples("penstock_answer_drift_score")
    assert any(dict(labels) | {"model_name": model, "answer_name": "confidence"} == dict(labels) for labels in scores)


def test_the_whole_matrix_is_taken_too(server: Any) -> None:
    before = json.loads(server.get("/v1/drift/matrix"))["versions"][0]["rows"]
    with Client(server.grpc, timeout_s=30) as client:
        by_column = client.predict("matrix", MATRIX[:28])
        by_matrix = [client.predict("matrix", MATRIX[at : at + 7].to_numpy()) for at in range(0, 28, 7)]
        counted(client)
    for name, values in by_column.outputs.items():
        np.testing.assert_array_equal(values, np.concatenate([part.outputs[name] for part in by_matrix]))
    assert json.loads(server.get("/v1/drift/matrix"))["versions"][0]["rows"] == before + 56


@pytest.mark.parametrize(("model", "frame"), [("matrix", MATRIX), ("mixed", FRAME)])
def test_of_a_large_request_some_rows_are_counted_and_all_answers(server: Any, model: str, frame: pd.DataFrame) -> None:
    (before,) = json.loads(server.get(f"/v1/drift/{model}"))["versions"]
    with Client(server.grpc, timeout_s=30) as client:
        client.predict(model, pd.concat([frame] * 2, ignore_index=True))
        counted(client)
    (version,) = json.loads(server.get(f"/v1/drift/{model}"))["versions"]
    assert 1000 <= version["rows"] - before["rows"] < 4000
    assert {column["rows"] for column in version["columns"]} == {version["rows"]}
    assert version["predictions"]["rows"] - before["predictions"]["rows"] == 4000


def test_the_accuracy_is_expected_of_what_was_asked(server: Any) -> None:
    with Client(server.grpc, timeout_s=30) as client:
        for at in range(0, 400, 40):
            client.predict("matrix", MATRIX[at : at + 40])
        counted(client)
    (version,) = json.loads(server.get("/v1/drift/matrix"))["versions"]
    expected = version["expected_accuracy"]
    assert expected["reference_rows"] == ROWS
    assert expected["low"] <= expected["value"] <= expected["high"] <= 1
    (value,) = server.samples("penstock_expected_accuracy").values()
    assert 0.9 < value <= 1
