"""Plain ONNX models of several inputs, texts or whole numbers: what they take is counted beside them."""

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from penstock.tensors import join_bytes
from penstock_server.errors import InvalidInputError
from penstock_server.models.counting_servable import CountingServable, is_one_matrix
from penstock_server.models.loader import load
from penstock_server.prediction.decode import decoder_of
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.publish import files as publishing
from penstock_tools.publish import onnx_graph
from penstock_tools.publish.beside import beside
from penstock_tools.publish.files import Request

RNG = np.random.default_rng(0)
TYPES = [("s", StringTensorType([None, 1])), ("n", FloatTensorType([None, 1])), ("k", Int64TensorType([None, 1]))]


@pytest.fixture(scope="session")
def mixed_model():
    """A model with an input per column, as skl2onnx makes them of frames."""
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["s"]), remainder="passthrough")
    return to_onnx(
        make_pipeline(columns, LogisticRegression()).fit(MIXED, MIXED["n"] > 0), initial_types=TYPES, target_opset=17
    )


MIXED = pd.DataFrame({"k": np.arange(600) % 9, "s": ["x", "y", "y"] * 200, "n": RNG.normal(size=600)})


def test_several_inputs_are_counted_beside_the_graph(registry, mixed_model, tmp_path):
    file, said = tmp_path / "mixed.onnx", []
    file.write_bytes(mixed_model.SerializeToString())
    sample = MIXED.assign(other="unread", day=np.arange(600)).sample(frac=1, random_state=0)
    sample.loc[5, "n"], sample.loc[7, "s"] = np.inf, None
    sample.to_parquet(tmp_path / "s.parquet")
    request = Request("mixed", file, tmp_path / "s.parquet", time="day")
    number, _ = publishing.publish(request, None, lambda _: None, said.append)
    folder = MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("mixed", number)
    servable, _ = load(("mixed", number), folder, threads=1, max_rows=64)
    assert said[0] == "drift of 3 columns, of the predictions and of confidence is watched, in windows of 10,000 rows"
    baseline = servable.artifact.baseline
    assert (baseline.order, baseline.ordered_by) == ("time", ("day",))
    assert [(column.name, sum(column.extra)) for column in baseline.columns] == [("s", 1), ("n", 1), ("k", 0)]
    assert sum(baseline.predictions.counts) == 600
    assert servable.artifact.golden.rows == 16
    assert [(spec.name, spec.datatype) for spec in decoder_of(servable).inputs] == [
        ("s", "BYTES"), ("n", "FP32"), ("k", "INT64")
    ]  # fmt: skip
    cells = np.zeros(baseline.cells_shape, np.int64)
    blocks = (join_bytes(["x", "z"]), np.array([1, 2], "f4").tobytes(), np.array([3, 4], "i8").tobytes())
    servable.predict(blocks, 2, None, cells)
    assert cells[:, : baseline.bins + 3].sum(axis=1).tolist() == [2, 2, 2]


def test_what_cannot_be_counted_is_refused(mixed_model):
    mixed = onnx_graph.read(mixed_model)
    assert not is_one_matrix(mixed.signature)
    with pytest.raises(InvalidInputError, match=r"the sample lacks column .k.; the model takes s, n, k"):
        beside(mixed, MIXED.drop(columns="k"))
    with pytest.raises(InvalidInputError, match=r"column .k. holds 0\.5, which the model.s input of type int64 cannot"):
        beside(mixed, MIXED.assign(k=0.5))
    with pytest.raises(InvalidInputError, match="column 'k' holds nan, which the"):
        beside(mixed, MIXED.assign(k=np.nan))
    with pytest.raises(InvalidInputError, match="column 's' holds int64, expected strings"):
        beside(mixed, MIXED.assign(s=1))
    image = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 2])],
    )
    model = helper.make_model(image, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(
        InvalidInputError, match=r"input 'x', FP32 \[-1, 2, 2\], is no number of columns that can be counted"
    ):
        beside(onnx_graph.read(model), MIXED)


def test_rows_of_infinite_numbers_give_no_golden_requests(mixed_model):
    given = beside(onnx_graph.read(mixed_model), MIXED.assign(n=np.inf))
    assert given.finite_places().tolist() == []
    assert beside(onnx_graph.read(mixed_model), MIXED).finite_places().tolist() == list(range(600))


@pytest.mark.parametrize(
    ("type_", "shape"), [("FLOAT", ["N"]), ("INT32", ["N", 1]), ("FLOAT16", ["N", 2]), ("STRING", ["N"])]
)
def test_one_input_of_another_kind_is_counted_too(registry, tmp_path, type_, shape):
    """Of numbers without a second axis, of whole or of short numbers, of texts: features make no such matrix."""
    value = helper.make_tensor_value_info
    kind = getattr(TensorProto, type_)
    takes, gives = value("x", kind, shape), value("y", kind, shape)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [takes], [gives])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "one.onnx").write_bytes(model.SerializeToString())
    names = ["x_0", "x_1"] if shape[1:] == [2] else ["x"]
    texts = ["a", "b", None] * 200
    sample = pd.DataFrame({name: texts if type_ == "STRING" else np.arange(600) % 7 for name in names})
    sample.to_parquet(tmp_path / "s.parquet")
    number, _ = publishing.publish(Request("one", tmp_path / "one.onnx", tmp_path / "s.parquet"), None, lambda _: None)
    folder = MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("one", number)
    servable, _ = load(("one", number), folder, threads=1, max_rows=64)
    assert isinstance(servable, CountingServable)
    assert [column.name for column in servable.artifact.baseline.columns] == names
    assert servable.artifact.golden.rows == 16
