"""Which class a version predicted for each row, read from its outputs.

A published version says so in its manifest. For a plain model it is guessed from the outputs' form: a classifier gives
integer labels, or a score for each class.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.models.signature import TensorSpec

MAX_SCORES: Final = 64
Outputs = Sequence[NDArray[Any]]
ClassReader = Callable[[Outputs], NDArray[np.int64]]
"""The label of each row, int64 [N]; an index into the version's class names when labels are strings."""


def class_reader(
    specs: Sequence[TensorSpec], output: str | None = None, names: Sequence[str] = ()
) -> ClassReader | None:
    """Reads the predicted class from a version's outputs, or None when they hold no class.

    Args:
        specs: the version's outputs.
        output: the one that holds labels, if the manifest names it.
        names: the classes, for labels that are strings.
    """
    for at, spec in enumerate(specs):
        if spec.name == output or (output is None and _holds_labels(spec)):
            if spec.datatype == "BYTES":
                return _named_labels(at, names) if names else None
            return _labels(at)
    for at, spec in enumerate(specs):
        if _holds_scores(spec):
            return _largest(at)
    return None


def score_output(specs: Sequence[TensorSpec]) -> int | None:
    """The output that holds scores, by which two versions' answers are compared: the first of floats."""
    return next((at for at, spec in enumerate(specs) if spec.datatype in {"FP32", "FP64", "FP16"}), None)


def _holds_labels(spec: TensorSpec) -> bool:
    return spec.datatype in {"INT64", "INT32"} and (len(spec.shape) == 1 or spec.shape[1:] == (1,))


def _holds_scores(spec: TensorSpec) -> bool:
    return spec.datatype in {"FP32", "FP64"} and len(spec.shape) == 2 and 2 <= spec.shape[1] <= MAX_SCORES


def _labels(at: int) -> ClassReader:
    return lambda outputs: outputs[at].reshape(-1).astype(np.int64, copy=False)


def _named_labels(at: int, names: Sequence[str]) -> ClassReader:
    index = {name: position for position, name in enumerate(names)}
    other = len(names)
    return lambda outputs: np.array([index.get(str(label), other) for label in outputs[at].reshape(-1)], np.int64)


def _largest(at: int) -> ClassReader:
    return lambda outputs: outputs[at].argmax(axis=1)
