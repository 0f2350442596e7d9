"""Makes a model of few columns out of one that reads a text's many: the part of its coefficients that is the text's goes along.

A linear model needs of a text only the sums of its columns times the coefficients, one for each of the model's scores. So the
specification projects the columns onto these sums (`Grams.project`), and the estimator becomes a copy that reads the sums, with
ones as coefficients. What needs each column by itself gets them all, where they are few enough.
"""

import copy
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn import linear_model, naive_bayes, svm
from sklearn.decomposition import TruncatedSVD
from sklearn.neural_network import MLPClassifier, MLPRegressor

from penstock_server.errors import UnsupportedError
from penstock_server.features.spec.grams import Above
from penstock_server.features.spec.steps import Binarise, Fill
from penstock_tools.sklearn_compiler import kinds
from penstock_tools.sklearn_compiler.columns import Numbers, Part, Parts, Words, numbers, then
from penstock_tools.sklearn_compiler.refusals import Refused

Matrix = NDArray[np.float64]


def fold(parts: Parts, estimator: Any) -> tuple[Parts, Any]:
    """Parts without `Words`, and the fitted estimator that reads them.

    Args:
        parts: what reaches the estimator.
        estimator: fitted on the parts' columns; it is not changed.

    Returns:
        The parts and the estimator as they are where there are no `Words`. Else parts of numbers, and a copy of the estimator
        for as many columns; of a naive Bayes a `LogisticRegression` that answers alike.

    Raises:
        UnsupportedError: the estimator needs each of the columns by itself, and they are too many; or too many coefficients.
    """
    if not any(isinstance(part, Words) for part in parts):
        return parts, estimator
    rule = kinds.lookup(_RULES, estimator)
    try:
        if rule is None:
            return tuple(_dense(part, estimator) for part in parts), estimator
        coefficients, reduced = rule(estimator)
        if rule is _bernoulli and estimator.binarize is not None:
            parts = binarised(parts, float(estimator.binarize))
        made, kept = _split(parts, coefficients)
    except Refused as reason:
        raise UnsupportedError(f"{type(estimator).__name__} cannot be published: {reason}") from reason
    return made, reduced(kept)


def _split(parts: Parts, coefficients: Matrix) -> tuple[Parts, Matrix]:
    """The parts with those of words projected, and the coefficients of the columns that come out: ones for the sums."""
    made: list[Part] = []
    kept: list[Matrix] = []
    at = 0
    for part in parts:
        own = coefficients[:, at : at + part.width]
        at += part.width
        made.append(part.projected(own.T) if isinstance(part, Words) else part)
        kept.append(np.eye(len(own)) if isinstance(part, Words) else own)
    return tuple(made), np.hstack(kept)


def _dense(part: Part, estimator: Any) -> Part:
    """A part's columns themselves.

    XGBoost takes what a sparse matrix does not hold for missing. Columns beside those of a text come in the same matrix.
    """
    made = part.dense() if isinstance(part, Words) else part
    if isinstance(made, Numbers) and type(estimator).__module__.partition(".")[0] == "xgboost":
        return Numbers(then(made.block, Fill((None,), missing=0.0)))
    return made


def binarised(parts: Parts, threshold: float) -> Parts:
    """1 where a value is above the threshold, else 0.

    Raises:
        Refused, NotCompiled: a part beside the words is none of numbers.
    """
    return tuple(
        part.weighed(Above(threshold))
        if isinstance(part, Words)
        else Numbers(then(numbers((part,)), Binarise((threshold,))))
        for part in parts
    )


Folded = tuple[Matrix, Callable[[Matrix], Any]]
"""The coefficients [outputs, columns] of an estimator, and what makes one of fewer columns from theirs."""


def _matrix(coefficients: Any) -> Matrix:
    dense = coefficients.toarray() if sparse.issparse(coefficients) else coefficients
    return np.atleast_2d(np.asarray(dense, np.float64))


def _copied(fitted: Any, width: int, **attributes: Any) -> Any:
    """A shallow copy for so many columns, whose names it does not know, with these attributes."""
    made = copy.copy(fitted)
    vars(made).pop("feature_names_in_", None)
    for name, value in {**attributes, "n_features_in_": width}.items():
        setattr(made, name, value)
    return made


def _linear(estimator: Any) -> Folded:
    def reduced(kept: Matrix) -> Any:
        return _copied(estimator, kept.shape[1], coef_=kept[0] if np.ndim(estimator.coef_) == 1 else kept)

    return _matrix(estimator.coef_), reduced


def _bayes(coefficients: Matrix, intercept: NDArray[np.float64], estimator: Any) -> Folded:
    """The logistic regression whose scores are the classes' log likelihoods; of two classes one score is enough."""
    if len(estimator.classes_) < 2:
        raise Refused("it knows one class alone; expected training data of two at least")
    if len(estimator.classes_) == 2:
        coefficients, intercept = coefficients[1:] - coefficients[:1], intercept[1:] - intercept[:1]
    made = linear_model.LogisticRegression()
    made.classes_, made.intercept_, made.coef_ = estimator.classes_, intercept, coefficients
    made.n_iter_ = np.zeros(1, np.int32)
    return _linear(made)


def _multinomial(estimator: Any) -> Folded:
    return _bayes(estimator.feature_log_prob_, estimator.class_log_prior_, estimator)


def _complement(estimator: Any) -> Folded:
    return _bayes(estimator.feature_log_prob_, np.zeros(len(estimator.classes_)), estimator)


def _bernoulli(estimator: Any) -> Folded:
    absent = np.log1p(-np.exp(estimator.feature_log_prob_))
    intercept = estimator.class_log_prior_ + absent.sum(axis=1)
    return _bayes(estimator.feature_log_prob_ - absent, intercept, estimator)


def _network(estimator: Any) -> Folded:
    """A neural network's first layer is linear."""

    def reduced(kept: Matrix) -> Any:
        return _copied(estimator, kept.shape[1], coefs_=[np.ascontiguousarray(kept.T), *estimator.coefs_[1:]])

    return _matrix(estimator.coefs_[0].T), reduced


def _svd(estimator: Any) -> Folded:
    return _matrix(estimator.components_), lambda kept: _copied(estimator, kept.shape[1], components_=kept)


def _linear_models() -> list[type]:
    names = (
        "ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars LarsCV Lasso LassoCV LassoLars "
        "LassoLarsCV LassoLarsIC LinearRegression LogisticRegression LogisticRegressionCV MultiTaskElasticNet MultiTaskLasso "
        "OrthogonalMatchingPursuit PassiveAggressiveClassifier PassiveAggressiveRegressor Perceptron PoissonRegressor "
        "QuantileRegressor Ridge RidgeCV RidgeClassifier RidgeClassifierCV SGDClassifier SGDRegressor TheilSenRegressor "
        "TweedieRegressor"
    )
    # Some come and go with scikit-learn's versions.
    return [getattr(linear_model, name) for name in names.split() if hasattr(linear_model, name)]


_RULES: Final[dict[type, Callable[[Any], Folded]]] = {
    **dict.fromkeys((*_linear_models(), svm.LinearSVC, svm.LinearSVR), _linear),
    naive_bayes.MultinomialNB: _multinomial,
    naive_bayes.ComplementNB: _complement,
    naive_bayes.BernoulliNB: _bernoulli,
    MLPClassifier: _network,
    MLPRegressor: _network,
    TruncatedSVD: _svd,
}
