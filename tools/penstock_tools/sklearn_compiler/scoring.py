"""The scores of a pipeline on rows with known answers."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics
from sklearn.base import is_classifier, is_regressor

from penstock_server.errors import InvalidInputError
from penstock_tools.sklearn_compiler.sample import Sample


class Scored(Protocol):
    """A fitted pipeline with rows as it takes them."""

    @property
    def pipeline(self) -> Any:
        """The pipeline."""

    @property
    def sample(self) -> Sample:
        """The rows."""


def scores(compiled: Scored, labels: ArrayLike) -> dict[str, float]:
    """The scores by name: accuracy, log loss and, of two classes, AUC; of numbers R², mean absolute and squared error.

    Of several labels for a row only the accuracy counts, of all of them together. What is neither classifier nor regressor
    has no scores.

    Args:
        compiled: a pipeline, with its sample.
        labels: the truth for the sample's rows, [rows] or [rows, outputs].

    Raises:
        InvalidInputError: another number of labels than rows, a label is missing, or one is not among the classes.
    """
    truth = np.asarray(labels)
    if truth.shape[:1] != (compiled.sample.rows,):
        raise InvalidInputError(f"there are {len(truth)} labels for {compiled.sample.rows} rows; expected as many")
    if truth.dtype.kind == "f" and np.isnan(truth).any():
        raise InvalidInputError(
            f"the label of row {int(np.argmax(np.isnan(truth)))} is missing; expected one for each row"
        )
    if is_classifier(compiled.pipeline):
        return _of_classes(compiled.pipeline, compiled.sample.given, truth)
    return _of_numbers(compiled.pipeline, compiled.sample.given, truth) if is_regressor(compiled.pipeline) else {}


def _of_classes(pipeline: Any, given: Any, truth: NDArray[Any]) -> dict[str, float]:
    predicted = np.asarray(pipeline.predict(given))
    if predicted.size == truth.size:
        # CatBoost gives a column.
        predicted = predicted.reshape(truth.shape)
    if predicted.shape != truth.shape:
        raise InvalidInputError(
            f"the model gives labels of the shape {list(predicted.shape)} for the sample, and {list(truth.shape)} are given"
        )
    if predicted.ndim > 1:
        return {"accuracy": float((predicted.astype(str) == truth.astype(str)).all(axis=1).mean())}
    classes = np.asarray(pipeline.classes_)
    if not np.isin(truth, classes).all():
        strange = truth[~np.isin(truth, classes)][0]
        known = ", ".join(map(str, classes[:10]))
        raise InvalidInputError(f"the label {strange} is none of the model's classes; expected {known}")
    found = {"accuracy": float(metrics.accuracy_score(truth, predicted))}
    if not hasattr(pipeline, "predict_proba"):
        return found
    probabilities = pipeline.predict_proba(given)
    found["log_loss"] = float(metrics.log_loss(truth, probabilities, labels=classes))
    if len(classes) == 2 and len(np.unique(truth)) == 2:
        found["auc"] = float(metrics.roc_auc_score(truth == classes[1], probabilities[:, 1]))
    return found


def _of_numbers(pipeline: Any, given: Any, truth: NDArray[Any]) -> dict[str, float]:
    predicted = np.asarray(pipeline.predict(given)).reshape(truth.shape)
    return {
        "r2": float(metrics.r2_score(truth, predicted)),
        "mean_absolute_error": float(metrics.mean_absolute_error(truth, predicted)),
        "root_mean_squared_error": float(np.sqrt(metrics.mean_squared_error(truth, predicted))),
    }
