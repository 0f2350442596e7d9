"""Transformers without a step of the specification go into the ONNX graph, between the specification's block and the model.

This module decides what goes into the graph and what goes past it. `walk` calls it when a rule gives up. What neither the
specification nor the graph can do is refused, with its place and what would work.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.columns import (
    Coded,
    InGraph,
    Numbers,
    Part,
    Strings,
    Words,
    join,
)
from penstock_tools.sklearn_compiler.graph.context import Context, columns
from penstock_tools.sklearn_compiler.graph.estimators import is_known
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused, StepPath, place

_INSTEAD: Final = {
    "DictVectorizer": "a frame with a column for each key, and OneHotEncoder, work",
    "NMF": "PCA, TruncatedSVD and FactorAnalysis work",
    "PolynomialCountSketch": "Nystroem and RBFSampler work",
    "FunctionTransformer": "functions of whole columns by numpy and pandas compile",
}
_ELSE: Final = "take a transformer that Penstock compiles or skl2onnx converts"


def applied(transformer: Any, parts: Sequence[Part], path: StepPath, reason: NotCompiled) -> InGraph:
    """What the transformer makes of the parts, in the graph.

    Raises:
        UnsupportedError: text reaches it, or skl2onnx has no converter for it.
    """
    texts = [part.column for part in parts if isinstance(part, Strings)]
    if texts:
        raise refusal(transformer, path, f"column {texts[0]!r} is text when it gets there, and {reason}")
    if any(isinstance(part, Coded) for part in parts):
        raise refusal(transformer, path, f"a column is text when it gets there, and {reason}")
    if not parts or not is_known(transformer):
        raise refusal(transformer, path, str(reason))
    try:
        before = stacked(parts)
    except Refused as refused:
        raise refusal(transformer, path, f"{reason}, and {refused}") from refused

    def emit(x: Var, context: Context) -> Var:
        features = context.emit(transformer, context.cast(before.emit(x, context))).features
        assert features is not None  # It is a transformer.
        return features

    return InGraph(before.block, emit, width_out(transformer, before.width))


def refusal(transformer: Any, path: StepPath, reason: str) -> UnsupportedError:
    """The error of a transformer that neither side can compute: where it is, why, and what would work.

    A reason with a semicolon has said what would work.
    """
    instead = "" if "; " in reason else f"; {_INSTEAD.get(type(transformer).__name__, _ELSE)}"
    return UnsupportedError(f"{place(path)} cannot be published: {reason}{instead}")


def stacked(parts: Sequence[Part]) -> InGraph:
    """Parts side by side as one. The blocks of all stand side by side in its block; what are numbers already pass."""
    made = [part.dense() if isinstance(part, Words) else part for part in parts]
    given = [part for part in made if isinstance(part, Numbers | InGraph)]
    if len(given) == 1 and isinstance(given[0], InGraph):
        return given[0]
    block = join([part.block for part in given])
    if all(isinstance(part, Numbers) for part in given):
        return InGraph(block, lambda x, _: x, block.width)

    def emit(x: Var, context: Context) -> Var:
        made, at = [], 0
        for part in given:
            own = columns(x, range(at, at := at + part.block.width))
            made.append(context.cast(part.emit(own, context)) if isinstance(part, InGraph) else own)
        return op.concat(made, axis=1)

    return InGraph(block, emit, sum(part.width for part in given))


def width_out(transformer: Any, columns: int) -> int:
    """How many columns a fitted transformer gives for a matrix of `columns`."""
    with warnings.catch_warnings():
        # If it was fitted on named columns, it warns of a bare matrix.
        warnings.simplefilter("ignore")
        return int(transformer.transform(np.zeros((1, columns))).shape[1])
