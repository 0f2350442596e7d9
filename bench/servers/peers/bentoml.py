"""A BentoML service with a batchable endpoint over onnxruntime, JSON in and out, started by `bentoml serve`.

    python -m bench.servers.peers.bentoml NAME=FILE.onnx --port PORT --settings JSON

Source: docs.bentoml.com, "Adaptive batching", "Create online API Services", "Configurations".
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import DType

from bench.servers.onnx_session import OneThreadModel
from bench.servers.peers.command_line import read_arguments

FILE, SETTINGS = "PEER_MODEL_FILE", "PEER_SETTINGS"  # BentoML starts its processes from this module's name
settings: dict[str, dict[str, Any]] = json.loads(os.environ.get(SETTINGS, "{}"))


@bentoml.service(**settings.get("service", {}))
class BentoService:
    """Rows of a batch become one run of the model."""

    def __init__(self) -> None:
        self._model = OneThreadModel(os.environ[FILE])

    @bentoml.api(route="/infer", **settings.get("api", {}))
    async def infer(self, rows: Annotated[np.ndarray, DType("float32")]) -> list[dict[str, Any]]:
        outputs = {name: array.tolist() for name, array in self._model.run(rows).items()}
        return [dict(zip(outputs, values, strict=True)) for values in zip(*outputs.values(), strict=True)]


def main() -> None:
    """Replaces this process by `bentoml serve`."""
    arguments = read_arguments("http")
    os.environ |= {FILE: str(arguments.file), SETTINGS: json.dumps(arguments.settings)}
    command = str(Path(sys.executable).with_name("bentoml"))
    where = ("--host", "127.0.0.1", "--port", str(arguments.port))
    os.execv(command, [command, "serve", "bench.servers.peers.bentoml:BentoService", *where])


if __name__ == "__main__":
    main()
