"""Fitted scikit-learn transformers put together, where scikit-learn itself would fit them anew.

What comes out transforms as scikit-learn does and is converted by skl2onnx; `parts` and `in_graph` decide what is needed.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer


def chained(*transformers: Any) -> Pipeline:
    """Fitted transformers or estimators one after another."""
    return Pipeline([(f"step_{at}", transformer) for at, transformer in enumerate(transformers)])


def beside(branches: Sequence[tuple[Any, Sequence[int]]], columns: int) -> ColumnTransformer:
    """Fitted transformers side by side, each with its columns of a matrix of so many; "passthrough" leaves them alone."""
    named = [(f"part_{at}", "passthrough", list(chosen)) for at, (_, chosen) in enumerate(branches)]
    made = ColumnTransformer(named, sparse_threshold=0).fit(np.zeros((2, columns)))
    made.transformers_ = [
        (name, as_fitted if isinstance(branch, str) else branch, chosen)
        for (name, as_fitted, chosen), (branch, _) in zip(made.transformers_, branches, strict=False)
    ]
    return made


def width_out(transformer: Any, columns: int) -> int:
    """How many columns a fitted transformer gives for so many."""
    with warnings.catch_warnings():
        # It was fitted on named columns, perhaps, and is asked about a bare matrix.
        warnings.simplefilter("ignore")
        return int(transformer.transform(np.zeros((1, columns))).shape[1])


def can_convert(transformer: Any) -> bool:
    """Whether skl2onnx has a converter for it, or for each of a pipeline's steps; what a function does it cannot read."""
    # skl2onnx's public list has its own names for the classes, some for several.
    from skl2onnx._supported_operators import sklearn_operator_name_map

    if isinstance(transformer, Pipeline):
        return all(step in (None, "passthrough") or can_convert(step) for _, step in transformer.steps)
    return type(transformer) in sklearn_operator_name_map and type(transformer) is not FunctionTransformer
