"""KServe's Python model server with a custom predictor over onnxruntime, over gRPC.

    python -m bench.servers.peers.kserve NAME=FILE.onnx --port PORT --settings JSON

Source: kserve.github.io, "Custom Predictor" and "Python Serving Runtime API".
"""

import sys

from bench.servers.onnx_session import OneThreadModel
from bench.servers.peers.command_line import Arguments, free_port, read_arguments

arguments: Arguments = read_arguments("grpc")
# KServe reads its log's form from the command line, when it is imported.
sys.argv[1:] = [f"--{name}={value}" for name, value in arguments.settings.items()]

import kserve  # noqa: E402


class KserveModel(kserve.Model):
    """A coroutine, so that no thread stands between the call and the model; binary tensors in and out."""

    def __init__(self) -> None:
        super().__init__(arguments.model)
        self._model = OneThreadModel(arguments.file)
        self.ready = True

    async def predict(
        self,
        payload: kserve.InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002 - KServe's signature
        response_headers: dict[str, str] | None = None,  # noqa: ARG002
    ) -> kserve.InferResponse:
        outputs = []
        for name, array in self._model.run(payload.inputs[0].as_numpy()).items():
            datatype = {"int64": "INT64", "float32": "FP32"}[str(array.dtype)]
            output = kserve.InferOutput(name=name, shape=list(array.shape), datatype=datatype)
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return kserve.InferResponse(
            response_id=payload.id, model_name=self.name, infer_outputs=outputs, use_binary_outputs=True
        )


def main() -> None:
    """Serves until it is ended."""
    kserve.ModelServer(http_port=free_port(), grpc_port=arguments.port, grace_period=1).start([KserveModel()])


if __name__ == "__main__":
    main()
