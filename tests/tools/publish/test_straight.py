"""A plain ONNX model with a sample: its columns are counted, and requests get the answers of the graph alone."""

import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.linear_model import LinearRegression

from penstock.inference_pb2 import ModelInferRequest
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.models.loader import load
from penstock_server.prediction.decode import decoder_of
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.publish import files as publishing
from penstock_tools.publish import onnx_graph
from penstock_tools.publish.files import Request
from penstock_tools.publish.straight import straight

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
    assert said[0] == ("drift of 3 columns, of the predictions and of confidence is watched, in windows of 10,000 rows")
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


def test_columns_that_are_no_numbers_or_have_no_names_are_refused(onnx_model):
    graph = onnx_graph.read(onnx_model)
    with pytest.raises(InvalidInputError, match="column 'b' holds 'x', expected a number"):
        straight(graph, FRAME.assign(b=np.array(["x"] * 600, object)), None)
    with pytest.raises(InvalidInputError, match="the sample's columns cannot be the model's: name"):
        straight(graph, FRAME.set_axis(["a", "b\n", "c"], axis=1), None)


def test_a_pass_that_changed_a_value_would_be_found(onnx_model, monkeypatch):
    graph = onnx_graph.read(onnx_model)
    plain = straight(graph, FRAME, None)[0].transform

    def without_sign(pipeline, table):
        return np.abs(plain(table))

    monkeypatch.setattr("penstock_tools.publish.straight.Pipeline.transform", without_sign)
    with pytest.raises(ModelFailedError, match=r"column '[abc]' becomes [0-9.]+ instead of -"):
        straight(graph, FRAME, None)
