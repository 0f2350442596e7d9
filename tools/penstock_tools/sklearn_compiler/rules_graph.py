"""Rules of transformers for the graph: those that predict too, and are asked for their features here.

Everything else without a rule goes into the graph by its class alone; `graph.estimators` has the rules of what is there.
"""

from functools import partial
from typing import Any, Final

from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from spox import Var

from penstock_tools.sklearn_compiler import in_graph
from penstock_tools.sklearn_compiler.columns import InGraph, Parts, Strings
from penstock_tools.sklearn_compiler.graph import kernel_maps, projections
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.graph.estimators import Rule as GraphRule
from penstock_tools.sklearn_compiler.graph.estimators import is_known
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused


def iterative(imputer: Any, parts: Parts) -> Parts:  # noqa: ARG001 - a rule
    """IterativeImputer.

    Raises:
        NotCompiled: the graph takes it.
        Refused: no two answers of it are the same.
    """
    if imputer.sample_posterior:
        raise Refused("it draws its values by chance; sample_posterior=False works")
    raise NotCompiled("it is made of estimators")


def computed(transformer: Any, parts: Parts) -> Parts:
    """What the graph makes of the parts with a transformer that it knows by its class.

    Raises:
        NotCompiled: the graph does not know it.
        Refused: a part is text.
    """
    if not is_known(transformer):
        raise NotCompiled(f"Penstock has no rule for {type(transformer).__name__}")
    return _features(lambda given, x, context: context.emit(given, x), transformer, parts)


def _features(rule: GraphRule, transformer: Any, parts: Parts) -> Parts:
    """What the graph's rule makes of the parts.

    Raises:
        Refused: one is text.
    """
    texts = [part.column for part in parts if isinstance(part, Strings)]
    if texts:
        raise Refused(f"column {texts[0]!r} is text when it gets there; make numbers of it first")
    before = in_graph.stacked(parts)

    def emit(x: Var, context: Context) -> Var:
        features = rule(transformer, context.cast(before.emit(x, context)), context).features
        assert features is not None  # It is a transformer's rule.
        return features

    return (InGraph(before.block, emit, in_graph.width_out(transformer, before.width)),)


RULES: Final = {
    LinearDiscriminantAnalysis: partial(_features, projections.discriminants),
    KMeans: partial(_features, kernel_maps.distances),
    MiniBatchKMeans: partial(_features, kernel_maps.distances),
}
