"""mosec with dynamic batching over onnxruntime, raw bytes in and out.

    python -m bench.servers.peers.mosec NAME=FILE.onnx --port PORT --settings JSON

Source: mosecorg.github.io/mosec, "Interface".
"""

import os
import sys
from typing import Any

import mosec
import numpy as np

from bench.servers.onnx_session import OneThreadModel
from bench.servers.peers.command_line import read_arguments

_FILE = "BENCH_MODEL_FILE"


class MosecWorker(mosec.Worker):
    """One row per request; rows of a batch become one run of the model."""

    def __init__(self) -> None:
        self._model = OneThreadModel(os.environ[_FILE])

    def deserialize(self, data: bytes) -> Any:
        return np.frombuffer(data, np.float32)

    def forward(self, data: list[Any]) -> list[bytes]:
        outputs = self._model.run(np.stack(data))
        labels, scores = outputs["label"], outputs["probabilities"]
        return [label.tobytes() + score.tobytes() for label, score in zip(labels, scores, strict=True)]

    def serialize(self, data: bytes) -> bytes:
        return data


def main() -> None:
    """Serves until it is ended."""
    arguments = read_arguments("http")
    os.environ[_FILE] = str(arguments.file)
    # It reads the command line itself.
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(arguments.port), "--log-level", "warning"]
    server = mosec.Server()
    server.append_worker(MosecWorker, num=1, route="/infer", **arguments.settings)
    server.run()


if __name__ == "__main__":
    main()
