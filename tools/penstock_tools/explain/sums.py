"""Models that add up what others answer: votes, stacks with a linear model on top, and one calibrated classifier.

Shapley values of a weighted sum are the weighted sum of the Shapley values, if all are of one kind. So a sum of linear
models is a linear model, and a sum of trees is an ensemble. A mean of probabilities adds up only where the probabilities
do, which those of forests do and those behind a logistic function do not. Whatever adds up no more is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor

from penstock_server.errors import UnsupportedError
from penstock_tools.explain import linear, trees
from penstock_tools.explain.front import Front, front_of
from penstock_tools.sklearn_compiler.graph.plan import Plan
from penstock_tools.sklearn_compiler.graph.wrappers import unwrapped
from penstock_tools.sklearn_compiler.trees import TreeEnsemble, read_trees

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Sums that are linear in the features: base + features @ coefficients.

    Attributes:
        coefficients: float64 [features, outputs].
        base: float64 [outputs].
    """

    coefficients: Reals
    base: Reals


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """What a model adds up.

    Attributes:
        of: what the sums are, in words.
        terms: what is added, on the features of the specification.
        values: what the model itself computes for some rows [rows, outputs].
    """

    of: str
    terms: Linear | TreeEnsemble
    values: Reals


def is_sum(model: Any) -> bool:
    """Whether it is of a class that may be a sum of what others answer."""
    return type(model) in _SUMS


def sum_of(plan: Plan, width: int, rows: Reals) -> Sum:
    """What a model that `is_sum` knows adds up.

    Args:
        plan: its own, with those of its members.
        width: the features of the specification.
        rows: some rows of features.

    Raises:
        UnsupportedError: its answer is no sum, or one of terms that have attributions of two kinds.
    """
    model = unwrapped(plan.estimator)
    return _SUMS[type(model)](model, plan, width, rows)


def _vote_of_numbers(model: Any, plan: Plan, width: int, rows: Reals) -> Sum:
    members = [_answer(_member(plan, each), "predict", width, rows) for each in model.estimators_]
    return _mean("the prediction", model, members)


def _vote_of_classes(model: Any, plan: Plan, width: int, rows: Reals) -> Sum:
    if model.voting != "soft":
        raise UnsupportedError(
            "VotingClassifier counts the labels of its members, and a count of labels is no sum of terms"
        )
    members = [_answer(_member(plan, each), "predict_proba", width, rows) for each in model.estimators_]
    return _mean("the probability", model, members)


def _mean(of: str, model: Any, members: Sequence[Sum]) -> Sum:
    # Private, because members that were dropped have weights in the public list.
    given = model._weights_not_none  # noqa: SLF001
    weights = np.ones(len(members)) if given is None else np.asarray(given, np.float64)
    terms = _weighted([each.terms for each in members], [weight / weights.sum() for weight in weights])
    return Sum(of, terms, np.average([each.values for each in members], axis=0, weights=weights))


def _stack(model: Any, plan: Plan, width: int, rows: Reals) -> Sum:
    final = unwrapped(model.final_estimator_)
    name = type(model).__name__
    if not linear.is_linear(final):
        raise UnsupportedError(
            f"the final estimator of {name} is a {type(final).__name__}, and no sum of what its members answer"
        )
    members = [
        _of_two(_answer(_member(plan, each), method, width, rows), method)
        for each, method in zip(model.estimators_, model.stack_method_, strict=True)
    ]
    if model.passthrough:
        members.append(_passed(plan, width, rows))
    coefficients, base = linear.terms(final)
    ends = np.cumsum([each.values.shape[1] for each in members])
    if ends[-1] != len(coefficients):
        raise UnsupportedError(f"{name} has members that answer several columns each")
    weights = np.split(coefficients, ends[:-1])
    terms = _weighted([each.terms for each in members], weights, base)
    return Sum(linear.of(final), terms, linear.margin(final, np.hstack([each.values for each in members])))


def _of_two(answer: Sum, method: str) -> Sum:
    """A member's answer as a stack passes it on: of two classes the second's probability alone."""
    if method != "predict_proba" or answer.values.shape[1] != 2:
        return answer
    return Sum(answer.of, _weighted([answer.terms], [np.array([[0.0], [1.0]])]), answer.values[:, 1:])


def _passed(plan: Plan, width: int, rows: Reals) -> Sum:
    front = front_of(plan, width, rows)
    given = front.through(rows)
    return Sum("the features", Linear(*linear.on_features(front, np.eye(given.shape[1]), width)), given)


