"""Graphs for the tests of compiled models: trees that are made up, and sessions of onnxruntime beside programs of them."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock_server.compiled_models import graph, layout
from penstock_server.compiled_models.program import Given, ModelProgram, Vectors, compile_graph
from penstock_server.kernels.processor import this_processor

ML = "ai.onnx.ml"
TREES_OF_TWO: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 0, 0, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
    "nodes_featureids": [0, 1, 0, 0, 0, 1, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.5, -1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0],
    "nodes_truenodeids": [1, 3, 0, 0, 0, 1, 0, 0],
    "nodes_falsenodeids": [2, 4, 0, 0, 0, 2, 0, 0],
    "target_treeids": [0, 0, 0, 1, 1],
    "target_nodeids": [2, 3, 4, 1, 2],
    "target_ids": [0, 0, 0, 0, 0],
    "target_weights": [1.0, 0.1, -0.3, 0.7, 5.0],
    "n_targets": 1,
}
"""Two trees, of three leaves and of two, over two columns."""


def model_of(
    nodes: Sequence[Any],
    outputs: Sequence[str],
    *,
    columns: int = 2,
    dtype: Any = np.float32,
    constants: Mapping[str, NDArray[Any]] | None = None,
    gives: Mapping[str, int] | None = None,
) -> bytes:
    """An ONNX file with an input `x` [rows, columns]; `gives` are element types of outputs that are no float32."""
    from onnx import TensorProto, helper, numpy_helper

    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kinds[np.dtype(dtype)], [None, columns])],
        [helper.make_tensor_value_info(name, (gives or {}).get(name, TensorProto.FLOAT), None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [
        helper.make_opsetid("", 18),
        helper.make_opsetid(ML, 5 if any(n.op_type == "TreeEnsemble" for n in nodes) else 3),
    ]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString())


def node(kind: str, takes: Sequence[str], gives: Sequence[str], *, domain: str = "", **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, list(takes), list(gives), domain=domain, **attributes)


def regressor(attributes: Mapping[str, Any] = TREES_OF_TWO, **options: Any) -> bytes:
    """A graph of one TreeEnsembleRegressor."""
    return model_of([node("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, **attributes)], ["y"], **options)


def session(content: bytes) -> Any:
    """onnxruntime as the server runs it: in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@cache
def knows_positive_votes() -> bool:
    """Whether this onnxruntime tells two classes whose votes are all positive from others: 1.27 does not, 1.32 does."""
    leaf: dict[str, Any] = {name: [0] for name in TREES_OF_TWO if name.startswith("nodes_")} | {"nodes_modes": ["LEAF"]}
    leaf |= {
        "nodes_values": [0.0],
        "class_treeids": [0],
        "class_nodeids": [0],
        "class_ids": [0],
        "class_weights": [0.25],
    }
    trees = node("TreeEnsembleClassifier", ["x"], ["l", "p"], domain=ML, classlabels_int64s=[0, 1], **leaf)
    made = session(model_of([trees], ["l", "p"], gives={"l": 7}))
    return bool(made.run(None, {"x": np.zeros((1, 2), np.float32)})[1][0, 0] == 0.75)


def compiled(content: bytes, *, columns: int = 2, dtype: Any = np.float32, name: str = "x") -> ModelProgram:
    kind = layout.SINGLE if np.dtype(dtype) == np.float32 else layout.DOUBLE
    return compile_graph(graph.read(content), Given(name, columns, kind), Vectors.of(this_processor().flags))


@st.composite
def ensembles(draw: st.DrawFn, *, columns: int = 3) -> dict[str, Any]:
    """Attributes of random trees: of any shape, comparing few numbers in all ways but for equality."""
    mode = draw(st.sampled_from(["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"]))
    outputs = draw(st.integers(1, 4))
    bounds = st.sampled_from([0.0, -0.0, 0.5, -1.0, 3.5, 1e-45, float("inf"), float("-inf")])
    values = st.floats(-10, 10, width=32)
    made: dict[str, Any] = {name: [] for name in TREES_OF_TWO if name != "n_targets"}
    missing = []
    for tree in range(draw(st.integers(1, 9))):
        most = draw(st.sampled_from([0, 1, 3, 8, 40, 90]))
        only = draw(st.one_of(st.none(), st.integers(0, outputs - 1)))
        waiting, count, splits = [0], 1, 0
        while waiting:
            at = waiting.pop(draw(st.integers(0, len(waiting) - 1)) if len(waiting) > 1 else 0)
            is_leaf = splits >= most
            made["nodes_treeids"].append(tree)
            made["nodes_nodeids"].append(at)
            made["nodes_featureids"].append(0 if is_leaf else draw(st.integers(0, columns - 1)))
            made["nodes_modes"].append("LEAF" if is_leaf else mode)
            made["nodes_values"].append(0.0 if is_leaf else draw(bounds))
            made["nodes_truenodeids"].append(0 if is_leaf else count)
            made["nodes_falsenodeids"].append(0 if is_leaf else count + 1)
            missing.append(0 if is_leaf else draw(st.integers(0, 1)))
            if is_leaf:
                for output in [only] if only is not None else range(outputs):
                    made["target_treeids"].append(tree)
                    made["target_nodeids"].append(at)
                    made["target_ids"].append(output)
                    made["target_weights"].append(draw(values))
            else:
                splits += 1
                waiting += [count, count + 1]
                count += 2
    if draw(st.booleans()):
        made["nodes_missing_value_tracks_true"] = missing
    if draw(st.booleans()):
        made["base_values"] = [draw(values) for _ in range(outputs)]
    if draw(st.booleans()):
        made["aggregate_function"] = "AVERAGE"
    return {**made, "n_targets": outputs}


def rows_for(columns: int, count: int, dtype: Any = np.float32, *, seed: int = 0) -> NDArray[Any]:
    """Rows that meet bounds, and hold NaN and infinities."""
    random = np.random.default_rng(seed)
    specials = np.array(
        [0.0, -0.0, 0.5, -1.0, 3.5, 1e-45, np.nan, np.inf, -np.inf, np.nextafter(np.float32(0.5), 1)], dtype
    )
    plain = random.standard_normal((count, columns)).astype(dtype)
    return np.where(random.random(plain.shape) < 0.6, random.choice(specials, plain.shape), plain)
