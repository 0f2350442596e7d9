"""A server that runs a graph as kernels beside one that leaves it to onnxruntime: only the index tells them apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from tests.integration.test_plain_requests import INFER, TIMEOUT_S, asked
from tests.server.prediction.plain_world import without_times

ROWS = (1, 2, 3, 8, 64, 300)


def boosted() -> tuple[bytes, Any]:
    """Trees over six columns with NaN as skl2onnx converts them, and rows for them."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows = np.random.default_rng(0).normal(size=(1000, 6)).astype(np.float32)
    rows[np.random.default_rng(1).random(rows.shape) < 0.1] = np.nan
    labels = np.where(np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 1]) > 0, "yes", "no")
    trees = HistGradientBoostingClassifier(max_iter=30).fit(rows, labels)
    model = to_onnx(trees, rows[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3})
    return bytes(model.SerializeToString()), rows


@pytest.fixture(scope="module")
def servers(
    start_shared: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, put_version: Callable[..., Path]
) -> tuple[Any, Any, Any]:
    repository = tmp_path_factory.mktemp("repository")
    content, rows = boosted()
    put_version(repository, "trees", "1", content)
    file = tmp_path_factory.mktemp("settings") / "without.toml"
    file.write_text("[serving]\ncompiled_models = false\n")
    compiled = start_shared("--model-repository", str(repository))
    without = start_shared("--model-repository", str(repository), "--config", str(file))
    return compiled.wait_ready(), without.wait_ready(), rows


def engine(server: Any) -> str:
    (row,) = json.loads(server.get("/v1/models"))["models"]
    return str(row["engine"])


def test_the_index_says_what_runs_a_graph_and_why(servers: tuple[Any, Any, Any]) -> None:
    compiled, without, _ = servers
    assert engine(compiled).startswith("kernels")
    assert "times as fast as onnxruntime for 1 / 8 / 64 / 1,024 rows" in engine(compiled)
    assert "30 trees of up to 31 leaves" in engine(compiled)
    assert engine(without) == "onnxruntime: the settings say serving.compiled_models = false"


def test_replies_are_the_same_to_the_byte(servers: tuple[Any, Any, Any]) -> None:
    compiled, without, rows = servers
    for count in ROWS:
        request: pb.ModelInferRequest = asked("trees", {"X": rows[:count]}, id=f"{count} rows")
        replies = []
        for server in (compiled, without):
            with grpc.insecure_channel(server.grpc) as channel:
                method = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
                replies.append(without_times(method(request.SerializeToString(), timeout=TIMEOUT_S)))
        assert replies[0] == replies[1], count
