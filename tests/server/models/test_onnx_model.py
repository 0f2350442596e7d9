from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.tensors import NUMPY_TYPES, join_bytes, to_raw
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.signature import TensorInfo

WriteOnnx = Callable[..., Path]
DATATYPES = [*NUMPY_TYPES, "BYTES"]


@pytest.fixture(scope="session")
def identities(write_onnx: WriteOnnx) -> Path:
    """An input and an identical output of each datatype."""
    return write_onnx(
        [("Identity", [name], [f"{name}_out"], {}) for name in DATATYPES],
        inputs=[(name, name, ["N", 2]) for name in DATATYPES],
        outputs=[(f"{name}_out", name, ["N", 2]) for name in DATATYPES],
    )


def identity(write_onnx: WriteOnnx, takes: list[Any], gives: list[Any] | None = None) -> Path:
    return write_onnx(
        [("Identity", ["x"], ["y"], {})], inputs=[("x", "FP32", takes)], outputs=[("y", "FP32", gives or takes)]
    )


def test_signature_names_every_datatype(identities: Path) -> None:
    signature = OnnxModel(identities).signature
    assert signature.inputs == tuple(TensorInfo(name, name, (-1, 2)) for name in DATATYPES)
    assert [spec.datatype for spec in signature.outputs] == DATATYPES
    assert signature.is_batched


def test_values_of_every_datatype_pass_unchanged(identities: Path) -> None:
    model = OnnxModel(identities)
    arrays = [np.array([[0, 1], [1, 0]]).astype(NUMPY_TYPES[name]) for name in DATATYPES[:-1]]
    texts = np.array([["", "é"], ["no", "x" * 300]], object)
    blocks = [*(array.tobytes() for array in arrays), to_raw(texts)]
    outputs = model.run(model.feeds(blocks, [(2, 2)] * len(DATATYPES)))
    for expected, got in zip([*arrays, texts], outputs, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_bytes_that_are_no_text_become_a_mark(write_onnx: WriteOnnx) -> None:
    path = write_onnx([("Identity", ["x"], ["y"], {})], inputs=[("x", "BYTES", ["N"])], outputs=[("y", "BYTES", ["N"])])
    model = OnnxModel(path)
    (output,) = model.run(model.feeds([join_bytes([b"\xff", b"ok"])], [(2,)]))
    assert output.tolist() == ["�", "ok"]


@pytest.mark.parametrize(
    ("takes", "gives", "is_batched"),
    [
        (["N", 3], ["N", 3], True),
        (["N"], ["N"], True),
        ([1, 3], [1, 3], False),
        (["N", "M"], ["N", "M"], False),
        ([], [], False),
    ],
)
def test_requests_are_joined_only_along_a_free_first_axis(
    write_onnx: WriteOnnx, takes: list[Any], gives: list[Any], is_batched: bool
) -> None:
    assert OnnxModel(identity(write_onnx, takes, gives)).signature.is_batched is is_batched


def test_a_total_over_the_rows_is_no_batched_model(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [("ReduceSum", ["x"], ["y"], {"keepdims": 1})],
        inputs=[("x", "FP32", ["N", 3])],
        outputs=[("y", "FP32", [1, 1])],
    )
    assert not OnnxModel(path).signature.is_batched


def test_a_failing_graph_keeps_its_words_as_the_cause(write_onnx: WriteOnnx) -> None:
    model = OnnxModel(identity(write_onnx, ["N", 3]))
    with pytest.raises(ModelFailedError, match=r"^the model failed on this input$") as caught:
        model.run({"x": np.zeros((1, 2), np.float32)})
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08"])
def test_what_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"^broken\.onnx cannot be loaded by onnxruntime: ") as caught:
        OnnxModel(path)
    assert "\n" not in str(caught.value)


def test_a_classifier_with_a_map_is_refused_with_advice(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2])
    named = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output = helper.make_value_info("probabilities", helper.make_sequence_type_proto(named))
    zipped = helper.make_node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([zipped], "graph", [scores], [output])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    with pytest.raises(InvalidInputError, match=r"'probabilities' is a seq\(map.*expected a tensor.*zipmap=False"):
        OnnxModel(path)
