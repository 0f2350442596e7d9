"""FastAPI on uvicorn with uvloop and httptools, JSON in and out: what most teams write first.

As fast as it allows: a coroutine and no thread pool, a pydantic body, an answer encoded by msgspec, no access log, one
onnxruntime thread. It prints its address when it is ready.

    python -m bench.servers.baselines.fastapi_server NAME=FILE.onnx [NAME=FILE.onnx ...] [--port PORT]
"""

import argparse
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel

from bench.servers.onnx_session import OneThreadModel


class InferBody(BaseModel):
    """Rows for a model."""

    model: str
    rows: list[list[float]]


def application(files: Mapping[str, Path]) -> FastAPI:
    """The application over these models."""
    app = FastAPI()
    models = {name: OneThreadModel(file) for name, file in files.items()}

    @app.post("/infer")
    async def infer(request: InferBody) -> Response:
        if request.model not in models:
            raise HTTPException(404, f"no model {request.model!r}")
        try:
            outputs = models[request.model].run(np.asarray(request.rows, np.float32))
        except (ValueError, ort.capi.onnxruntime_pybind11_state.InvalidArgument) as error:
            raise HTTPException(422, "the rows do not fit the model") from error
        answer = {"outputs": {name: array.tolist() for name, array in outputs.items()}}
        return Response(msgspec.json.encode(answer), media_type="application/json")

    return app


def main(arguments: Iterable[str] | None = None) -> None:
    """Reads the command line and serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m bench.servers.baselines.fastapi_server")
    parser.add_argument("models", nargs="+", metavar="NAME=FILE.onnx")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(None if arguments is None else list(arguments))
    pairs = (each.partition("=") for each in options.models)
    app = application({name: Path(file) for name, _, file in pairs})
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    with socket.create_server(("127.0.0.1", options.port), backlog=1024) as listening:
        print(f"http 127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
