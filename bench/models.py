"""The models that are measured, built in each run: the same seeds give the same files.

They are laid out as DIR/NAME/1/model.onnx, which Penstock's `--model-repository` reads. A name such as `tabular-007` is a
copy of `tabular`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bench import strings

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

INPUT: Final = "input"
COLUMNS: Final = {"tabular": 30, "wide-10": 10, "wide-1000": 1000, "mlp": 256, "slow": 8}
"""The models that take one tensor, with the columns of a request's row."""
NAMES: Final = (*COLUMNS, *strings.PIPELINES)
"""All models."""

_MLP_LAYERS: Final = (256, 1024, 1024, 16)
_SLOW_SIDE: Final = 256
_SLOW_STEPS: Final = 24
_TRAINING_ROWS: Final = 2000
_OPSET: Final = 17
_SPLIT_COLUMNS: Final = 30  # columns that one split looks at; with all of a thousand, training takes a minute


def tabular(seed: int = 0, *, columns: int = COLUMNS["tabular"]) -> bytes:
    """Gradient boosting of 100 trees of depth 3: outputs `label` and `probabilities`."""
    rows = np.random.default_rng(seed).normal(size=(_TRAINING_ROWS, columns)).astype(np.float32)
    return boosted(rows, seed)


def boosted(rows: NDArray[np.float32], seed: int = 0) -> bytes:
    """Gradient boosting of 100 trees of depth 3, fitted to a noisy rule over the first four columns of these rows."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import GradientBoostingClassifier

    noise = np.random.default_rng([seed, 1]).normal(size=len(rows))
    score = rows[:, 0] + rows[:, 1] * rows[:, 2] - np.abs(rows[:, 3]) + noise
    most = min(_SPLIT_COLUMNS, rows.shape[1])
    trees = GradientBoostingClassifier(n_estimators=100, max_depth=3, max_features=most, random_state=seed)
    trees.fit(rows, score > score.mean())
    model = convert_sklearn(
        trees,
        name="tabular",  # skl2onnx would otherwise make up a name, another one each time
        initial_types=[(INPUT, FloatTensorType([None, rows.shape[1]]))],
        options={"zipmap": False},
        target_opset=_OPSET,
    )
    return bytes(model.SerializeToString())


def mlp(seed: int = 0, *, layers: Sequence[int] = _MLP_LAYERS) -> bytes:
    """A perceptron 256-1024-1024-16, or of other layers, with ReLU: output `scores`."""
    from onnx import helper, numpy_helper

    random = np.random.default_rng(seed)
    nodes, weights, value = [], [], INPUT
    for layer, (wide, narrow) in enumerate(pairwise(layers)):
        is_last = layer == len(layers) - 2
        matrix = (random.normal(size=(wide, narrow)) / np.sqrt(wide)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{layer}"))
        result = "scores" if is_last else f"sum{layer}"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [result]))
        value = result
        if not is_last:
            nodes.append(helper.make_node("Relu", [result], [f"relu{layer}"]))
            value = f"relu{layer}"
    return _serialized("mlp", nodes, weights, columns=layers[0], scores=layers[-1])


def slow(seed: int = 0) -> bytes:
    """About 20 ms per row: attention over 256 x 256 values, 24 times; output `scores` [N, 256]."""
    from onnx import helper, numpy_helper

    # It multiplies what it computes and not weights, so that the file stays small. Each step averages rows of the first
    # matrix, so that values stay in range and rounding is not magnified.
    matrix = np.random.default_rng(seed).normal(size=(COLUMNS["slow"], _SLOW_SIDE * _SLOW_SIDE)).astype(np.float32)
    weights = [
        numpy_helper.from_array(matrix, "spread"),
        numpy_helper.from_array(np.array([-1, _SLOW_SIDE, _SLOW_SIDE]), "square"),
    ]
    nodes = [
        helper.make_node("MatMul", [INPUT, "spread"], ["flat"]),
        helper.make_node("Reshape", ["flat", "square"], ["step0"]),
    ]
    for step in range(_SLOW_STEPS):
        nodes.append(helper.make_node("Softmax", [f"step{step}"], [f"shares{step}"], axis=-1))
        nodes.append(helper.make_node("MatMul", [f"shares{step}", "step0"], [f"step{step + 1}"]))
    nodes.append(helper.make_node("ReduceMean", [f"step{_SLOW_STEPS}"], ["scores"], axes=[2], keepdims=0))
    return _serialized("slow", nodes, weights, columns=COLUMNS["slow"], scores=_SLOW_SIDE)


def _serialized(
    name: str, nodes: "Sequence[NodeProto]", weights: "Sequence[TensorProto]", *, columns: int, scores: int
) -> bytes:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, scores])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


def _on_features(name: str) -> bytes:
    """Trees over the features of a pipeline."""
    return boosted(strings.encoded(strings.table(_TRAINING_ROWS, seed=0, model=name), name))


_MAKERS: Final[dict[str, Callable[[], bytes]]] = {
    "tabular": tabular,
    "wide-10": partial(tabular, columns=COLUMNS["wide-10"]),
    "wide-1000": partial(tabular, columns=COLUMNS["wide-1000"]),
    "mlp": mlp,
    "slow": slow,
    **{name: partial(_on_features, name) for name in strings.PIPELINES},
}


def copies(model: str, count: int) -> tuple[str, ...]:
    """The names of this many copies of a model; one copy is the model itself."""
    return (model,) if count == 1 else tuple(f"{model}-{number:03}" for number in range(count))


def kind(name: str) -> str:
    """The model that a name stands for: itself, or the one that it is a copy of."""
    return name if name in _MAKERS else name.rpartition("-")[0]


def write(repository: Path, names: set[str]) -> dict[str, Path]:
    """Writes the named models below a folder and returns each one's file."""
    files = {}
    made: dict[str, bytes] = {}
    for name in sorted(names):
        model = kind(name)
        made[model] = made.get(model) or _MAKERS[model]()
        files[name] = repository / name / "1" / "model.onnx"
        files[name].parent.mkdir(parents=True)
        files[name].write_bytes(made[model])
        if model in strings.PIPELINES:
            strings.describe(files[name].parent, model)
    return files


def sample(name: str, *, rows: int, seed: int = 1) -> NDArray[np.float32]:
    """Rows for a model of one tensor, as float32 [rows, columns]."""
    return np.random.default_rng(seed).normal(size=(rows, COLUMNS[name])).astype(np.float32)
