from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_server.batching.cost import Cost
from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.models import artifact, golden
from penstock_server.models.loader import load
from penstock_server.models.onnx_model import OnnxModel

WriteOnnx = Callable[..., Path]
KEY = ("m", "1")
SPEC = FeatureSpec(
    (NumberColumn("age"), StringColumn("port")), Join((Take(("age",)), Text("port", Categories(("s", "q")))))
)
TABLE: dict[str, Any] = {"age": np.array([1.0, 2.0]), "port": np.array(["s", "x"], object)}


def doubling(write_onnx: WriteOnnx, shape: list[Any], datatype: str = "FP32") -> Path:
    return write_onnx(
        [("Add", ["x", "x"], ["y"], {})], inputs=[("x", datatype, shape)], outputs=[("y", datatype, shape)]
    ).parent


def requests(inputs: Mapping[str, Any], y: Any) -> golden.Golden:
    return golden.make(inputs, {"y": np.array(y)})


def test_a_plain_model_is_loaded_warm(write_onnx: WriteOnnx) -> None:
    servable, cost = load(KEY, doubling(write_onnx, ["N", 2]), threads=1, max_rows=8)
    assert (servable.key, servable.is_batched, servable.pipeline) == (KEY, True, None)
    assert cost.base_s >= 0
    assert cost.row_s >= 0
    assert cost.of(1) > 0


def test_cost_is_a_line() -> None:
    assert Cost(2.0, 0.5).of(4) == 4.0


def test_a_published_version_is_loaded_and_proven(write_onnx: WriteOnnx) -> None:
    folder = doubling(write_onnx, ["N", 2])
    artifact.write(
        folder, features=SPEC, baseline=fit_baseline(SPEC, TABLE), golden=requests(TABLE, [[2.0, 0.0], [4.0, 4.0]])
    )
    servable, _ = load(KEY, folder, threads=1, max_rows=8)
    assert servable.pipeline is not None
    assert servable.pipeline.columns == ("age", "port")


@pytest.mark.parametrize(
    ("shape", "datatype", "said"),
    [
        (["N", 3], "FP32", r"one input of shape \[rows, 2\] and type float32, but .*'x' is FP32 of shape \[-1, 3\]"),
        (["N", 2], "FP64", "'x' is FP64"),
        ([1, 2], "FP32", r"of shape \[1, 2\]"),
        (["N"], "FP32", r"of shape \[-1\]"),
        ([], "FP32", r"of shape \[\]"),
    ],
)
def test_features_that_do_not_fit_the_graph_are_refused(
    write_onnx: WriteOnnx, shape: list[Any], datatype: str, said: str
) -> None:
    folder = doubling(write_onnx, shape, datatype)
    artifact.write(folder, features=SPEC)
    with pytest.raises(InvalidInputError, match=said):
        load(KEY, folder, threads=1, max_rows=8)


def test_features_take_one_input(write_onnx: WriteOnnx) -> None:
    tensors = [(name, "FP32", ["N", 2]) for name in "ab"]
    folder = write_onnx([("Add", ["a", "b"], ["y"], {})], inputs=tensors, outputs=[("y", "FP32", ["N", 2])]).parent
    artifact.write(folder, features=SPEC)
    with pytest.raises(InvalidInputError, match="the model has 2 inputs"):
        load(KEY, folder, threads=1, max_rows=8)


PLAIN = {"x": np.array([[1.0, 2.0]])}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (requests(PLAIN, [[2.0, 5.0]]), "another answer than when it was published: output 'y', row 0"),
        (requests({"z": PLAIN["x"]}, [[2.0, 4.0]]), "the golden requests have no input 'x'"),
        (requests({"x": np.array([[1.0, 2.0, 3.0]])}, [[2.0, 4.0]]), "the model fails on its golden requests"),
        (requests({"x": np.array([["a", "b"]], object)}, [[2.0, 4.0]]), "the golden requests do not fit"),
    ],
)
def test_golden_requests_must_get_their_answers(write_onnx: WriteOnnx, made: golden.Golden, said: str) -> None:
    folder = doubling(write_onnx, ["N", 2])
    artifact.write(folder, golden=made)
    with pytest.raises(InvalidInputError, match=said):
        load(KEY, folder, threads=1, max_rows=8)


