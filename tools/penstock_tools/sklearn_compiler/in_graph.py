"""Transformers without a step of the specification go into the ONNX graph, between the specification's block and the model.

This module decides what goes into the graph and what goes past it, and puts fitted transformers together where
scikit-learn itself would fit them again. `walk` calls it when a rule gives up. What neither the specification nor the
graph can do is refused, with its place and what would work.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.columns import InGraph, Numbers, Part, Strings, join
from penstock_tools.sklearn_compiler.refusals import NotCompiled, StepPath, place

_INSTEAD: Final = {
    # skl2onnx picks columns of the graph's input alone.
    "ColumnTransformer": "choose columns before that, or with a feature selector",
    "IterativeImputer": "SimpleImputer and KNNImputer work",
    "CountVectorizer": "FeatureHasher, OneHotEncoder and TargetEncoder work on whole texts",
    "TfidfVectorizer": "FeatureHasher, OneHotEncoder and TargetEncoder work on whole texts",
    "HashingVectorizer": "FeatureHasher works on whole texts",
    "FunctionTransformer": "numpy's functions of one array, numpy.clip and penstock_tools.functions work",
}
_ELSE: Final = "expected a transformer that Penstock compiles or skl2onnx converts, fitted on what requests can hold"


def applied(transformer: Any, parts: Sequence[Part], path: StepPath, reason: NotCompiled) -> InGraph:
    """What the transformer makes of the parts, in the graph.

    Raises:
        UnsupportedError: text reaches it, or skl2onnx has no converter for it.
    """
    texts = [part.column for part in parts if isinstance(part, Strings)]
    if texts:
        raise refusal(transformer, path, f"column {texts[0]!r} is text when it gets there, and {reason}")
    if not parts or not _can_convert(transformer):
        raise refusal(transformer, path, str(reason))
    before = stacked(parts)
    whole = transformer if before.transformer is None else chained(before.transformer, transformer)
    return InGraph(before.block, whole, _width_out(whole, before.block.width))


def refusal(transformer: Any, path: StepPath, reason: str) -> UnsupportedError:
    """The error of a transformer that neither side can compute: where it is, why, and what would work."""
    instead = _INSTEAD.get(type(transformer).__name__, _ELSE)
    return UnsupportedError(f"{place(path)} cannot be published: {reason}; {instead}")


def stacked(parts: Sequence[Part]) -> InGraph:
    """Parts side by side as one, whose transformer is None where all are numbers already.

    The blocks of all stand side by side in the graph's input, and it passes on what it has nothing to do to.
    """
    given = [part for part in parts if isinstance(part, Numbers | InGraph)]
    if len(given) == 1 and isinstance(given[0], InGraph):
        return given[0]
    block = join([part.block for part in given])
    width = sum(part.width for part in given)
    if all(isinstance(part, Numbers) for part in given):
        return InGraph(block, None, width)
    branches, at = [], 0
    for part in given:
        columns = range(at, at := at + part.block.width)
        branches.append((part.transformer if isinstance(part, InGraph) else "passthrough", columns))
    return InGraph(block, _side_by_side(branches, at), width)


def chained(*transformers: Any) -> Pipeline:
    """Fitted transformers or estimators one after another."""
    return Pipeline([(f"step_{at}", transformer) for at, transformer in enumerate(transformers)])


def _side_by_side(branches: Sequence[tuple[Any, Sequence[int]]], columns: int) -> ColumnTransformer:
    """Fitted transformers side by side, each with its columns of a matrix of `columns`; "passthrough" leaves them alone."""
    named = [(f"part_{at}", "passthrough", list(chosen)) for at, (_, chosen) in enumerate(branches)]
    made = ColumnTransformer(named, sparse_threshold=0).fit(np.zeros((2, columns)))
    made.transformers_ = [
        (name, as_fitted if isinstance(branch, str) else branch, chosen)
        for (name, as_fitted, chosen), (branch, _) in zip(made.transformers_, branches, strict=False)
    ]
    return made


def _width_out(transformer: Any, columns: int) -> int:
    """How many columns a fitted transformer gives for a matrix of `columns`."""
    with warnings.catch_warnings():
        # If it was fitted on named columns, it warns of a bare matrix.
        warnings.simplefilter("ignore")
        return int(transformer.transform(np.zeros((1, columns))).shape[1])


def _can_convert(transformer: Any) -> bool:
    """Whether skl2onnx has a converter for it, or for each of a pipeline's steps; what a function does it cannot read."""
    # skl2onnx's public list has its own names for the classes, some for several.
    from skl2onnx._supported_operators import sklearn_operator_name_map

    if isinstance(transformer, Pipeline):
        return all(step in (None, "passthrough") or _can_convert(step) for _, step in transformer.steps)
    return type(transformer) in sklearn_operator_name_map and type(transformer) is not FunctionTransformer
