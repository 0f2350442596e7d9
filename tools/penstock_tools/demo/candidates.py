"""The models that are trained for the flights: their features and their classifiers.

Decides what is done to each column for each kind of classifier; fitting, judging and registering is `train`'s business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock_server.features.fit import NumberRecipe, Recipe, number, string
from penstock_tools.demo.flights import NUMBERS, STRINGS

_TREES: Final = {
    "learning_rate": 0.1,
    "max_iter": 60,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 200,
    "l2_regularization": 5.0,
    "early_stopping": False,
    "random_state": 0,
}
_LINEAR: Final = {"max_iter": 300, "C": 1.0}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to train.

    Attributes:
        title: what people call it, such as "logistic regression".
        recipes: how each raw column becomes features.
        params: the classifier's settings, as they are logged.
        classifier: makes the unfitted scikit-learn classifier.
    """

    title: str
    recipes: Sequence[Recipe]
    params: dict[str, Any]
    classifier: Callable[[], Any]


def logistic_regression() -> Candidate:
    """Version 1: every category a column of its own, every number filled, bounded and standardised."""

    def classifier() -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(**_LINEAR)

    return Candidate("logistic regression", [*_one_hot(), *_standardised()], _LINEAR, classifier)


def boosted_trees() -> Candidate:
    """Version 2: categories as numbers and raw values, of which trees find the thresholds themselves."""

    def classifier() -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(**_TREES)

    return Candidate("boosted trees", [*_ordinal(), *_filled()], _TREES, classifier)


def _one_hot() -> list[Recipe]:
    return [string(name).one_hot(max_categories=120) for name in STRINGS]


def _ordinal() -> list[Recipe]:
    return [string(name).ordinal() for name in STRINGS]


def _filled() -> list[NumberRecipe]:
    """No gust reported is no gust; else the middle value says least."""
    return [number(name).fill(0.0 if name == "wind_gust" else "median") for name in NUMBERS]


def _standardised() -> list[Recipe]:
    """A linear model runs away on values it never saw, such as the temperatures of July: they are bounded first."""
    return [recipe.clip_quantiles(0.01, 0.99).standardise() for recipe in _filled()]
