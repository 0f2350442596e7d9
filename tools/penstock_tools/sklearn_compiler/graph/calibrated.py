"""Calibrated classifiers: a member's scores through sigmoids, isotonic regressions or a temperature, and their mean."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, width


def calibrated(model: Any, x: Var, context: Context) -> Answer:
    """The mean of what the calibrated members give, and its largest."""
    given = [_probabilities(each, x, context) for each in model.calibrated_classifiers_]
    mean = ops.weighted_mean(given, None, context)
    return Answer(label=ops.label_at(ops.largest(mean), model.classes_), probabilities=mean)


def _probabilities(model: Any, x: Var, context: Context) -> Var:
    inner, classes = model.estimator, len(model.classes)
    has_scores = hasattr(inner, "decision_function")
    found = ops.scores(inner, x, context) if has_scores else ops.probabilities(inner, x, context)
    if model.method == "temperature":
        return _temperature(model.calibrators[0], found, context, has_scores=has_scores)
    if classes == 2:
        second = found if width(found) == 1 else ops.column(found, 1)
        return ops.with_complement(_calibrated(model.calibrators[0], second, context), context)
    known = {label: at for at, label in enumerate(inner.classes_)}
    parts = []
    for label in model.classes:
        at = known.get(label)
        if at is None or at >= width(found):
            # A fold that had none of this class; of two classes scikit-learn calibrates the first alone then.
            parts.append(op.mul(ops.column(found, 0), context.constant(0.0)))
        else:
            parts.append(_calibrated(model.calibrators[at], ops.column(found, at), context))
    return _normalised(ops.side_by_side(parts), classes, context)


def _normalised(given: Var, classes: int, context: Context) -> Var:
    """Each row divided by its sum; equal shares where that is 0."""
    total = ops.row_sums(given)
    is_zero = op.equal(total, context.constant(0.0))
    shares = op.div(given, op.where(is_zero, context.constant(1.0), total))
    return op.where(is_zero, context.constant(1.0 / classes), shares)


def _temperature(scaling: Any, found: Var, context: Context, *, has_scores: bool) -> Var:
    if not has_scores:
        # Probabilities, whose rows add up to 1: scikit-learn takes their logarithm.
        logits = op.log(op.add(found, context.constant(1e-12)))
    else:
        logits = op.concat([op.neg(found), found], axis=1) if width(found) == 1 else found
    return op.softmax(op.mul(logits, context.constant(scaling.beta_)), axis=1)


def _calibrated(calibrator: Any, score: Var, context: Context) -> Var:
    rule = _CALIBRATORS.get(type(calibrator).__name__)
    if rule is None:
        raise UnsupportedError(
            f"{type(calibrator).__name__} calibrates the classifier; expected sigmoid, isotonic or temperature"
        )
    return rule(calibrator, score, context)


def _sigmoid(calibrator: Any, score: Var, context: Context) -> Var:
    line = op.add(op.mul(score, context.constant(calibrator.a_)), context.constant(calibrator.b_))
    return op.sigmoid(op.neg(line))


def isotonic(model: Any, score: Var, context: Context) -> Var:
    """A fitted isotonic regression of one column [rows, 1]: straight lines between its thresholds."""
    x = np.asarray(model.X_thresholds_, np.float64)
    y = np.asarray(model.y_thresholds_, np.float64)
    if model.out_of_bounds != "clip":
        raise UnsupportedError(
            f"IsotonicRegression(out_of_bounds={model.out_of_bounds!r}) is not in the graph; expected 'clip'"
        )
    return ops.interpolated(score, x, y, context)


_CALIBRATORS: Final[dict[str, Callable[[Any, Var, Context], Var]]] = {
    # scikit-learn's own class is private.
    "_SigmoidCalibration": _sigmoid,
    IsotonicRegression.__name__: isotonic,
}

RULES: Final = {CalibratedClassifierCV: calibrated}
