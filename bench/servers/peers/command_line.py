"""What every peer's server begins with: its orders, and the model, run the same way by all.

Imports nothing but numpy and onnxruntime, which every peer's environment has. Called by the servers beside it.
"""

import argparse
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Orders:
    """What a server is told.

    Attributes:
        model: the name under which the model is asked for.
        file: the model.
        port: where to listen, on 127.0.0.1.
        settings: the peer's own, as `peers.toml` names them.
    """

    model: str
    file: Path
    port: int
    settings: dict[str, Any]


def orders(protocol: str) -> Orders:
    """Reads the command line, and says on which address the server will answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", metavar="NAME=FILE.onnx")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON")
    options = parser.parse_args()
    name, _, file = options.model.partition("=")
    print(f"{protocol} 127.0.0.1:{options.port}", flush=True)
    return Orders(name, Path(file), options.port, options.settings)


def free_port() -> int:
    """A port for what the peer opens besides and nobody asks."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Model:
    """One ONNX model with one FP32 input of shape [N, F], run on one thread."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
        (model_input,) = self._session.get_inputs()
        self.input = str(model_input.name)
        self.columns = int(model_input.shape[1])
        self.outputs = [str(output.name) for output in self._session.get_outputs()]

    def run(self, rows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The outputs by name, each with one entry a row."""
        return dict(zip(self.outputs, self._session.run(self.outputs, {self.input: rows}), strict=True))
