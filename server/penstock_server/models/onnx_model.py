"""Runs one ONNX graph in onnxruntime; no other module imports that library.

It turns raw blocks into feeds and returns arrays. The batch scheduler decides which rows run together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from penstock.tensors import NUMPY_TYPES, split_bytes
from penstock_server.errors import InvalidInputError, ModelFailedError, first_line
from penstock_server.models import onnx_file
from penstock_server.models.signature import ANY, Signature, TensorInfo

# Some builds record usage events; a server's requests are confidential.
onnxruntime.disable_telemetry_events()

_DATATYPES: Final[dict[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxModel:
    """A session and its signature. `run` may be called from several threads at once.

    Attributes:
        signature: what goes in and out.
        file: the graph's structure, which was checked before onnxruntime saw it.

    Args:
        path: the .onnx file; external data is in the same folder.
        threads: onnxruntime's threads within one operator. One is right for small models: cores are used by processes.

    Raises:
        InvalidInputError: the file is refused, onnxruntime cannot run it, or an input or output is not a tensor of a known
            type.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A spinning thread pool would take the core that the batch scheduler needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.file = onnx_file.read(path)
        source: str | bytes = onnx_file.without_maps(path, self.file) or str(path)
        try:
            self._session: Any = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InvalidInputError(f"{path.name} cannot be loaded by onnxruntime: {first_line(error)}") from error
        self.signature = _signature(self._session, path)
        self._outputs = [output.name for output in self.signature.outputs]
        self._run = self._session.run

    def run(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs for these inputs, in the signature's order.

        Raises:
            ModelFailedError: onnxruntime raised; its exception is the cause.
        """
        try:
            outputs: list[NDArray[Any]] = self._run(self._outputs, feeds)
        except Exception as error:
            raise ModelFailedError("the model failed on this input") from error
        return outputs

    def feeds(self, blocks: Sequence[bytes], shapes: Sequence[tuple[int, ...]]) -> dict[str, NDArray[Any]]:
        """Inputs from raw contents and their shapes, both in the signature's order."""
        return {
            spec.name: _array(block, spec.datatype, shape)
            for spec, block, shape in zip(self.signature.inputs, blocks, shapes, strict=True)
        }


def _array(block: bytes, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if datatype == "BYTES":
        count = int(np.prod(shape))
        values = np.empty(count, dtype=object)
        values[:] = [_text(element) for element in split_bytes(block, count)]
        return values.reshape(shape)
    return np.frombuffer(block, NUMPY_TYPES[datatype]).reshape(shape)


def _text(element: bytes) -> str:
    # onnxruntime's strings are UTF-8; a wrong byte becomes a replacement character, so that it fails no batch.
    return element.decode("utf-8", "replace")


def _signature(session: Any, path: Path) -> Signature:
    inputs = tuple(_spec(argument, path) for argument in session.get_inputs())
    outputs = tuple(_spec(argument, path) for argument in session.get_outputs())
    if not inputs or not outputs:
        raise InvalidInputError(
            f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs, expected at least one each"
        )
    # Requests are joined along the first axis; with more than one free axis they would have to agree on the others.
    joinable = all(spec.shape and spec.shape[0] == ANY and ANY not in spec.shape[1:] for spec in inputs)
    return Signature(inputs, outputs, joinable and all(spec.shape and spec.shape[0] == ANY for spec in outputs))


def _spec(argument: Any, path: Path) -> TensorInfo:
    datatype = _DATATYPES.get(argument.type)
    if datatype is None:
        advice = " (convert classifiers with zipmap=False)" if "map" in argument.type else ""
        raise InvalidInputError(
            f"{path.name}: {argument.name!r} is a {argument.type}, expected a tensor of numbers or strings{advice}"
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else ANY for size in argument.shape or ())
    return TensorInfo(argument.name, datatype, shape)
