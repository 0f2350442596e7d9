from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_server.errors import InvalidInputError, RefusedByModelError
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.triton_config import read

WriteOnnx = Callable[..., Path]
X = "input { name: 'x' data_type: TYPE_FP32 dims: 2 }"
Y = "output { name: 'y' data_type: TYPE_FP32 dims: 2 }"
ROWS = "max_batch_size: 8 "


def model(
    write_onnx: WriteOnnx, text: str, takes: list[Any] | None = None, gives: list[Any] | None = None
) -> OnnxModel:
    """`y = x` and `z = -x`, as a configuration of this text declares them."""
    shape: list[Any] = ["N", 2] if takes is None else takes
    path = write_onnx(
        [("Identity", ["x"], ["y"], {}), ("Neg", ["x"], ["z"], {})],
        inputs=[("x", "FP32", shape)],
        outputs=[("y", "FP32", shape if gives is None else gives), ("z", "FP32", shape if gives is None else gives)],
    )
    (path.parent / "config.pbtxt").write_text(text)
    return OnnxModel(path, config=read(path.parent))


def shapes(found: OnnxModel) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], bool]:
    signature = found.signature
    return [spec.shape for spec in signature.inputs], [spec.shape for spec in signature.outputs], signature.is_batched


@pytest.mark.parametrize(
    ("text", "takes", "expected"),
    [
        ("", ["N", 2], ([(-1, 2)], [(-1, 2), (-1, 2)], True)),
        (ROWS, ["N", 2], ([(-1, 2)], [(-1, 2), (-1, 2)], True)),
        (ROWS + X, ["N", 2], ([(-1, 2)], [(-1, 2), (-1, 2)], True)),
        (ROWS + X + Y, ["N", 2], ([(-1, 2)], [(-1, 2)], True)),
        # What the graph leaves open is as the file says, and requests can be joined.
        (ROWS + X + Y, ["N", "M"], ([(-1, 2)], [(-1, 2)], True)),
        (ROWS, ["N", "M"], ([(-1, -1)], [(-1, -1), (-1, -1)], False)),
        ("input { name: 'x' dims: [ 5, 2 ] }", ["N", 2], ([(5, 2)], [(-1, 2), (-1, 2)], False)),
        (ROWS + "input { name: 'x' }" + Y, ["N", 2], ([(-1, 2)], [(-1, 2)], True)),
        (
            ROWS + "input { name: 'x' dims: [ 1, 2 ] reshape { shape: 2 } }",
            ["N", 2],
            ([(-1, 1, 2)], [(-1, 2), (-1, 2)], True),
        ),
    ],
)
def test_requests_have_what_is_declared(write_onnx: WriteOnnx, text: str, takes: list[Any], expected: Any) -> None:
    assert shapes(model(write_onnx, text, takes)) == expected


@pytest.mark.parametrize(
    ("text", "takes", "words"),
    [
        ("input { name: 'a' }", None, "the graph has no input 'a'; expected 'x'"),
        ("output { name: 'x' }", None, "the graph has no output 'x'; expected 'y', 'z'"),
        ("input { name: 'x' data_type: TYPE_INT8 }", None, "input 'x' is TYPE_INT8, and the graph has TYPE_FP32"),
        ("output { name: 'z' data_type: TYPE_STRING }", None, "output 'z' is TYPE_STRING, and the graph has TYPE_FP32"),
        (ROWS + "input { name: 'x' dims: 3 }", None, r"input 'x' has shape \[-1, 3\], and the graph has \[-1, 2\]"),
        ("input { name: 'x' dims: 2 }", None, r"input 'x' has shape \[2\], and the graph has \[-1, 2\]"),
        (ROWS + "input { name: 'x' dims: -1 }", None, r"input 'x' has shape \[-1, -1\], and the graph has \[-1, 2\]"),
        (ROWS, [4, 2], r"max_batch_size is 8, and input 'x' of shape \[4, 2\] has no free first axis"),
        ("input { name: 'x' optional: true }", None, "input 'x' is optional, and the graph has no default for it"),
    ],
)
def test_what_disagrees_is_said(write_onnx: WriteOnnx, text: str, takes: list[Any] | None, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^config.pbtxt and the graph disagree: {words}"):
        model(write_onnx, text, takes)


def test_every_input_without_a_default_is_declared(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [("Add", ["a", "b"], ["c"], {}), ("Add", ["c", "d"], ["y"], {})],
        inputs=[(name, "FP32", ["N"]) for name in "ab"] + [("d", "FP32", [1])],
        outputs=[("y", "FP32", ["N"])],
        constants={"d": np.zeros(1, np.float32)},
    )
    (path.parent / "config.pbtxt").write_text("input { name: 'a' }")
    with pytest.raises(InvalidInputError, match="the file lacks input 'b'; expected 'a', 'b', 'd'"):
        OnnxModel(path, config=read(path.parent))
    (path.parent / "config.pbtxt").write_text("input { name: 'a' } input { name: 'b' }")
    assert OnnxModel(path, config=read(path.parent)).signature.optional == ()
    (path.parent / "config.pbtxt").write_text("".join(f"input {{ name: '{name}' }}" for name in "abd"))
    assert [spec.name for spec in OnnxModel(path, config=read(path.parent)).signature.optional] == ["d"]


def test_tensors_are_reshaped_both_ways(write_onnx: WriteOnnx) -> None:
    both = (
        "max_batch_size: 8 input { name: 'x' dims: [ 4 ] reshape { shape: [ 2, 2 ] } } "
        "output { name: 'z' dims: [ 1, 4 ] reshape { shape: [ 2, 2 ] } }"
    )
    found = model(write_onnx, both, ["N", 2, 2])
    assert shapes(found) == ([(-1, 4)], [(-1, 1, 4)], True)
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    (z,) = found.run(found.feeds([rows.tobytes()], [(3, 4)]))
    np.testing.assert_array_equal(z, -rows.reshape(3, 1, 4))


def test_what_cannot_be_reshaped_is_the_callers_doing(write_onnx: WriteOnnx) -> None:
    found = model(write_onnx, "input { name: 'x' dims: [ -1 ] reshape { shape: [ -1, 2 ] } }")
    feeds = found.feeds([bytes(16)], [(4,)])
    assert feeds["x"].shape == (2, 2)
    with pytest.raises(RefusedByModelError, match=r"input 'x' of shape \[3\] cannot be reshaped to \[-1, 2\]"):
        found.feeds([bytes(12)], [(3,)])
