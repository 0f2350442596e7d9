"""Ray Serve with a batched deployment over onnxruntime, behind its gRPC proxy, or behind HAProxy where its variables say so.

    python -m bench.servers.peers.ray_serve NAME=FILE.onnx --port PORT --settings JSON

Source: docs.ray.io, "Set Up a gRPC Service", "Dynamic Request Batching", "Performance Tuning".
"""

import importlib
import logging
import os
import signal
import tempfile
from typing import Any

import grpc
import numpy as np
import ray
from ray import serve
from ray.serve.config import gRPCOptions

from bench.servers.onnx_session import OneThreadModel
from bench.servers.peers.command_line import free_port, read_arguments
from penstock import inference_pb2 as pb
from penstock.names import INFER_METHOD, INFERENCE_SERVICE
from penstock.tensors import DATATYPES

SERVICER = "bench.servers.peers.ray_serve.add_servicer"

_HAPROXY_FILES = {
    "CONFIG_FILE_LOC": "haproxy.cfg",
    "SOCKET_PATH": "admin.sock",
    "METRICS_SOCKET_PATH": "metrics.sock",
    "SERVER_STATE_BASE": "",
    "SERVER_STATE_FILE": "server-state",
}
_HAPROXY_PORTS = ("METRICS_PORT", "STATS_PORT")


def add_servicer(servicer: Any, server: Any) -> None:
    """What protoc generates for a service; Ray calls it with its own methods in place of the servicer's."""
    method = grpc.unary_unary_rpc_method_handler(
        servicer.ModelInfer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler(INFERENCE_SERVICE, {INFER_METHOD: method})
    server.add_generic_rpc_handlers((handlers,))


class RayDeployment:
    """Requests of a batch become one run of the model."""

    def __init__(self, name: str, file: str, batch: dict[str, Any]) -> None:
        self._name = name
        self._model = OneThreadModel(file)
        self._infer.set_max_batch_size(batch["max_batch_size"])
        self._infer.set_batch_wait_timeout_s(batch["batch_wait_timeout_s"])

    async def ModelInfer(self, request: Any) -> Any:  # noqa: N802 - the method's name in the service
        return await self._infer(request)

    @serve.batch
    async def _infer(self, requests: list[Any]) -> list[Any]:
        parts = [np.frombuffer(each.raw_input_contents[0], np.float32) for each in requests]
        outputs = self._model.run(np.stack(parts))
        return [self._response(request.id, outputs, row) for row, request in enumerate(requests)]

    def _response(self, request_id: str, outputs: dict[str, Any], row: int) -> Any:
        response = pb.ModelInferResponse(model_name=self._name, id=request_id)
        for name, array in outputs.items():
            part = array[row : row + 1]
            response.outputs.add(name=name, datatype=DATATYPES[part.dtype], shape=part.shape)
            response.raw_output_contents.append(part.tobytes())
        return response


def _haproxy_places(folder: str) -> dict[str, str]:
    """Variables by which HAProxy, if there is one, keeps its files in this folder, and takes ports that are free."""
    files = {name: os.path.join(folder, file) for name, file in _HAPROXY_FILES.items()}
    ports = {name: str(free_port()) for name in _HAPROXY_PORTS}
    return {f"RAY_SERVE_HAPROXY_{name}": value for name, value in {**files, **ports}.items()}


def main() -> None:
    """Serves until it is ended."""
    arguments = read_arguments("grpc")
    # Ray's processes, which start HAProxy, inherit them.
    os.environ.update(_haproxy_places(tempfile.gettempdir()))
    ray.init(
        _temp_dir=tempfile.gettempdir(),  # its sockets' paths must be short
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": free_port()},
        grpc_options=gRPCOptions(port=arguments.port, grpc_servicer_functions=[SERVICER]),
    )
    deployment = serve.deployment(RayDeployment, **arguments.settings["deployment"])
    serve.run(deployment.bind(arguments.model, os.fspath(arguments.file), arguments.settings["batch"]))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    # Ray's processes import the deployment by its module's name, which __main__ is not.
    importlib.import_module("bench.servers.peers.ray_serve").main()
