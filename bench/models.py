"""The models that are measured, made anew in each run: the same seeds give the same files.

Lays them out as DIR/NAME/1/model.onnx, the form that Penstock's `--model-repository` reads. Called by `__main__` and
`promotions`.
"""

from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

INPUT: Final = "input"
COLUMNS: Final = {"tabular": 30, "mlp": 256}
"""The models there are, with the columns of a request's row."""

_MLP_LAYERS: Final = (256, 1024, 1024, 16)
_TRAINING_ROWS: Final = 2000
_OPSET: Final = 17


def tabular(seed: int = 0) -> bytes:
    """Gradient boosting of 100 trees of depth 3 over 30 columns: outputs `label` and `probabilities`."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import GradientBoostingClassifier

    random = np.random.default_rng(seed)
    rows = random.normal(size=(_TRAINING_ROWS, COLUMNS["tabular"])).astype(np.float32)
    score = rows[:, 0] + rows[:, 1] * rows[:, 2] - np.abs(rows[:, 3]) + random.normal(size=_TRAINING_ROWS)
    trees = GradientBoostingClassifier(n_estimators=100, max_depth=3, random_state=seed)
    trees.fit(rows, score > score.mean())
    model = convert_sklearn(
        trees,
        name="tabular",  # a made-up name would differ each time
        initial_types=[(INPUT, FloatTensorType([None, COLUMNS["tabular"]]))],
        options={"zipmap": False},
        target_opset=_OPSET,
    )
    return bytes(model.SerializeToString())


def mlp(seed: int = 0) -> bytes:
    """A perceptron 256-1024-1024-16 with ReLU: output `scores`."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    nodes, weights, value = [], [], INPUT
    for layer, (wide, narrow) in enumerate(pairwise(_MLP_LAYERS)):
        is_last = layer == len(_MLP_LAYERS) - 2
        matrix = (random.normal(size=(wide, narrow)) / np.sqrt(wide)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{layer}"))
        result = "scores" if is_last else f"sum{layer}"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [result]))
        value = result
        if not is_last:
            nodes.append(helper.make_node("Relu", [result], [f"relu{layer}"]))
            value = f"relu{layer}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, _MLP_LAYERS[0]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, _MLP_LAYERS[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


_MAKERS: Final = {"tabular": tabular, "mlp": mlp}


def write(repository: Path, names: set[str]) -> dict[str, Path]:
    """Writes the named models below a folder and returns each one's file."""
    files = {}
    for name in sorted(names):
        files[name] = repository / name / "1" / "model.onnx"
        files[name].parent.mkdir(parents=True)
        files[name].write_bytes(_MAKERS[name]())
    return files


def sample(name: str, *, rows: int, seed: int = 1) -> NDArray[np.float32]:
    """Rows that a model takes, as float32 [rows, columns]."""
    return np.random.default_rng(seed).normal(size=(rows, COLUMNS[name])).astype(np.float32)
