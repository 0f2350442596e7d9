"""Rows that depend on each other are found, and rows that do not are batched; each graph says which it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from penstock_server.batching.limits import Batching
from penstock_server.drift.fit import fit_baseline
from penstock_server.features.spec.spec import Categories, FeatureSpec, Join, NumberColumn, StringColumn, Take, Text
from penstock_server.models import artifact, golden
from penstock_server.models.loader import load
from penstock_server.models.servable import OnnxServable

WriteOnnx = Callable[..., Path]
KEY = ("m", "1")
X = [("x", "FP32", ["N", 3])]
Y = [("y", "FP32", ["N", 3])]


def loaded(folder: Path, batching: Batching | None = None) -> OnnxServable:
    return load(KEY, folder, threads=1, max_rows=8, batching=batching)[0]


def graph(write_onnx: WriteOnnx, name: str) -> Path:
    nodes, takes, gives, constants = GRAPHS[name]
    return write_onnx(nodes, inputs=takes, outputs=gives, constants=constants).parent


def axis(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


GRAPHS: dict[str, tuple[Any, Any, Any, Any]] = {
    # Each row for itself.
    "elementwise": ([("Tanh", ["x"], ["y"], {})], X, Y, {}),
    "softmax over columns": ([("Softmax", ["x"], ["y"], {"axis": 1})], X, Y, {}),
    "layer normalisation": (
        [("LayerNormalization", ["x", "one"], ["y"], {"axis": 1})], X, Y, {"one": np.ones(3, np.float32)},
    ),
    "a wide product with cancellation": (
        [("MatMul", ["x", "w"], ["y"], {})], [("x", "FP32", ["N", 2000])], [("y", "FP32", ["N", 7])],
        {"w": np.random.default_rng(0).standard_normal((2000, 7)).astype(np.float32)},
    ),
    "half floats": ([("Sqrt", ["x"], ["y"], {})], [("x", "FP16", ["N", 3])], [("y", "FP16", ["N", 3])], {}),
    "a class": ([("ArgMax", ["x"], ["y"], {"axis": 1, "keepdims": 0})], X, [("y", "INT64", ["N"])], {}),
    "text": ([("Identity", ["x"], ["y"], {})], [("x", "BYTES", ["N", 2])], [("y", "BYTES", ["N", 2])], {}),
    "two inputs": (
        [("Mul", ["x", "z"], ["y"], {})], [*X, ("z", "FP32", ["N", 1])], Y, {},
    ),
    "an index that not all numbers are": (
        [("Gather", ["table", "x"], ["y"], {"axis": 0})], [("x", "INT64", ["N"])], [("y", "FP32", ["N", 2])],
        {"table": np.arange(8, dtype=np.float32).reshape(4, 2)},
    ),
    "overflow": ([("Exp", ["x"], ["y"], {})], X, Y, {}),
    "booleans": ([("Not", ["x"], ["y"], {})], [("x", "BOOL", ["N", 3])], [("y", "BOOL", ["N", 3])], {}),
    # Rows that depend on each other.
    "softmax over rows": ([("Softmax", ["x"], ["y"], {"axis": 0})], X, Y, {}),
    "mean of the rows": (
        [("ReduceMean", ["x"], ["mean"], {"axes": [0]}), ("Sub", ["x", "mean"], ["y"], {})], X, Y, {},
    ),
    "sum so far": ([("CumSum", ["x", "zero"], ["y"], {})], X, Y, {"zero": np.array(0, np.int64)}),
    "largest of the rows": (
        [("ReduceMax", ["x"], ["most"], {"axes": [0]}), ("Div", ["x", "most"], ["y"], {})], X, Y, {},
    ),
    "sorted rows": (
        [("Shape", ["x"], ["shape"], {}), ("Gather", ["shape", "zero"], ["k"], {"axis": 0}),
         ("TopK", ["x", "k"], ["y", "at"], {"axis": 0})], X, Y, {"zero": axis(0)},
    ),
    "the best row's place": (
        [("ArgMax", ["x"], ["best"], {"axis": 0, "keepdims": 1}), ("Cast", ["best"], ["best_f"], {"to": 1}),
         ("Add", ["x", "best_f"], ["y"], {})], X, Y, {},
    ),
    "a vote of the rows": (
        [("Greater", ["x", "zero"], ["is"], {}), ("Cast", ["is"], ["number"], {"to": 7}),
         ("ReduceSum", ["number", "first"], ["votes"], {"keepdims": 1}),
         ("Add", ["number", "votes"], ["y"], {})],
        X, [("y", "INT64", ["N", 3])], {"zero": np.zeros(1, np.float32), "first": axis(0)},
    ),
    "a scale of the whole batch": (
        [("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], {}),
         ("DequantizeLinear", ["q", "scale", "zero"], ["y"], {})], X, Y, {},
    ),
    "reversed rows": (
        [("Slice", ["x", "start", "end", "zero", "step"], ["y"], {})], X, Y,
        {"start": axis(-1), "end": axis(-(2**31)), "zero": axis(0), "step": axis(-1)},
    ),
    # Shapes that declare a free axis and have none.
    # The shape goes through a node, or onnxruntime would see that it is fixed.
    "one row baked in": (
        [("NonZero", ["to"], ["at"], {}), ("Squeeze", ["at"], ["flat"], {}), ("Add", ["flat", "plus"], ["shape"], {}),
         ("Reshape", ["x", "shape"], ["y"], {})],
        X, Y, {"to": axis(5, 5), "plus": axis(1, 2)},
    ),
    "one row out": (
        [("ReduceSum", ["x", "first"], ["sum"], {"keepdims": 1}), ("NonZero", ["ones"], ["at"], {}),
         ("Squeeze", ["at"], ["flat"], {}), ("Add", ["flat", "plus"], ["shape"], {}), ("Reshape", ["sum", "shape"], ["y"], {})],
        X, Y, {"first": axis(0), "ones": axis(5, 5), "plus": axis(1, 2)},
    ),
    "rows that disappear": (
        [("ReduceSum", ["x", "columns"], ["sum"], {"keepdims": 0}), ("Greater", ["sum", "zero"], ["is"], {}),
         ("Compress", ["x", "is"], ["y"], {"axis": 0})],
        X, Y, {"columns": axis(1), "zero": np.zeros(1, np.float32)},
    ),
    "two rows a row": ([("Concat", ["x", "x"], ["y"], {"axis": 0})], X, Y, {}),
    "as wide as the batch": (
        [("Transpose", ["x"], ["t"], {}), ("MatMul", ["x", "t"], ["y"], {})], X, [("y", "FP32", ["N", "M"])], {},
    ),
    "the best two rows": (
        [("TopK", ["x", "two"], ["y", "at"], {"axis": 0})], X, [("y", "FP32", ["M", 3])], {"two": axis(2)},
    ),
    "noise": ([("RandomNormalLike", ["x"], ["y"], {})], X, Y, {}),
    # Answers that tell nothing.
    "always the same": ([("Mul", ["x", "zero"], ["y"], {})], X, Y, {"zero": np.zeros(1, np.float32)}),
    "numbers of no use": (
        [("Gather", ["table", "x"], ["y"], {"axis": 0})], [("x", "INT64", ["N"])], [("y", "FP32", ["N", 1])],
        {"table": np.zeros((1, 1), np.float32)},
    ),
}  # fmt: skip

INDEPENDENT = [*GRAPHS][: [*GRAPHS].index("softmax over rows")]
DEPENDENT = [*GRAPHS][[*GRAPHS].index("softmax over rows") :]


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_rows_are_batched(write_onnx: WriteOnnx, name: str) -> None:
    servable = loaded(graph(write_onnx, name))
    assert (servable.is_batched, servable.batching_note) == (True, "")
    assert servable.batching is not None
    assert servable.batching.reason.startswith("requests are batched by rows: proven on ")


@pytest.mark.parametrize("name", DEPENDENT)
def test_rows_that_are_not_proven_independent_run_alone(write_onnx: WriteOnnx, name: str) -> None:
    servable = loaded(graph(write_onnx, name))
    assert not servable.is_batched
    assert servable.batching_note.startswith("each request runs alone: ")
    assert "\n" not in servable.batching_note


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("softmax over rows", "a row's answer depends on the rows beside it: output 'y' is 1 alone and "),
        ("one row baked in", "rows that it takes alone fail 16 at a time"),
        ("two rows a row", r"output 'y' has shape \[2, 3\] for 1 rows"),
        ("the best two rows", r"output 'y' has shape \[2, 3\] for 2 rows, and \[2, 3\] for 16"),
        ("noise", "the model answers the same rows differently each time"),
        ("always the same", "all 64 rows that were tried got the same answer, so it is not proven"),
    ],
)
def test_the_note_says_what_differed(write_onnx: WriteOnnx, name: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(loaded(graph(write_onnx, name)).batching_note)


def test_a_graph_without_a_free_first_axis_runs_alone_as_always(write_onnx: WriteOnnx) -> None:
    folder = write_onnx(
        [("Tanh", ["x"], ["y"], {})], inputs=[("x", "FP32", [1, 3])], outputs=[("y", "FP32", [1, 3])]
    ).parent
    servable = loaded(folder)
    assert (servable.is_batched, servable.batching_note) == (False, "")
    servable = loaded(folder, "rows")
    assert not servable.is_batched
    assert servable.batching_note == (
        "each request runs alone although batching = \"rows\" is set: input 'x' of shape [1, 3] has no free first axis"
    )


@pytest.mark.parametrize("batching", get_args(Batching))
@pytest.mark.parametrize("name", ["elementwise", "softmax over rows"])
def test_what_is_decided_before_the_load_is_not_probed(write_onnx: WriteOnnx, name: str, batching: Batching) -> None:
    servable = loaded(graph(write_onnx, name), batching)
    assert servable.is_batched is (batching == "rows")
    assert bool(servable.batching_note) is (batching == "request")


@pytest.mark.parametrize(
    ("name", "published", "is_batched", "said"),
    [
        ("elementwise", "rows", True, ""),
        ("elementwise", "request", False, "each request runs alone, as its publisher says"),
        ("softmax over rows", "rows", True, "requests are batched by rows, as its publisher says, but a row's answer"),
        ("softmax over rows", "request", False, "each request runs alone, as its publisher says"),
        ("softmax over rows", None, False, "each request runs alone: a row's answer depends"),
    ],
)
def test_the_publisher_has_the_word_and_is_told(
    write_onnx: WriteOnnx, name: str, published: Batching | None, is_batched: bool, said: str
) -> None:
    folder = graph(write_onnx, name)
    artifact.write(folder, batching=published)
    servable = loaded(folder)
    assert servable.is_batched is is_batched
    assert servable.batching_note.startswith(said)
    assert bool(servable.batching_note) is bool(said)


def test_golden_rows_prove_first(write_onnx: WriteOnnx) -> None:
    folder = graph(write_onnx, "elementwise")
    x = np.linspace(-1, 1, 36).reshape(12, 3)
    artifact.write(folder, golden=golden.make({"x": x}, {"y": np.tanh(x)}))
    verdict = loaded(folder).batching
    assert verdict is not None
    assert verdict.reason == "requests are batched by rows: proven on 12 golden rows"


def test_golden_rows_that_are_alike_prove_nothing(write_onnx: WriteOnnx) -> None:
    folder = graph(write_onnx, "mean of the rows")
    artifact.write(folder, golden=golden.make({"x": np.ones((12, 3))}, {"y": np.zeros((12, 3))}))
    assert not loaded(folder).is_batched


def test_golden_texts_and_several_inputs_are_cut_into_rows(write_onnx: WriteOnnx) -> None:
    folder = write_onnx(
        [("Identity", ["s"], ["t"], {}), ("Mul", ["x", "x"], ["y"], {})],
        inputs=[("s", "BYTES", ["N", 2]), ("x", "FP32", ["N"])],
        outputs=[("t", "BYTES", ["N", 2]), ("y", "FP32", ["N"])],
    ).parent
    texts = np.array([["a", "é"], ["", "bcd"], ["e", "f"], ["g" * 300, "h"]], object)
    x = np.arange(4.0)
    artifact.write(folder, golden=golden.make({"s": texts, "x": x}, {"t": texts, "y": x * x}))
    verdict = loaded(folder).batching
    assert verdict is not None
    assert verdict.reason == "requests are batched by rows: proven on 4 golden rows"


SPEC = FeatureSpec(
    (NumberColumn("age"), StringColumn("port")),
    Join((Take(("age",)), Text("port", Categories(("s", "q", "c"), unseen="refuse")))),
)
TABLE: dict[str, Any] = {"age": np.linspace(1, 90, 50), "port": np.array(["s", "q"] * 25, object)}


@pytest.mark.parametrize("has_baseline", [False, True])
@pytest.mark.parametrize(("operator", "is_batched"), [("Softmax", False), ("Tanh", True)])
def test_behind_features_raw_rows_are_tried(
    write_onnx: WriteOnnx, operator: str, is_batched: bool, has_baseline: bool
) -> None:
    folder = write_onnx(
        [(operator, ["x"], ["y"], {"axis": 0} if operator == "Softmax" else {})],
        inputs=[("x", "FP32", ["N", 2])],
        outputs=[("y", "FP32", ["N", 2])],
    ).parent
    artifact.write(folder, features=SPEC, baseline=fit_baseline(SPEC, TABLE) if has_baseline else None)
    servable = loaded(folder)
    assert servable.is_batched is is_batched
    assert servable.batching is not None
    if is_batched:
        assert ("rows like those of training" in servable.batching.reason) is has_baseline


def test_one_row_at_a_threshold_is_noise(write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum whose last digit depends on the batch's size, cut at a golden row's very value."""
    folder = graph(write_onnx, "a class")
    x = np.eye(3)[np.arange(12) % 3] + 0.01
    artifact.write(folder, golden=golden.make({"x": x}, {"y": x.argmax(axis=1)}))
    honest = OnnxServable.predict

    def noisy(self: OnnxServable, blocks: Any, rows: int, shapes: Any, cells: Any) -> Any:
        outputs = honest(self, blocks, rows, shapes, cells)
        values = np.frombuffer(blocks[0], np.float32).reshape(rows, 3)
        at_threshold = np.flatnonzero(np.isclose(values[:, 2], 1.01))
        if rows > 4 and rows != 12 and len(at_threshold):
            outputs.arrays[0][at_threshold[0]] = 0
        return outputs

    monkeypatch.setattr(OnnxServable, "predict", noisy)
    assert loaded(folder).is_batched


