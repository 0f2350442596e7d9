"""Small pieces of graphs that several rules need: labels and their places, answers of members, columns side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import spox.opset.ai.onnx.ml.v3 as ml
import spox.opset.ai.onnx.v18 as op
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_regressor
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph.context import Context, columns, width


def label_values(classes: ArrayLike) -> NDArray[Any]:
    """Classes as labels of a graph: INT64, also for booleans and whole floats, or strings.

    Raises:
        UnsupportedError: they are neither.
    """
    found = np.asarray(classes)
    values = found.tolist()
    if values and all(isinstance(value, str) for value in values):
        return np.array(values, np.str_)
    if all(isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()) for value in values):
        return np.array(values, np.int64)
    raise UnsupportedError(f"the classes are {values[:5]}; expected whole numbers, booleans or texts")


def label_at(places: Var, classes: ArrayLike) -> Var:
    """The labels of classes by their places, INT64 [rows]."""
    return op.gather(op.constant(value=label_values(classes)), places)


def largest(scores: Var) -> Var:
    """The place of each row's largest score, the first of equal ones, INT64 [rows]."""
    return op.arg_max(scores, axis=1, keepdims=0)


def place_of(label: Var, classes: ArrayLike) -> Var:
    """The places of labels [rows] among the classes, INT64 [rows]."""
    values = label_values(classes)
    if values.dtype.kind == "i" and np.array_equal(values, np.arange(len(values))):
        return label
    places = list(range(len(values)))
    if values.dtype.kind == "i":
        return ml.label_encoder(label, keys_int64s=values.tolist(), values_int64s=places, default_int64=-1)
    return ml.label_encoder(label, keys_strings=values.tolist(), values_int64s=places, default_int64=-1)


def one_hot(places: Var, classes: int, context: Context) -> Var:
    """1 at each row's place and 0 elsewhere [rows, classes]."""
    return context.cast(op.equal(op.unsqueeze(places, op.const([1])), op.const(np.arange(classes).reshape(1, -1))))


def side_by_side(parts: Sequence[Var]) -> Var:
    """Matrices as one."""
    return parts[0] if len(parts) == 1 else op.concat(parts, axis=1)


def column(x: Var, at: int) -> Var:
    """One column of a matrix [rows, 1]."""
    return columns(x, [at])


def row_sums(x: Var) -> Var:
    """[rows, 1]."""
    return op.reduce_sum(x, op.const([1]), keepdims=1)


def weighted_mean(parts: Sequence[Var], weights: ArrayLike | None, context: Context) -> Var:
    """The mean of matrices of one shape.

    Args:
        parts: the matrices.
        weights: one each; None for equal ones.
        context: the graph.
    """
    if weights is None:
        total = parts[0] if len(parts) == 1 else op.sum(parts)
        return total if len(parts) == 1 else op.div(total, context.constant(float(len(parts))))
    shares = np.asarray(weights, np.float64) / np.sum(weights)
    return op.sum([op.mul(part, context.constant(share)) for part, share in zip(parts, shares, strict=True)])


def probabilities(estimator: Any, x: Var, context: Context) -> Var:
    """`predict_proba` of a member, in the graph's datatype [rows, classes].

    Raises:
        UnsupportedError: its graph gives none.
    """
    return context.cast(_given(context.emit(estimator, x).probabilities, estimator, "probabilities"))


def scores(estimator: Any, x: Var, context: Context) -> Var:
    """`decision_function` of a member [rows, classes], or [rows, 1].

    Raises:
        UnsupportedError: its graph gives none.
    """
    return context.cast(_given(context.emit(estimator, x, scores=True).scores, estimator, "scores"))


def label(estimator: Any, x: Var, context: Context) -> Var:
    """`predict` of a member that is a classifier [rows].

    Raises:
        UnsupportedError: its graph gives none.
    """
    return _given(context.emit(estimator, x).label, estimator, "labels")


def prediction(estimator: Any, x: Var, context: Context) -> Var:
    """`predict` of a member that is a regressor [rows, targets].

    Raises:
        UnsupportedError: its graph gives none.
    """
    return context.cast(_given(context.emit(estimator, x).prediction, estimator, "predictions"))


def _given(var: Var | None, estimator: Any, what: str) -> Var:
    if var is None:
        raise UnsupportedError(f"the graph of {type(estimator).__name__} gives no {what}, which its container needs")
    return var


def binary(estimator: Any, x: Var, context: Context) -> Var:
    """A binary member's answer as scikit-learn's one-against-rest takes it [rows, 1].

    A regressor's prediction, else the score, else the probability of the second class.
    """
    if is_regressor(estimator):
        return prediction(estimator, x, context)
    if hasattr(estimator, "decision_function"):
        found = scores(estimator, x, context)
        return found if width(found) == 1 else column(found, 1)
    return column(probabilities(estimator, x, context), 1)


def with_complement(second: Var, context: Context) -> Var:
    """The probabilities of both of two classes, from that of the second [rows, 1]."""
    return op.concat([op.sub(context.constant(1.0), second), second], axis=1)


def interpolated(x: Var, places: NDArray[np.float64], values: NDArray[np.float64], context: Context) -> Var:
    """Straight lines between values at ascending places, and the first and last value beyond them.

    Args:
        x: [rows, 1].
        places: float64 [thresholds].
        values: at these places, float64 [thresholds].
        context: the graph.
    """
    if len(places) == 1:
        return op.add(op.mul(x, context.constant(0.0)), context.constant(values[0]))
    x = op.clip(x, context.constant(places[0]), context.constant(places[-1]))
    # How many places lie below says which line it is on.
    below = op.cast(op.greater(x, context.constant(places[1:-1].reshape(1, -1))), to="int64")
    at = op.reduce_sum(below, op.const([1]), keepdims=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.nan_to_num(np.diff(values) / np.diff(places), posinf=0.0, neginf=0.0)
    start, slope, height = (op.gather(context.constant(each), at) for each in (places[:-1], slopes, values[:-1]))
    return op.add(height, op.mul(op.sub(x, start), slope))
