"""What each fitted estimator becomes in the graph: a rule per class, and skl2onnx's converters for classes without one.

A rule takes the fitted object, its input [rows, columns] and the context, and gives an `Answer`. It emits estimators that
it holds with `context.emit`. If it raises `NotCompiled`, skl2onnx is asked. Rules are found by exact class, so that a
subclass that does something else never gets its parent's.
"""

from collections.abc import Callable
from typing import Any, Final

from spox import Var

from penstock_tools.sklearn_compiler.graph import convert, pipelines, target
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.refusals import NotCompiled

Rule = Callable[[Any, Var, Context], Answer]


def emit(estimator: Any, x: Var, context: Context) -> Answer:
    """What a fitted estimator or transformer gives for x.

    Args:
        estimator: fitted.
        x: [rows, columns], of the context's datatype.
        context: the graph that is being written.

    Raises:
        UnsupportedError: there is neither a rule nor a converter for it, or the converter cannot take its parameters.
    """
    rule = RULES.get(type(estimator))
    if rule is not None:
        try:
            return rule(estimator, x, context)
        except NotCompiled:
            pass
    return convert.emit(estimator, x, context)


RULES: Final[dict[type, Rule]] = {**pipelines.RULES, **target.RULES}
