"""A plain ONNX model with a sample: its columns are counted, and requests get the answers of the graph alone."""

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from penstock.inference_pb2 import ModelInferRequest
from penstock.tensors import join_bytes
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.models.loader import load
from penstock_server.prediction.decode import decoder_of
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.publish import files as publishing
from penstock_tools.publish import onnx_graph
from penstock_tools.publish.files import Request
from penstock_tools.publish.straight import beside, is_one_matrix, straight

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(600, 3)), columns=["a", "b", "c"])
FRAME.loc[::50, "b"] = np.nan
ODD = np.array([[np.nan, np.inf, -np.inf], [-0.0, 1e-40, 3e38], [16777217, 0.1, -1 / 3]], np.float32)


@pytest.fixture
def published(registry, onnx_file, tmp_path):
    """Publishes the file, and loads it as a server does."""
    loaded = []

    def publish(**request):
        said = []
        number, _ = publishing.publish(Request("fraud", onnx_file, **request), None, lambda _: None, said.append)
        folder = MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("fraud", number)
        servable, _ = load(("fraud", number), folder, threads=1, max_rows=64)
        loaded.append(servable)
        return servable, said

    yield publish
    for servable in loaded:
        servable.close()


def request_of(datatype="FP32", **tensors) -> ModelInferRequest:
    request = ModelInferRequest()
    for name, values in tensors.items():
        request.inputs.add(name=name, datatype=datatype, shape=values.shape)
        request.raw_input_contents.append(values.tobytes())
    return request


def answers_of(servable, request, cells=None):
    decoded = decoder_of(servable).decode(request)
    return servable.predict(decoded.blocks, decoded.rows, decoded.shapes, cells).arrays


def test_it_answers_as_the_graph_alone_and_counts(published, tmp_path):
    FRAME.to_parquet(tmp_path / "s.parquet")
    alone, _ = published()
    counting, said = published(sample=tmp_path / "s.parquet")
    assert said[0] == ("drift of 3 columns and of the predictions is watched, in windows of 10,000 rows")
    found = counting.artifact
    assert [column.name for column in found.baseline.columns] == ["a", "b", "c"]
    assert found.baseline.columns[1].missing == 12
    assert sum(found.baseline.predictions.counts) == 600
    assert found.golden.rows == 16
    rows = np.concatenate([FRAME.to_numpy(np.float32), ODD])
    cells = np.zeros(counting.pipeline.cells_shape, np.int64)
    expected = answers_of(alone, request_of(X=rows))
    for request in (
        request_of(X=rows),
        request_of("FP64", X=rows.astype(np.float64)),
        request_of(c=rows[:, 2].copy(), a=rows[:, 0].copy(), b=rows[:, 1].copy()),
        request_of(features=rows),
    ):
        got = answers_of(counting, request, cells)
        for mine, theirs in zip(expected, got, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    bins = found.baseline.bins
    assert cells[:, : bins + 3].sum(axis=1).tolist() == [4 * len(rows)] * 3


@pytest.mark.parametrize(("type_", "datatype"), [(FloatTensorType, "FP32"), (DoubleTensorType, "FP64")])
@pytest.mark.parametrize("width", [1, 2, None])
def test_both_types_of_floats_and_widths_that_are_free_go_straight(type_, datatype, width):
    size = width or 3
    model = LinearRegression().fit(RNG.normal(size=(50, size)), np.arange(50.0))
    graph = onnx_graph.read(to_onnx(model, initial_types=[("X", type_([None, width]))], target_opset=17))
    built, rows = straight(graph, FRAME.iloc[:, :size], None)
    assert built.spec.datatype == datatype
    assert list(rows.columns) == (["X"] if size == 1 else ["a", "b", "c"][:size])
    assert built.required == frozenset()


def test_the_times_are_no_column_unless_the_model_takes_them(onnx_model):
    graph = onnx_graph.read(onnx_model)
    with_time = FRAME.assign(at=np.arange(600))
    assert straight(graph, with_time, "at")[0].columns == ("a", "b", "c")
    assert straight(graph, FRAME, "a")[0].columns == ("a", "b", "c")
    with pytest.raises(
        InvalidInputError, match=r"the sample has 4 columns \(a, b, c, at\), and the model takes a matrix of 3"
    ):
        straight(graph, with_time, None)


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
    assert said[0] == "drift of 3 columns and of the predictions is watched, in windows of 10,000 rows"
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


def test_what_cannot_be_counted_is_refused(onnx_model, mixed_model):
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
        beside(onnx_graph.read(model), FRAME)
    graph = onnx_graph.read(onnx_model)
    with pytest.raises(InvalidInputError, match="column 'b' holds 'x', expected a number"):
        straight(graph, FRAME.assign(b=np.array(["x"] * 600, object)), None)
    with pytest.raises(InvalidInputError, match="the sample's columns cannot be the model's: name"):
        straight(graph, FRAME.set_axis(["a", "b\n", "c"], axis=1), None)


def test_rows_of_infinite_numbers_give_no_golden_requests(mixed_model):
    given = beside(onnx_graph.read(mixed_model), MIXED.assign(n=np.inf))
    assert given.finite_places().tolist() == []
    assert beside(onnx_graph.read(mixed_model), MIXED).finite_places().tolist() == list(range(600))


def test_a_pass_that_changed_a_value_would_be_found(onnx_model, monkeypatch):
    graph = onnx_graph.read(onnx_model)
    plain = straight(graph, FRAME, None)[0].transform

    def without_sign(pipeline, table):
        return np.abs(plain(table))

    monkeypatch.setattr("penstock_tools.publish.straight.Pipeline.transform", without_sign)
    with pytest.raises(ModelFailedError, match=r"column '[abc]' becomes [0-9.]+ instead of -"):
        straight(graph, FRAME, None)
