"""Pipelines whose steps are all in the graph: each step's features are the next one's input."""

from typing import Any, Final

from sklearn.pipeline import Pipeline
from spox import Var

from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context


def pipeline(steps: Any, x: Var, context: Context) -> Answer:
    """What the last step gives behind all others.

    Raises:
        UnsupportedError: a step has neither a rule nor a converter.
    """
    answer = Answer(features=x)
    for _, step in steps.steps:
        if step in (None, "passthrough"):
            continue
        assert answer.features is not None  # Only the last step may be no transformer.
        answer = context.emit(step, context.cast(answer.features), scores=context.wants_scores)
    return answer


RULES: Final = {Pipeline: pipeline}
