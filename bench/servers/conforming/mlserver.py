"""MLServer with the models of the conformance suite, as a custom runtime with MLServer's own codec.

Source: docs.seldon.ai/mlserver, "Serving Custom Models" and "Model Settings".
"""

import asyncio

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor, RequestInput, ResponseOutput

from bench.servers.conforming.answers import answer, ports
from penstock_conformance.contract import MODELS, Tensors


class ConformingRuntime(MLModel):
    """A model of the contract."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        contract = MODELS[self.name]
        inputs = {each.name: _decoded(each) for each in payload.inputs}
        outputs = answer(contract, self.version or "1", inputs)
        encoded = [
            # MLServer's codec would give a vector a second axis.
            ResponseOutput(
                name=name, shape=list(array.shape), datatype=contract.outputs[name][0], data=array.ravel().tolist()
            )
            for name, array in outputs.items()
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=encoded)


def _decoded(tensor: RequestInput) -> np.ndarray:
    if tensor.datatype != "BYTES":
        return NumpyCodec.decode_input(tensor)
    # Its codecs make one text of a tensor, or `str` of each element.
    elements = np.empty(len(tensor.data), object)
    elements[:] = list(tensor.data)
    return elements.reshape(tensor.shape)


def _declared(tensors: Tensors) -> list[MetadataTensor]:
    return [
        MetadataTensor(name=name, datatype=datatype, shape=list(shape)) for name, (datatype, shape) in tensors.items()
    ]


async def serve() -> None:
    """Serves until it is ended; the server needs a running loop when it is made."""
    found = ports()
    settings = Settings(
        host="127.0.0.1", grpc_port=found.grpc, http_port=found.http, metrics_port=found.metrics, parallel_workers=0
    )
    served = [
        ModelSettings(
            name=contract.name,
            implementation=ConformingRuntime,
            platform="python",
            inputs=_declared(contract.inputs),
            outputs=_declared(contract.outputs),
            parameters=ModelParameters(version=version),
        )
        for contract in MODELS.values()
        for version in contract.versions
    ]
    await MLServer(settings).start(served)


if __name__ == "__main__":
    asyncio.run(serve())