@pytest.mark.parametrize("make", ["forest", "boosting", "mlp", "neighbours", "svm", "pca_forest", "gauss"])
def test_fitted_models_are_batched(tmp_path: Path, make: str) -> None:
    from skl2onnx import to_onnx
    from sklearn.decomposition import PCA
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rows = np.random.default_rng(0).normal(3, 2, (60, 5)).astype(np.float32)
    labels, targets = (rows.sum(axis=1) > 15).astype(int), rows @ np.arange(5) * 1000
    model, y = {
        "forest": (RandomForestClassifier(10, random_state=0), labels),
        "boosting": (GradientBoostingRegressor(n_estimators=10, random_state=0), targets),
        "mlp": (
            make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(16,), max_iter=50, random_state=0)),
            targets,
        ),
        "neighbours": (KNeighborsClassifier(3), labels),
        "svm": (SVC(), labels),
        "pca_forest": (make_pipeline(PCA(3), RandomForestClassifier(10, random_state=0)), labels),
        "gauss": (GaussianProcessRegressor(), targets),
    }[make]
    options: Any = {"zipmap": False} if y is labels else None
    onnx = to_onnx(model.fit(rows, y), rows[:1], options=options)
    (tmp_path / "model.onnx").write_bytes(onnx.SerializeToString())
    servable = loaded(tmp_path)
    assert (servable.is_batched, servable.batching_note) == (True, "")
