"""What a rule needs beside the estimator and its input: the datatype, constants, and a way to emit another estimator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import ArrayLike
from spox import Var

from penstock_server.features.spec.spec import Datatype
from penstock_tools.sklearn_compiler.graph.answer import Answer


@dataclass(frozen=True, slots=True)
class Context:
    """The graph that is being written.

    Attributes:
        datatype: what it computes in.
        matrix: the graph's input [rows, width].
        emitter: emits any fitted estimator or transformer; rules call `emit`.
        wants_scores: the caller needs `Answer.scores` where the estimator has `decision_function`, even if it has
            probabilities. Rules that have scores at no cost give them always.
        members: what emits the estimators that the one being emitted holds, by their `id`, where those read columns of
            `matrix` of their own.
    """

    datatype: Datatype
    matrix: Var
    emitter: Callable[[Any, Var, "Context"], Answer] = field(repr=False)
    wants_scores: bool = False
    members: Mapping[int, Callable[["Context"], Answer]] = field(default_factory=dict, repr=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The datatype as numpy calls it."""
        return np.dtype(np.float32 if self.datatype == "FP32" else np.float64)

    def emit(self, estimator: Any, x: Var, *, scores: bool = False) -> Answer:
        """What another fitted estimator or transformer gives for x [rows, columns], which is of the graph's datatype.

        Raises:
            UnsupportedError: there is neither a rule nor a converter for it.
        """
        return self.emitter(estimator, x, replace(self, wants_scores=scores))

    def constant(self, values: ArrayLike) -> Var:
        """A constant of the graph's datatype."""
        return op.constant(value=np.asarray(values, self.dtype))

    def cast(self, var: Var) -> Var:
        """The tensor in the graph's datatype."""
        return var if var.unwrap_tensor().dtype == self.dtype else op.cast(var, to=self.dtype)


def columns(x: Var, chosen: Sequence[int]) -> Var:
    """These columns of a matrix; the matrix itself where they are all of its own."""
    if list(chosen) == list(range(width(x))):
        return x
    if list(chosen) == list(range(chosen[0], chosen[0] + len(chosen))):
        return op.slice(x, op.const([chosen[0]]), op.const([chosen[0] + len(chosen)]), op.const([1]))
    return op.gather(x, op.const(list(chosen)), axis=1)


def width(var: Var) -> int:
    """How many columns a matrix has.

    Raises:
        ValueError: its shape is not known.
    """
    shape = var.unwrap_tensor().shape
    if shape is None or len(shape) != 2 or not isinstance(shape[1], int):
        raise ValueError(f"a tensor of the shape {shape}, expected [rows, columns] with known columns")
    return shape[1]
