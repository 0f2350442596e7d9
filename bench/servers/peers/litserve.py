"""LitServe with a batched API over onnxruntime, JSON in and out.

    python -m bench.servers.peers.litserve NAME=FILE.onnx --port PORT --settings JSON

Source: lightning.ai/docs/litserve, "Batching", "LitServer".
"""

import logging
from typing import Any

import litserve
import numpy as np

from bench.servers.onnx_session import OneThreadModel
from bench.servers.peers.command_line import Arguments, read_arguments

SERVER_SETTINGS = {"workers_per_device", "fast_queue"}
RUN_SETTINGS = {"num_api_servers", "log_level"}


class LitserveApi(litserve.LitAPI):
    """One row per request; rows of a batch become one run of the model."""

    def __init__(self, arguments: Arguments, **settings: Any) -> None:
        super().__init__(api_path="/infer", **settings)
        self._file = str(arguments.file)

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        self._model = OneThreadModel(self._file)

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
    arguments = read_arguments("http")
    parts = {"server": SERVER_SETTINGS, "run": RUN_SETTINGS}
    chosen = {
        part: {name: arguments.settings.pop(name) for name in names & arguments.settings.keys()}
        for part, names in parts.items()
    }
    logging.getLogger("litserve").setLevel(logging.WARNING)
    server = litserve.LitServer(
        LitserveApi(arguments, **arguments.settings), accelerator="cpu", devices=1, **chosen["server"]
    )
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, **chosen["run"])


if __name__ == "__main__":
    main()
