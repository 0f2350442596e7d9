"""The models that are measured, made anew in each run: the same seeds give the same files.

Lays them out as DIR/NAME/1/model.onnx, the form that Penstock's `--model-repository` reads. A name such as `tabular-007`
is a copy of `tabular`. Called by `session`, `inference` and `promotions`.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench import slow, strings

INPUT: Final = "input"
COLUMNS: Final = {"tabular": 30, "wide-10": 10, "wide-1000": 1000, "mlp": 256, slow.NAME: slow.COLUMNS}
"""The models that take one tensor, with the columns of a request's row."""
NAMES: Final = (*COLUMNS, strings.NAME)
"""All models."""

_MLP_LAYERS: Final = (256, 1024, 1024, 16)
_TRAINING_ROWS: Final = 2000
_OPSET: Final = 17
_SPLIT_COLUMNS: Final = 30  # a split looks at no more, or a thousand columns would train for a minute


def tabular(seed: int = 0, *, columns: int = COLUMNS["tabular"]) -> bytes:
    """Gradient boosting of 100 trees of depth 3: outputs `label` and `probabilities`."""
    rows = np.random.default_rng(seed).normal(size=(_TRAINING_ROWS, columns)).astype(np.float32)
    return boosted(rows, seed)


def boosted(rows: NDArray[np.float32], seed: int = 0) -> bytes:
    """Gradient boosting of 100 trees of depth 3 that learned a noisy rule over the first four columns of these rows."""
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
        name="tabular",  # a made-up name would differ each time
        initial_types=[(INPUT, FloatTensorType([None, rows.shape[1]]))],
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


_MAKERS: Final[dict[str, Callable[[], bytes]]] = {
    "tabular": tabular,
    "wide-10": partial(tabular, columns=COLUMNS["wide-10"]),
    "wide-1000": partial(tabular, columns=COLUMNS["wide-1000"]),
    "mlp": mlp,
    slow.NAME: slow.model,
    strings.NAME: lambda: boosted(strings.encoded(strings.table(_TRAINING_ROWS, seed=0))),
}


def copies(model: str, count: int) -> tuple[str, ...]:
    """The names of so many copies of a model; one copy is the model itself."""
    return (model,) if count == 1 else tuple(f"{model}-{number:03}" for number in range(count))


def kind(name: str) -> str:
    """The model that a name is, or is a copy of."""
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
        if model == strings.NAME:
            strings.describe(files[name].parent)
    return files


def sample(name: str, *, rows: int, seed: int = 1) -> NDArray[np.float32]:
    """Rows that a model of one tensor takes, as float32 [rows, columns]."""
    return np.random.default_rng(seed).normal(size=(rows, COLUMNS[name])).astype(np.float32)
