"""A graph that takes its own inputs, and a pipeline that counts them beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.inference_pb2 import ModelInferRequest
from penstock.tensors import join_bytes
from penstock_server.drift.fit import fit_baseline
from penstock_server.drift.reference import reference_of
from penstock_server.errors import InvalidInputError
from penstock_server.features.counting import counts_of
from penstock_server.features.spec.blocks import Take
from penstock_server.features.spec.spec import Column, FeatureSpec, NumberColumn, StringColumn, TimeColumn
from penstock_server.models import artifact
from penstock_server.models.counting_servable import CountingServable, InputColumn, counts_apart, input_columns
from penstock_server.models.loader import load
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.prediction.decode import decoder_of

WriteOnnx = Callable[..., Path]

SPEC = FeatureSpec(
    (NumberColumn("n", "accept"), NumberColumn("x_0", "accept"), NumberColumn("x_1", "accept"), StringColumn("s"),
     NumberColumn("b", "accept")),
    Take(("n",)), "FP64",
)  # fmt: skip
TABLE = {
    "n": np.array([1.0, 2, 2**40, 7] * 10),
    "x_0": np.array([0.5, np.nan, np.inf, -1] * 10),
    "x_1": np.arange(40.0),
    "s": np.array(["a", "", "b", "a"] * 10, object),
    "b": np.array([0.0, 1, 1, 1] * 10),
}


@pytest.fixture
def folder(write_onnx: WriteOnnx) -> Path:
    names = ["n", "x", "s", "b"]
    specs: dict[str, Any] = {
        "n": ("INT64", ["N"]), "x": ("FP32", ["N", 2]), "s": ("BYTES", ["N", 1]), "b": ("BOOL", ["N", 1])
    }  # fmt: skip
    path = write_onnx(
        [("Identity", [name], [f"{name}_out"], {}) for name in names],
        inputs=[(name, *specs[name]) for name in names],
        outputs=[(f"{name}_out", *specs[name]) for name in names],
    )
    artifact.write(path.parent, features=SPEC, baseline=fit_baseline(SPEC, TABLE))
    return path.parent


def request() -> ModelInferRequest:
    found = ModelInferRequest()
    rows = len(TABLE["n"])
    matrix = np.stack([TABLE["x_0"], TABLE["x_1"]], axis=1).astype("f4")
    for name, datatype, shape, raw in (
        ("s", "BYTES", [rows, 1], join_bytes(TABLE["s"])),
        ("n", "INT64", [rows], TABLE["n"].astype("i8").tobytes()),
        ("x", "FP32", [rows, 2], matrix.tobytes()),
        ("b", "BOOL", [rows, 1], TABLE["b"].astype("?").tobytes()),
    ):
        found.inputs.add(name=name, datatype=datatype, shape=shape)
        found.raw_input_contents.append(raw)
    return found


def test_it_takes_what_the_graph_takes_and_counts_it(folder: Path) -> None:
    servable, _ = load(("m", "1"), folder, threads=1, max_rows=8)
    assert isinstance(servable, CountingServable)
    assert servable.kernel_calls is None
    decoder = decoder_of(servable)
    assert [spec.name for spec in decoder.inputs] == ["n", "x", "s", "b"]
    decoded = decoder.decode(request())
    baseline = servable.artifact.baseline
    assert baseline is not None
    cells = np.zeros(baseline.cells_shape, np.int64)
    outputs = servable.predict(decoded.blocks, decoded.rows, decoded.shapes, cells)
    counted = counts_of(cells)
    np.testing.assert_array_equal(counted.cells, reference_of(baseline).cells)
    assert counted.outside.sum() == 0
    assert outputs.features_s > 0
    by_name = dict(zip((spec.name for spec in servable.outputs), outputs.arrays, strict=True))
    assert by_name["s_out"].ravel().tolist() == TABLE["s"].tolist()
    np.testing.assert_array_equal(by_name["n_out"], TABLE["n"])
    many = [block * 30 for block in decoded.blocks]
    cells[...] = 0
    servable.predict(many, 1200, None, cells)
    assert counts_of(cells).rows.tolist() == [servable.counted_rows(1200)] * 5 == [300] * 5
    cells[...] = 0
    servable.count(many, 1200, cells)
    assert counts_of(cells).rows.tolist() == [300] * 5
    before = cells.copy()
    servable.predict(decoded.blocks, decoded.rows, decoded.shapes, None)
    np.testing.assert_array_equal(cells, before)


def info(name: str, datatype: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, datatype, shape)


def test_columns_of_inputs_are_called_by_name_and_place() -> None:
    inputs = (info("x", "FP32", ANY, 2), info("s", "BYTES", ANY, 1), info("n", "INT64", ANY), info("image", "FP32", ANY, 3, 3),
              info("words", "BYTES", ANY, 2), info("fixed", "FP32", 4, 2), info("free", "FP32", ANY, ANY))  # fmt: skip
    assert input_columns(Signature(inputs, (), is_batched=True)) == {
        "x_0": InputColumn(0, 2, 0, np.dtype("f4")),
        "x_1": InputColumn(0, 2, 1, np.dtype("f4")),
        "s": InputColumn(1, 1, 0, None),
        "n": InputColumn(2, 1, 0, np.dtype("i8")),
    }


APART: list[tuple[tuple[TensorInfo, ...], tuple[Column, ...], bool]] = [
    ((info("a", "FP32", ANY, 1), info("s", "BYTES", ANY, 1)), (NumberColumn("a"), StringColumn("s")), True),
    ((info("a", "FP32", ANY, 1), info("s", "BYTES", ANY, 1)), (NumberColumn("a"),), True),
    ((info("a", "FP32", ANY, 1), info("s", "BYTES", ANY, 1)), (StringColumn("a"), StringColumn("s")), False),
    ((info("a", "FP32", ANY, 1), info("s", "BYTES", ANY, 1)), (NumberColumn("b"),), False),
    ((info("a", "INT64", ANY, 1), info("s", "BYTES", ANY, 1)), (TimeColumn("a"),), False),
    ((info("x", "INT64", ANY, 2),), (NumberColumn("x_0"), NumberColumn("x_1")), True),
    ((info("x", "FP32", ANY),), (NumberColumn("x"),), True),
    ((info("x", "FP16", ANY, 1),), (NumberColumn("x"),), True),
    ((info("x", "FP32", 4, 1),), (NumberColumn("x"),), False),
    # The features may make this matrix, of whatever columns.
    ((info("x", "FP32", ANY, 1),), (NumberColumn("x"),), False),
    ((info("x", "FP64", ANY, 2),), (NumberColumn("x_0"), NumberColumn("x_1")), False),
]


@pytest.mark.parametrize(("inputs", "columns", "is_apart"), APART)
def test_features_of_the_inputs_own_columns_only_count(
    inputs: tuple[TensorInfo, ...], columns: tuple[Column, ...], is_apart: bool
) -> None:
    (first, *_) = columns
    block = Take((first.name,)) if isinstance(first, NumberColumn) else None
    features = FeatureSpec(columns, block or _other(first), "FP64")
    assert counts_apart(Signature(inputs, (), is_batched=True), features) == is_apart


def _other(column: Column) -> Any:
    from penstock_server.features.spec.blocks import Text, Time
    from penstock_server.features.spec.encoders import Hash

    return Time(column.name, ("year",)) if isinstance(column, TimeColumn) else Text(column.name, Hash(1))


def test_features_of_other_columns_are_refused(folder: Path) -> None:
    other = FeatureSpec((NumberColumn("age"),), Take(("age",)))
    artifact.write(folder, features=other, baseline=fit_baseline(other, {"age": [1.0, 2.0]}))
    with pytest.raises(InvalidInputError, match="the model has 4 inputs"):
        load(("m", "1"), folder, threads=1, max_rows=8)
