"""The bare baseline: `grpc.aio` on uvloop, onnxruntime called in the handler, and nothing else.

What a competent engineer writes in an afternoon, as fast as its library allows: generic handlers, raw tensors, one
onnxruntime thread, no logging in the request path. It prints its address when it is ready.

    python -m bench.servers.baselines.aio_server NAME=FILE.onnx [NAME=FILE.onnx ...] [--port PORT]
"""

import argparse
import asyncio
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import uvloop

from bench.servers.onnx_session import OneThreadModel
from penstock import inference_pb2 as pb
from penstock.names import INFER_METHOD, INFERENCE_SERVICE
from penstock.tensors import DATATYPES

MESSAGE_LIMIT_BYTES = 64 * 2**20


class AioModel:
    """A model that answers one request at a time."""

    def __init__(self, name: str, file: Path) -> None:
        self._name = name
        self._model = OneThreadModel(file)

    def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Runs one request.

        Raises:
            ValueError: the request does not carry one raw FP32 tensor of the model's width.
        """
        if len(request.inputs) != 1 or len(request.raw_input_contents) != 1:
            raise ValueError("expected one input with raw contents")
        tensor = request.inputs[0]
        name, columns = self._model.input, self._model.columns
        if tensor.name != name or tensor.datatype != "FP32" or list(tensor.shape[1:]) != [columns]:
            raise ValueError(f"expected input {name!r} FP32 [N, {columns}]")
        rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tensor.shape)
        response = pb.ModelInferResponse(model_name=self._name, model_version="1", id=request.id)
        for name, array in self._model.run(rows).items():
            response.outputs.add(name=name, datatype=DATATYPES[array.dtype], shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response


def handler(models: Mapping[str, AioModel]) -> grpc.GenericRpcHandler:
    """The service with the one method `ModelInfer` over these models."""

    async def model_infer(
        request: pb.ModelInferRequest,
        context: "grpc.aio.ServicerContext[pb.ModelInferRequest, pb.ModelInferResponse]",
    ) -> pb.ModelInferResponse:
        model = models.get(request.model_name)
        if model is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_name!r}")
        try:
            return model.infer(request)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    method = grpc.unary_unary_rpc_method_handler(
        model_infer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(INFERENCE_SERVICE, {INFER_METHOD: method})


async def serve(models: Mapping[str, AioModel], port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    limits = [
        ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
        ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ]
    server = grpc.aio.server(options=limits)
    server.add_generic_rpc_handlers((handler(models),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(f"grpc 127.0.0.1:{bound}", flush=True)
    await stopped.wait()
    await server.stop(grace=1)


def main(arguments: Iterable[str] | None = None) -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(prog="python -m bench.servers.baselines.aio_server")
    parser.add_argument("models", nargs="+", metavar="NAME=FILE.onnx")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(None if arguments is None else list(arguments))
    pairs = (each.partition("=") for each in options.models)
    models = {name: AioModel(name, Path(file)) for name, _, file in pairs}
    uvloop.run(serve(models, options.port))


if __name__ == "__main__":
    main()
