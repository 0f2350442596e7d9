"""What an estimator or a transformer gives inside the graph: `estimators.emit` gives it, containers and `model` read it."""

from dataclasses import dataclass

from spox import Var


@dataclass(frozen=True, slots=True)
class Answer:
    """The tensors that a fitted object gives; None where it gives none.

    Attributes:
        prediction: a regressor's, floats [rows, targets].
        label: a classifier's or clusterer's, INT64 or strings [rows]; of several outputs [rows, outputs].
        probabilities: of each class, floats [rows, classes].
        scores: `decision_function` as scikit-learn gives it, floats [rows, classes], [rows, 1] where there are two classes.
        features: a transformer's, floats [rows, columns].
        each: the answers of a classifier of several outputs, one for each output; empty otherwise.
    """

    prediction: Var | None = None
    label: Var | None = None
    probabilities: Var | None = None
    scores: Var | None = None
    features: Var | None = None
    each: tuple["Answer", ...] = ()
