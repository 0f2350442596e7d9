"""Linear models: their coefficients for the features of a specification, also where the graph makes sums of these before."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    GammaRegressor,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    TweedieRegressor,
)
from sklearn.svm import LinearSVC, LinearSVR

from penstock_server.explain.explanation import LinearExplanation, Meaning, Origins
from penstock_tools.explain.front import Front

Reals = NDArray[np.float64]

_LOG_ODDS: Final = (LogisticRegression, LogisticRegressionCV)
_LOGARITHMS: Final = (PoissonRegressor, GammaRegressor, TweedieRegressor)
_ELSEWHERE: Final = (LinearSVC, LinearSVR, LinearDiscriminantAnalysis)


def is_linear(model: Any) -> bool:
    """Whether it has coefficients for its features, of which `explanation` makes attributions."""
    kind = type(model)
    is_known = kind in _ELSEWHERE or kind.__module__.startswith("sklearn.linear_model.")
    return is_known and hasattr(model, "coef_") and hasattr(model, "intercept_")


def of(model: Any) -> str:
    """What its coefficients add up to, in words."""
    if type(model) in _LOG_ODDS:
        return "the log-odds" if len(model.classes_) == 2 else "the scores before softmax"
    if is_classifier(model):
        return "the decision function"
    return "the logarithm of the prediction" if _is_logarithm(model) else "the prediction"


def terms(model: Any) -> tuple[Reals, Reals]:
    """Its coefficients [features that it gets, outputs], and what it adds to their sums [outputs]."""
    coefficients = np.atleast_2d(np.asarray(model.coef_, np.float64)).T
    base = np.broadcast_to(np.asarray(model.intercept_, np.float64).reshape(-1), coefficients.shape[1:])
    return coefficients, base.copy()


def margin(model: Any, rows: Reals) -> Reals:
    """What its coefficients add up to for these rows, as the model itself computes it: float64 [rows, outputs]."""
    if is_classifier(model):
        values = model.decision_function(rows)
    else:
        values = np.log(model.predict(rows)) if _is_logarithm(model) else model.predict(rows)
    return np.asarray(values, np.float64).reshape(len(rows), -1)


def on_features(front: Front, coefficients: Reals, width: int, base: Reals | None = None) -> tuple[Reals, Reals]:
    """Coefficients for the features of a specification, and what is added to them.

    Args:
        front: what comes before the model.
        coefficients: the model's own [features that it gets, outputs].
        width: the features of the specification.
        base: what the model adds itself; None for nothing.
    """
    added = np.zeros(coefficients.shape[1]) if base is None else base.copy()
    if front.columns is not None:
        made = np.zeros((width, coefficients.shape[1]))
        np.add.at(made, front.columns, coefficients)
        return made, added
    assert front.matrix is not None  # It passes columns on, or makes sums of them.
    assert front.offset is not None
    return front.matrix @ coefficients, added + front.offset @ coefficients


def explanation(coefficients: Reals, base: Reals, rows: Reals, meaning: Meaning, origins: Origins) -> LinearExplanation:
    """The explanation of what is linear in the features of a specification.

    Args:
        coefficients: float64 [features, outputs].
        base: what is added [outputs].
        rows: the background [rows, features of the specification]; those that are not finite are left out.
        meaning: what is explained; its base is computed here.
        origins: the raw columns of each feature.
    """
    finite = rows[np.isfinite(rows).all(axis=1)]
    means = finite.mean(axis=0) if len(finite) else np.zeros(rows.shape[1])
    base = base + means @ coefficients
    return LinearExplanation(
        meaning=Meaning(meaning.of, tuple(base.tolist()), meaning.labels, meaning.label),
        origins=origins,
        coefficients=np.ascontiguousarray(coefficients, "<f8").tobytes(),
        means=means.astype("<f8").tobytes(),
        rows=len(finite),
    )


def _is_logarithm(model: Any) -> bool:
    if type(model) is TweedieRegressor:
        return bool(model.link == "log" or (model.link == "auto" and model.power > 0))
    return type(model) in _LOGARITHMS
