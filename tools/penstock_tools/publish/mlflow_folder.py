"""The folder that MLflow's ONNX flavour keeps a model in, so that any MLflow tool reads what Penstock publishes.

Decides what MLflow is told of the model: its signature and what it needs to run. Penstock's own files are added by
`models.artifact`. `publish` calls it.
"""

import importlib.metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.tensors import NUMPY_TYPES
from penstock_server.models.signature import TensorSpec
from penstock_tools.publish.onnx_graph import Graph

_RUNTIME: Final = ("onnx", "onnxruntime", "numpy")

_INLINE_BYTES: Final = 2**30
"""Weights of larger models go into external data: a model near protobuf's limit of 2 GiB may not grow by a byte."""


def save(graph: Graph, folder: Path) -> None:
    """Writes the model as `mlflow.onnx.load_model` reads it, into a folder that is not there yet."""
    import mlflow.onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    inputs, outputs = (
        Schema([_schema_spec(spec) for spec in specs]) for specs in (graph.signature.inputs, graph.signature.outputs)
    )
    mlflow.onnx.save_model(
        graph.model,
        str(folder),
        signature=ModelSignature(inputs=inputs, outputs=outputs),
        # Given, because MLflow would find them by loading the model in a process of its own, which takes seconds.
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _RUNTIME],
        save_as_external_data=graph.model.ByteSize() > _INLINE_BYTES,
    )


def _schema_spec(spec: TensorSpec) -> Any:
    from mlflow.types import TensorSpec as MlflowTensorSpec

    dtype = np.dtype(str) if spec.datatype == "BYTES" else NUMPY_TYPES[spec.datatype]
    return MlflowTensorSpec(dtype, spec.shape, spec.name)