def test_golden_columns_of_another_shape_are_refused(write_onnx: WriteOnnx) -> None:
    folder = doubling(write_onnx, ["N", 2])
    artifact.write(folder, features=SPEC, golden=requests({**TABLE, "age": np.zeros((2, 3))}, [[2.0, 0.0], [4.0, 4.0]]))
    with pytest.raises(InvalidInputError, match="the golden requests do not fit what the version takes"):
        load(KEY, folder, threads=1, max_rows=8)


def test_a_changed_file_is_refused(write_onnx: WriteOnnx) -> None:
    folder = doubling(write_onnx, ["N", 2])
    artifact.write(folder)
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\x00")
    with pytest.raises(InvalidInputError, match=r"'?model.onnx'? has changed since it was published"):
        load(KEY, folder, threads=1, max_rows=8)


@pytest.mark.parametrize(
    ("shape", "datatype"), [([], "FP32"), ([2, 3], "INT32"), (["N", "M"], "FP64"), (["N", 2], "FP16")]
)
def test_any_form_of_input_is_warmed_up(write_onnx: WriteOnnx, shape: list[Any], datatype: str) -> None:
    _, cost = load(KEY, doubling(write_onnx, shape, datatype), threads=1, max_rows=4)
    assert cost.of(1) > 0


def test_strings_are_warmed_up(write_onnx: WriteOnnx) -> None:
    folder = write_onnx(
        [("Identity", ["x"], ["y"], {})], inputs=[("x", "BYTES", ["N", 2])], outputs=[("y", "BYTES", ["N", 2])]
    ).parent
    assert load(KEY, folder, threads=1, max_rows=4)[1].of(1) > 0


def test_a_graph_that_fails_on_blank_rows_is_loaded(write_onnx: WriteOnnx) -> None:
    folder = write_onnx(
        [("Reshape", ["x", "to"], ["y"], {})],
        inputs=[("x", "FP32", ["N", 2])],
        outputs=[("y", "FP32", ["M", 3])],
        constants={"to": np.array([-1, 3])},
    ).parent
    assert load(KEY, folder, threads=1, max_rows=4)[1] == Cost(0.0, 0.0)


def test_a_pipeline_of_encoders_answers_no_rows(tmp_path: Path) -> None:
    """The graph of a OneHotEncoder fails on them."""
    pd = pytest.importorskip("pandas")
    from skl2onnx import to_onnx
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.DataFrame({"age": [20.0, 30, 40, 50], "town": ["a", "b", "a", "c"]})
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["town"])])
    fitted = make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1, 0, 1])
    onnx = to_onnx(fitted, frame[:1], options={"zipmap": False})
    (tmp_path / "model.onnx").write_bytes(onnx.SerializeToString())
    servable, _ = load(KEY, tmp_path, threads=1, max_rows=8)
    outputs = servable.predict([b"", b""], 0, None, None)
    assert [(array.shape, array.dtype.str) for array in outputs.arrays] == [((0,), "<i8"), ((0, 2), "<f8")]


def test_a_warm_up_without_memory_is_no_blank_row_that_the_model_does_not_like(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that takes all memory in its first run must not pass for one that blank rows say nothing about."""

    def run(_model: OnnxModel, _feeds: Any) -> Any:
        raise ModelFailedError("the model failed on this input") from RuntimeError("Failed to allocate memory")

    monkeypatch.setattr(OnnxModel, "run", run)
    with pytest.raises(InvalidInputError, match="needs more memory for its warm-up than there is"):
        load(KEY, doubling(write_onnx, ["N", 2]), threads=1, max_rows=8)


def test_requests_that_are_not_to_be_joined_run_alone(write_onnx: WriteOnnx) -> None:
    servable, _ = load(KEY, doubling(write_onnx, ["N", 2]), threads=1, max_rows=8, batching="request")
    assert not servable.is_batched
