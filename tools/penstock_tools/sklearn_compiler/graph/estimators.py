"""What each fitted estimator becomes in the graph: a rule per class, and skl2onnx's converters for classes without one.

A rule takes the fitted object, its input [rows, columns] and the context, and gives an `Answer`. It emits estimators that
it holds with `context.emit`. If it raises `NotCompiled`, skl2onnx is asked. A subclass gets its parent's rule
where it answers as the parent does (`kinds`).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from spox import Var

from penstock_tools.sklearn_compiler import kinds
from penstock_tools.sklearn_compiler.graph import (
    boosting,
    calibrated,
    centroids,
    convert,
    dummies,
    foreign,
    impute,
    isotonic,
    kernel_maps,
    knn_imputer,
    multiclass,
    neighbours,
    outputs,
    pipelines,
    projections,
    radius,
    stacking,
    target,
    thresholds,
    trees,
    voting,
    wrappers,
)
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, columns
from penstock_tools.sklearn_compiler.graph.plan import Plan
from penstock_tools.sklearn_compiler.refusals import NotCompiled
from penstock_tools.sklearn_compiler.trees import is_ensemble

Rule = Callable[[Any, Var, Context], Answer]


def emit(estimator: Any, x: Var, context: Context) -> Answer:
    """What a fitted estimator or transformer gives for x.

    Args:
        estimator: fitted.
        x: [rows, columns], of the context's datatype; a member of a container that has a plan reads its own columns.
        context: the graph that is being written.

    Raises:
        UnsupportedError: there is neither a rule nor a converter for it, or the converter cannot take its parameters.
    """
    member = context.members.get(id(estimator))
    if member is not None:
        return member(context)
    return _dispatched(estimator, x, replace(context, members={}))


def follow(plan: Plan, context: Context) -> Answer:
    """What the plan's estimator gives, of its columns of the graph's input.

    Raises:
        UnsupportedError: as `emit`.
    """
    x = context.matrix
    if plan.source is not None:
        own = x if plan.columns is None else columns(x, plan.columns)
        x = context.cast(plan.source.emit(own, context))
    if plan.estimator is None:
        return Answer(features=x)
    members = {key: partial(follow, member) for key, member in plan.members.items()}
    return _dispatched(plan.estimator, x, replace(context, members=members))


def is_known(estimator: Any) -> bool:
    """Whether there is a rule for it or a converter, and for each step of a pipeline."""
    if hasattr(estimator, "steps"):
        return all(step in (None, "passthrough") or is_known(step) for _, step in estimator.steps)
    return _rule(estimator) is not None or convert.has_converter(estimator)


def _rule(estimator: Any) -> Rule | None:
    # Libraries beside scikit-learn are not imported for a table of their classes.
    return kinds.lookup(RULES, estimator) or (trees.emit if is_ensemble(estimator) else None)


def _dispatched(estimator: Any, x: Var, context: Context) -> Answer:
    rule = _rule(estimator)
    if rule is not None:
        try:
            return rule(estimator, x, context)
        except NotCompiled:
            pass
    return convert.emit(estimator, x, context)


RULES: Final[dict[type, Rule]] = {
    **boosting.RULES,
    **calibrated.RULES,
    **centroids.RULES,
    **dummies.RULES,
    **foreign.RULES,
    **impute.RULES,
    **isotonic.RULES,
    **kernel_maps.RULES,
    **knn_imputer.RULES,
    **multiclass.RULES,
    **neighbours.RULES,
    **outputs.RULES,
    **pipelines.RULES,
    **projections.RULES,
    **radius.RULES,
    **stacking.RULES,
    **target.RULES,
    **thresholds.RULES,
    **voting.RULES,
    **wrappers.RULES,
}
