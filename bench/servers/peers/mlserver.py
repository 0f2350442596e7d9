"""MLServer with a custom runtime over onnxruntime, started as `mlserver start` starts it.

    python -m bench.servers.peers.mlserver NAME=FILE.onnx --port PORT --settings JSON

Source: docs.seldon.ai/mlserver, "Serving Custom Models", "Adaptive Batching", "Parallel Inference".
"""

import asyncio

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop

from bench.servers.onnx_session import OneThreadModel
from bench.servers.peers.command_line import free_port, read_arguments

SERVER_SETTINGS = {"parallel_workers", "debug"}


class MlserverRuntime(MLModel):
    """A custom runtime: tensors in and out by MLServer's own codec."""

    async def load(self) -> bool:
        self._model = OneThreadModel(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = self._model.run(NumpyCodec.decode_input(payload.inputs[0]))
        encoded = [NumpyCodec.encode_output(name, array) for name, array in outputs.items()]
        return InferenceResponse(model_name=self.name, outputs=encoded)


def main() -> None:
    """Serves until it is ended."""
    arguments = read_arguments("grpc")
    server = {name: value for name, value in arguments.settings.items() if name in SERVER_SETTINGS}
    model = {name: value for name, value in arguments.settings.items() if name not in SERVER_SETTINGS}
    settings = Settings(
        host="127.0.0.1", grpc_port=arguments.port, http_port=free_port(), metrics_port=free_port(), **server
    )
    parameters = ModelParameters(uri=str(arguments.file))
    models = [ModelSettings(name=arguments.model, implementation=MlserverRuntime, parameters=parameters, **model)]
    install_uvloop_event_loop()
    asyncio.run(serve(settings, models))


async def serve(settings: Settings, models: list[ModelSettings]) -> None:
    """The server needs a running loop when it is made."""
    await MLServer(settings).start(models)


if __name__ == "__main__":
    main()
