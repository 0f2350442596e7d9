"""Estimators that average the answers of their members: voting and bagging."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from sklearn.ensemble import BaggingClassifier, BaggingRegressor, VotingClassifier, VotingRegressor
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, columns


def voting_classifier(vote: Any, x: Var, context: Context) -> Answer:
    """The class with the largest mean probability (soft), or with the most votes (hard)."""
    weights = _weights(vote)
    if vote.voting == "soft":
        mean = ops.weighted_mean([ops.probabilities(each, x, context) for each in vote.estimators_], weights, context)
        return Answer(label=ops.label_at(ops.largest(mean), vote.classes_), probabilities=mean)
    # The members were fitted on the places of the classes.
    votes = [ops.one_hot(ops.label(each, x, context), len(vote.classes_), context) for each in vote.estimators_]
    return Answer(label=ops.label_at(ops.largest(ops.weighted_mean(votes, weights, context)), vote.classes_))


def voting_regressor(vote: Any, x: Var, context: Context) -> Answer:
    """The mean prediction."""
    given = [ops.prediction(each, x, context) for each in vote.estimators_]
    return Answer(prediction=ops.weighted_mean(given, _weights(vote), context))


def _weights(vote: Any) -> list[float] | None:
    if vote.weights is None:
        return None
    return [weight for (_, each), weight in zip(vote.estimators, vote.weights, strict=True) if each != "drop"]


def bagging_classifier(bag: Any, x: Var, context: Context) -> Answer:
    """The class with the largest mean probability; a member without probabilities gives a vote."""
    members = list(zip(bag.estimators_, bag.estimators_features_, strict=True))
    given = [_probabilities(each, columns(x, features), len(bag.classes_), context) for each, features in members]
    mean = ops.weighted_mean(given, None, context)
    scores = None
    if context.wants_scores and hasattr(bag, "decision_function"):
        found = [ops.scores(each, columns(x, features), context) for each, features in members]
        scores = ops.weighted_mean(found, None, context)
    return Answer(label=ops.label_at(ops.largest(mean), bag.classes_), probabilities=mean, scores=scores)


def _probabilities(member: Any, x: Var, classes: int, context: Context) -> Var:
    if not hasattr(member, "predict_proba"):
        return ops.one_hot(ops.label(member, x, context), classes, context)
    found = ops.probabilities(member, x, context)
    return found if len(member.classes_) == classes else _spread(found, member.classes_, classes, context)


def _spread(found: Var, own: Sequence[int], classes: int, context: Context) -> Var:
    """Puts the columns of a member that has seen some of the classes alone in their places."""
    spread = np.zeros((len(own), classes))
    spread[np.arange(len(own)), np.asarray(own, np.intp)] = 1.0
    return op.matmul(found, context.constant(spread))


def bagging_regressor(bag: Any, x: Var, context: Context) -> Answer:
    """The mean prediction."""
    members = zip(bag.estimators_, bag.estimators_features_, strict=True)
    given = [ops.prediction(each, columns(x, features), context) for each, features in members]
    return Answer(prediction=ops.weighted_mean(given, None, context))


RULES: Final = {
    VotingClassifier: voting_classifier,
    VotingRegressor: voting_regressor,
    BaggingClassifier: bagging_classifier,
    BaggingRegressor: bagging_regressor,
}
