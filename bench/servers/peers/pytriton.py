"""Triton Inference Server with PyTriton's Python handler over onnxruntime, batched by Triton.

    python -m bench.servers.peers.pytriton NAME=FILE.onnx --port PORT --settings JSON

Source: triton-inference-server.github.io/pytriton, "Binding Model to Triton", "Decorators".
"""

import logging

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bench.servers.onnx_session import OneThreadModel
from bench.servers.peers.command_line import free_port, read_arguments

DTYPES = {"label": np.int64, "probabilities": np.float32}
SHAPES = {"label": (1,), "probabilities": (2,)}  # a batched model of Triton has no output of one axis


def main() -> None:
    """Serves until it is ended."""
    arguments = read_arguments("grpc")
    logging.getLogger().setLevel(logging.WARNING)
    model = OneThreadModel(arguments.file)

    @batch
    def infer(**inputs: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        outputs = model.run(inputs[model.input])
        return {name: array.reshape(-1, *SHAPES[name]) for name, array in outputs.items()}

    delay_us = arguments.settings.pop("max_queue_delay_microseconds")
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=arguments.port,
        http_address="127.0.0.1",
        http_port=free_port(),
        metrics_port=free_port(),
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=arguments.model,
            infer_func=infer,
            inputs=[Tensor(name=model.input, dtype=np.float32, shape=(model.columns,))],
            outputs=[Tensor(name=name, dtype=DTYPES[name], shape=SHAPES[name]) for name in model.outputs],
            config=ModelConfig(batcher=DynamicBatcher(max_queue_delay_microseconds=delay_us), **arguments.settings),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main()
