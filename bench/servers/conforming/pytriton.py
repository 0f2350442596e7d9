"""Triton Inference Server with PyTriton's Python handlers for the models of the conformance suite, unbatched.

Source: triton-inference-server.github.io/pytriton, "Binding Model to Triton".
"""

import logging
from functools import partial
from typing import Any, Final

import numpy as np
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bench.servers.conforming.answers import answer, ports
from penstock_conformance.contract import MODELS, Model, Tensors

_TYPES: Final[dict[str, Any]] = {
    "BOOL": np.bool_,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": bytes,
}


def _declared(tensors: Tensors) -> list[Tensor]:
    return [
        Tensor(name=name, dtype=_TYPES.get(datatype) or np.dtype(datatype.lower()).type, shape=shape)
        for name, (datatype, shape) in tensors.items()
    ]


def _answers(contract: Model, requests: list[Any]) -> list[dict[str, Any]]:
    return [answer(contract, "1", dict(request.items())) for request in requests]


def main() -> None:
    """Serves until it is ended."""
    found = ports()
    logging.getLogger().setLevel(logging.WARNING)
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=found.grpc,
        http_address="127.0.0.1",
        http_port=found.http,
        metrics_port=found.metrics,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        for contract in (each for each in MODELS.values() if len(each.versions) == 1):
            # Of a second version PyTriton's own socket is taken, and Triton ends.
            triton.bind(
                model_name=contract.name,
                infer_func=partial(_answers, contract),
                inputs=_declared(contract.inputs),
                outputs=_declared(contract.outputs),
                config=ModelConfig(batching=False),
                strict=False,
            )
        triton.serve()


if __name__ == "__main__":
    main()
