"""LitServe with a batched API over onnxruntime, JSON in and out.

    python -m bench.servers.peers.litserve NAME=FILE.onnx --port PORT --settings JSON

Source: lightning.ai/docs/litserve, "Batching", "LitServer".
"""

import logging
from typing import Any

import litserve
import numpy as np

from bench.servers.peers.shared import Model, Orders, orders

SERVER_SETTINGS = {"workers_per_device", "fast_queue"}
RUN_SETTINGS = {"num_api_servers", "log_level"}


class OnnxApi(litserve.LitAPI):
    """One row a request; rows of a batch become one run of the model."""

    def __init__(self, told: Orders, **settings: Any) -> None:
        super().__init__(api_path="/infer", **settings)
        self._file = str(told.file)

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        self._model = Model(self._file)

    def decode_request(self, request: dict[str, Any]) -> Any:
        return np.asarray(request["rows"][0], np.float32)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, inputs: Any) -> dict[str, Any]:
        return {name: array.tolist() for name, array in self._model.run(np.atleast_2d(inputs)).items()}

    def unbatch(self, output: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {name: [value] for name, value in zip(output, values, strict=True)}
            for values in zip(*output.values(), strict=True)
        ]

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return {"outputs": output}


def main() -> None:
    """Serves until it is ended."""
    told = orders("http")
    parts = {"server": SERVER_SETTINGS, "run": RUN_SETTINGS}
    chosen = {
        part: {name: told.settings.pop(name) for name in names & told.settings.keys()} for part, names in parts.items()
    }
    logging.getLogger("litserve").setLevel(logging.WARNING)
    server = litserve.LitServer(OnnxApi(told, **told.settings), accelerator="cpu", devices=1, **chosen["server"])
    server.run(host="127.0.0.1", port=told.port, generate_client_file=False, **chosen["run"])


if __name__ == "__main__":
    main()
