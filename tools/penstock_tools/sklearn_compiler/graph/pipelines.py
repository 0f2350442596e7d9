"""Transformers of transformers that are all in the graph: pipelines, columns apart, unions."""

from typing import Any, Final

import spox.opset.ai.onnx.v18 as op
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, columns
from penstock_tools.sklearn_compiler.steps import fitted_branches, predicting_steps


def pipeline(fitted: Any, x: Var, context: Context) -> Answer:
    """What the last step gives behind all others.

    Raises:
        UnsupportedError: a step has neither a rule nor a converter.
    """
    answer = Answer(features=x)
    for _, step in predicting_steps(fitted):
        if step in (None, "passthrough"):
            continue
        assert answer.features is not None  # Only the last step may be no transformer.
        answer = context.emit(step, context.cast(answer.features), scores=context.wants_scores)
    return answer


def column_transformer(fitted: Any, x: Var, context: Context) -> Answer:
    """What each branch makes of its columns, side by side."""
    weights = fitted.transformer_weights or {}
    return _side_by_side(
        [
            _weighted(transformer, columns(x, chosen), weights.get(name), context)
            for name, transformer, chosen in fitted_branches(fitted)
            if not (isinstance(transformer, str) and transformer == "drop")
        ]
    )


def feature_union(fitted: Any, x: Var, context: Context) -> Answer:
    """What each transformer makes of all columns, side by side."""
    weights = fitted.transformer_weights or {}
    members = [(name, each) for name, each in fitted.transformer_list if each != "drop"]
    return _side_by_side([_weighted(each, x, weights.get(name), context) for name, each in members])


def _weighted(transformer: Any, x: Var, weight: float | None, context: Context) -> Var:
    found = x if transformer in (None, "passthrough") else context.emit(transformer, x).features
    assert found is not None  # It is a transformer.
    found = context.cast(found)
    return found if weight is None else op.mul(found, context.constant(weight))


def _side_by_side(parts: list[Var]) -> Answer:
    return Answer(features=ops.side_by_side(parts))


RULES: Final = {Pipeline: pipeline, ColumnTransformer: column_transformer, FeatureUnion: feature_union}