def _calibrated(model: Any, plan: Plan, width: int, rows: Reals) -> Sum:
    found = model.calibrated_classifiers_
    if len(found) > 1:
        raise UnsupportedError(
            f"CalibratedClassifierCV answers the mean of {len(found)} calibrated probabilities, which is no sum of terms; "
            "ensemble=False keeps one, whose log-odds are"
        )
    (each,) = found
    if each.method != "sigmoid" or len(model.classes_) != 2:
        raise UnsupportedError(
            f"CalibratedClassifierCV calibrates {len(model.classes_)} classes by {each.method!r}, which is no sum of terms; "
            "by 'sigmoid' the log-odds of two classes are"
        )
    method = "decision_function" if hasattr(each.estimator, "decision_function") else "predict_proba"
    score = _of_two(_answer(_member(plan, each.estimator), method, width, rows), method)
    (sigmoid,) = each.calibrators
    terms = _weighted([score.terms], [-float(sigmoid.a_)], np.array([-float(sigmoid.b_)]))
    with np.errstate(divide="ignore"):
        shares = np.asarray(sigmoid.predict(score.values[:, 0]), np.float64)[:, None]
        return Sum("the log-odds", terms, np.log(shares) - np.log1p(-shares))


_SUMS: Final[dict[type, Callable[[Any, Plan, int, Reals], Sum]]] = {
    VotingRegressor: _vote_of_numbers,
    VotingClassifier: _vote_of_classes,
    StackingRegressor: _stack,
    StackingClassifier: _stack,
    CalibratedClassifierCV: _calibrated,
}


def _member(plan: Plan, estimator: Any) -> Plan:
    return plan.members[id(estimator)]


def check_fit(model: Any, front: Front, rows: Reals) -> None:
    """Checks that a model gets its own features: text is counted into sums of a linear model's coefficients instead."""
    expected, found = getattr(model, "n_features_in_", None), front.through(rows[:1]).shape[1]
    if expected is not None and expected != found:
        raise UnsupportedError(f"the compiled features are sums of the {expected:,} that the model was fitted on")


def _answer(plan: Plan, method: str, width: int, rows: Reals) -> Sum:
    """What a member answers, as a sum.

    Raises:
        UnsupportedError: it is none.
    """
    model = unwrapped(plan.estimator)
    name = type(model).__name__
    if is_sum(model):
        found = sum_of(plan, width, rows)
        if found.of != _ANSWERS.get(method):
            raise UnsupportedError(
                f"it adds up what a {name} answers, and that is no sum of terms; {found.of} would be"
            )
        return found
    ensemble = read_trees(model)
    if ensemble is None and not linear.is_linear(model):
        raise UnsupportedError(f"it adds up what a {name} answers, which is neither linear nor a sum of trees")
    is_margin = method == "decision_function"
    front = front_of(plan, width, rows)
    check_fit(model, front, rows)
    if ensemble is None:
        is_linear = is_margin if is_classifier(model) else linear.of(model) == "the prediction"
        if not is_linear:
            raise UnsupportedError(f"it adds up what {method} of {name} gives, which is no sum: {linear.of(model)} are")
        coefficients, base = linear.terms(model)
        of = _ANSWERS[method]
        return Sum(
            of, Linear(*linear.on_features(front, coefficients, width, base)), linear.margin(model, front.through(rows))
        )
    links = ("logistic", "softmax") if is_margin else ("identity",)
    if ensemble.link not in links:
        raise UnsupportedError(
            f"it adds up what {method} of {name} gives, which is a function of a sum of trees and no sum"
        )
    if front.columns is None:
        raise UnsupportedError("the graph makes other features of the features before the trees get them")
    values = np.asarray(getattr(model, method)(front.through(rows)), np.float64).reshape(len(rows), -1)
    return Sum(_ANSWERS[method], trees.on_columns(ensemble, front.columns), values)


_ANSWERS: Final = {
    "predict": "the prediction",
    "predict_proba": "the probability",
    "decision_function": "the decision function",
}


def _weighted(
    terms: Sequence[Linear | TreeEnsemble], weights: Sequence[Any], base: Reals | None = None
) -> Linear | TreeEnsemble:
    """The sum of terms, each times a number, or times a matrix of its outputs and those of the sum.

    Raises:
        UnsupportedError: they are of two kinds.
    """
    made = [_times(term, weight) for term, weight in zip(terms, weights, strict=True)]
    linears = [term for term in made if isinstance(term, Linear)]
    ensembles = [term for term in made if isinstance(term, TreeEnsemble)]
    if linears and ensembles:
        raise UnsupportedError(
            "it adds up linear models and trees, whose attributions are of two kinds: against the training rows, and along "
            "the paths of trees"
        )
    if linears:
        bases = [term.base for term in linears] if base is None else [base, *(term.base for term in linears)]
        return Linear(np.sum([term.coefficients for term in linears], axis=0), np.sum(bases, axis=0))
    return trees.joined(ensembles, base)


def _times(term: Linear | TreeEnsemble, weight: Any) -> Linear | TreeEnsemble:
    """The term times a number, or a matrix [its outputs, other outputs]."""
    if isinstance(term, TreeEnsemble):
        return trees.times(term, weight * np.eye(term.outputs) if np.ndim(weight) == 0 else weight)
    matrix = weight * np.eye(len(term.base)) if np.ndim(weight) == 0 else weight
    return Linear(term.coefficients @ matrix, term.base @ matrix)
