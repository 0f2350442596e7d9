"""Estimators that answer as the one they hold: searches, frozen and self-trained ones, and those that choose columns for it."""

from typing import Any, Final

from sklearn.feature_selection import RFE, RFECV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import RANSACRegressor
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.semi_supervised import SelfTrainingClassifier
from spox import Var

from penstock_tools.sklearn_compiler import kinds
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, columns


def unwrapped(fitted: Any) -> Any:
    """The fitted estimator in those that answer as it does, however deep; the object itself where it is none of them."""
    name = _holder(fitted)
    inner = None if name is None else getattr(fitted, name, None)
    return fitted if inner is None else unwrapped(inner)


def _holder(fitted: Any) -> str | None:
    known = kinds.lookup(_HELD, fitted)
    if known is None and type(fitted).__module__.startswith("sklearn.model_selection._search_successive_halving"):
        # Importing these needs scikit-learn's experimental switch, which whoever made the object has thrown.
        return "best_estimator_"
    return known


_HELD: Final = {
    GridSearchCV: "best_estimator_",
    RandomizedSearchCV: "best_estimator_",
    FrozenEstimator: "estimator",
    SelfTrainingClassifier: "estimator_",
    RANSACRegressor: "estimator_",
}


def wrapper(fitted: Any, x: Var, context: Context) -> Answer:
    """What the estimator in it gives."""
    return context.emit(unwrapped(fitted), x, scores=context.wants_scores)


def chosen(selector: Any, x: Var, context: Context) -> Answer:
    """What the estimator gives for the columns that were chosen for it."""
    places = selector.get_support(indices=True).tolist()
    return context.emit(selector.estimator_, columns(x, places), scores=context.wants_scores)


RULES: Final = {**dict.fromkeys(_HELD, wrapper), RFE: chosen, RFECV: chosen}
