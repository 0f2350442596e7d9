"""An ONNX model run by onnxruntime on one thread, as every server here runs it.

It imports only numpy and onnxruntime, which the environment of every peer has.
"""

import os
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray


class OneThreadModel:
    """One ONNX model with one FP32 input of shape [N, F].

    Attributes:
        input: the input's name.
        columns: F.
        outputs: the outputs' names.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
        (model_input,) = self._session.get_inputs()
        self.input = str(model_input.name)
        self.columns = int(model_input.shape[1])
        self.outputs = [str(output.name) for output in self._session.get_outputs()]

    def run(self, rows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The outputs by name, each with one entry per row."""
        return dict(zip(self.outputs, self._session.run(self.outputs, {self.input: rows}), strict=True))
