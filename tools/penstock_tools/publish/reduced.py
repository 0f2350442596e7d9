"""Graphs that compute the same in fewer bits: whole numbers of 8 bits, or floats of 16.

`optimize` measures what they cost and what they give. Nothing here decides whether they are good.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import UnsupportedError, first_line

_PRODUCTS: Final = ("MatMul", "Gemm")
_QUANTIZED: Final = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul", "MatMulInteger")
CALIBRATION_ROWS: Final = 2000


def int8(model: Any, rows: NDArray[Any]) -> Any:
    """The model with products of whole numbers, whose ranges are those of these rows.

    The ranges are fixed, so that a row's answer does not depend on the rows beside it. Weights have 7 bits, because processors
    without VNNI add two products of 8 bits each in 16.

    Args:
        model: an `onnx.ModelProto` that takes one matrix.
        rows: the matrix, of rows like those of requests.

    Raises:
        UnsupportedError: it has no products with weights, or onnxruntime cannot do it.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    def quantize(source: Path, target: Path, name: str) -> None:
        quantize_static(
            source,
            target,
            _Rows({name: rows[:CALIBRATION_ROWS]}),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    return _quantized(model, quantize)


def dynamic_int8(model: Any) -> Any:
    """The model with products of whole numbers, whose ranges are taken from each batch anew, so that no rows calibrate them.

    A row's answer then depends on the rows beside it: such a version's requests do not share batches.

    Raises:
        UnsupportedError: as `int8` raises it.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def quantize(source: Path, target: Path, _: str) -> None:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )

    return _quantized(model, quantize)


def _quantized(model: Any, quantize: Callable[[Path, Path, str], None]) -> Any:
    """The model as `quantize` makes it, from file to file; it is told the input's name too."""
    model = _with_weights(model)
    if not any(node.op_type in _PRODUCTS for node in model.graph.node):
        raise UnsupportedError("it has no product with weights")
    _check_floats(model)
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch, _quiet():
        source, target = Path(scratch) / "model.onnx", Path(scratch) / "int8.onnx"
        source.write_bytes(model.SerializeToString())
        try:
            quantize(source, target, model.graph.input[0].name)
        except Exception as error:  # whatever it raises over a graph that it does not know
            raise UnsupportedError(f"onnxruntime cannot quantize it: {first_line(error)}") from error
        return _read(target)


def fp16(model: Any) -> Any:
    """The model in floats of 16 bits, between inputs and outputs as they were.

    Raises:
        UnsupportedError: it has no floats, or onnxruntime cannot do it.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = _with_weights(model)
    _check_floats(model)
    try:
        with _quiet():
            converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
            converted.topological_sort()  # what casts the inputs was put at the end
            return converted.model
    except Exception as error:  # as above
        raise UnsupportedError(f"onnxruntime cannot convert it: {first_line(error)}") from error


def _check_floats(model: Any) -> None:
    import onnx

    kinds = {each.data_type for each in model.graph.initializer}
    if onnx.TensorProto.FLOAT not in kinds:
        advice = "; publish it with --precision FP32" if onnx.TensorProto.DOUBLE in kinds else ""
        raise UnsupportedError(f"it has no weights of 32 bits{advice}")


def _with_weights(model: Any) -> Any:
    """A copy whose constants are initializers: what converts weights finds no others.

    Raises:
        UnsupportedError: it is in fewer bits already.
    """
    if any(node.op_type in _QUANTIZED for node in model.graph.node):
        raise UnsupportedError("it is in whole numbers already")
    copy = type(model)()
    copy.CopyFrom(model)
    constants = [node for node in copy.graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    for node in constants:
        weights = copy.graph.initializer.add()
        weights.CopyFrom(node.attribute[0].t)
        weights.name = node.output[0]
        copy.graph.node.remove(node)
    return copy


class _Rows:
    """Rows once, as onnxruntime's calibration asks for them."""

    def __init__(self, feeds: dict[str, NDArray[Any]]) -> None:
        self._feeds: dict[str, NDArray[Any]] | None = feeds

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        feeds, self._feeds = self._feeds, None
        return feeds

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        while (feeds := self.get_next()) is not None:
            yield feeds


def _read(path: Path) -> Any:
    import onnx

    return onnx.load(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that onnxruntime logs to whoever quantizes by hand."""
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        logging.disable(former)
