from typing import Any

import numpy as np
import pytest

from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import (
    Categories,
    Datatype,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import Fill
from penstock_server.models.artifact import Artifact
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import OnnxServable
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.prediction.block_copies import BlockCopy, block_copies
from penstock_server.prediction.decode import ColumnDecoder, TensorDecoder, decoder_of

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)
X = TensorInfo("x", "FP32", (ANY, 2))
S = TensorInfo("s", "BYTES", (ANY, 1))
X8 = TensorInfo("x", "FP64", (ANY, 2))


def tensors(*inputs: TensorInfo) -> TensorDecoder:
    return TensorDecoder(Signature(inputs, (), True))


def named(*names: str, datatype: str = "FP32") -> TensorDecoder:
    return tensors(TensorInfo("x", datatype, (ANY, len(names)), names))


def columns(*names: str, strings: tuple[str, ...] = ()) -> ColumnDecoder:
    """Features that change what they are given."""
    blocks = (
        Text(name, Categories(("s", "q"))) if name in strings else Take((name,), (Fill((2.0,)),)) for name in names
    )
    kinds = (StringColumn(name) if name in strings else NumberColumn(name) for name in names)
    return ColumnDecoder(Pipeline(FeatureSpec(tuple(kinds), Join(tuple(blocks)))))


def straight(*names: str, datatype: Datatype = "FP32") -> ColumnDecoder:
    """A plain graph of one matrix whose rows are counted on the way."""
    features = FeatureSpec(tuple(NumberColumn(name, "accept") for name in names), Take(names), datatype)
    return ColumnDecoder(Pipeline(features), matrix=TensorInfo("x", datatype, (ANY, len(names))))


@pytest.mark.parametrize(
    ("shadow", "champion", "expected"),
    [
        (tensors(X, S), tensors(S, X), (1, 0)),
        (tensors(X), tensors(X, S), (0,)),
        (tensors(X, S), tensors(X), None),
        (tensors(X), tensors(X8), None),
        (tensors(X), tensors(TensorInfo("x", "FP32", (ANY, 3))), None),
        (columns("a", "p", strings=("p",)), columns("p", "a", strings=("p",)), (0, 1)),
        (columns("a", "b"), columns("b", "a"), None),
        (columns("a"), tensors(TensorInfo("a", "FP64", (ANY, 1))), None),
        (named("a", "b"), named("a", "b"), (0,)),
        (named("a", "b"), named("b", "a"), None),
        (named("a", "b"), tensors(X), (0,)),
        (tensors(X), named("a", "b"), (0,)),
        (tensors(TensorInfo("y", "FP32", (ANY, 2))), named("a", "b"), None),
        (straight("a", "b"), straight("a", "b", datatype="FP64"), (0,)),
        (straight("a", "b"), straight("b", "a"), None),
        (straight("a", "b"), columns("a", "b"), (0,)),
        (straight("a", "b", datatype="FP64"), tensors(X8), (0,)),
        (tensors(X8), straight("a", "b", datatype="FP64"), (0,)),
        (straight("a", "b"), tensors(X8), None),
        (tensors(TensorInfo("y", "FP32", (ANY, 2))), straight("a", "b"), None),
        (columns("a", "b"), tensors(X), None),
    ],
)
def test_blocks_that_are_copied_as_they_are(shadow: Any, champion: Any, expected: tuple[int, ...] | None) -> None:
    assert block_copies(shadow, champion) == (None if expected is None else tuple(map(BlockCopy, expected)))


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (tensors(X), straight("a", "b")),
        (named("a", "b"), straight("a", "b")),
        (named("a", "b"), columns("a", "b")),
        (named("a", "b"), named("a", "b", datatype="FP64")),
    ],
)
def test_the_same_numbers_in_another_type_are_cast_both_ways(narrow: Any, wide: Any) -> None:
    assert block_copies(narrow, wide) == (BlockCopy(0, (F8, F4)),)
    assert block_copies(wide, narrow) == (BlockCopy(0, (F4, F8)),)


def test_a_block_is_cast_as_the_features_would() -> None:
    rows = np.array([[0.1, 1e300], [np.nan, -np.inf]])
    with np.errstate(over="raise"):
        narrow = BlockCopy(1, (F8, F4)).of((b"", rows.tobytes()))
    features = straight("a", "b").pipeline
    expected = np.empty((2, 2), F4)
    features.run(rows.tobytes(), (), 2, expected, None)
    np.testing.assert_array_equal(np.frombuffer(narrow, F4).reshape(2, 2), expected)
    back = np.frombuffer(BlockCopy(0, (F4, F8)).of((narrow,)), F8).reshape(2, 2)
    np.testing.assert_array_equal(back, expected.astype(F8))
    assert BlockCopy(0).of((narrow,)) is narrow


def test_a_plain_graph_may_have_a_shadow_whose_rows_are_counted(write_onnx: Any) -> None:
    """The names that a sample gives the columns do not matter where the other has none, or has the same."""
    path = write_onnx(
        [("Identity", ["x"], ["y"], {})], inputs=[("x", "FP32", ["N", 2])], outputs=[("y", "FP32", ["N", 2])]
    )
    model, pipeline = OnnxModel(path), straight("a", "b").pipeline
    plain = decoder_of(OnnxServable(("m", "1"), Artifact(path.parent, path), model, None))
    counted = decoder_of(OnnxServable(("m", "2"), Artifact(path.parent, path), model, pipeline))
    changed = decoder_of(OnnxServable(("m", "3"), Artifact(path.parent, path), model, columns("a", "b").pipeline))
    assert block_copies(counted, plain) == (BlockCopy(0, (F4, F8)),)
    assert block_copies(plain, counted) == (BlockCopy(0, (F8, F4)),)
    assert block_copies(plain, changed) is None
