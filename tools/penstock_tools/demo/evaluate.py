"""How good a classifier is on rows it has not seen, and whether that is good enough to be registered.

Decides the scores and the gate; leaves the rows to `flights` and the logging to `publish`. Training calls it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import PenstockError


class QualityError(PenstockError):
    """The model is not good enough to be registered."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one classifier on one set of rows.

    Attributes:
        auc: area under the ROC curve, 0.5 by chance and 1 at best.
        accuracy: share of rows whose more probable class is the true one.
        log_loss: mean negative log-likelihood in nats, 0 at best.
        rows: how many rows were scored.
    """

    auc: float
    accuracy: float
    log_loss: float
    rows: int

    def as_metrics(self) -> dict[str, float]:
        """The scores by name, as MLflow logs them."""
        return {name: float(value) for name, value in asdict(self).items()}


def score(answers: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> Scores:
    """The scores of a binary classifier.

    Args:
        answers: the truth, 0 or 1, of shape [rows]; both classes occur.
        probabilities: of class 1, of shape [rows].
    """
    from sklearn import metrics

    return Scores(
        auc=float(metrics.roc_auc_score(answers, probabilities)),
        accuracy=float(np.mean((probabilities > 0.5) == answers)),
        log_loss=float(metrics.log_loss(answers, np.asarray(probabilities, np.float64))),
        rows=len(answers),
    )


def hold_gate(name: str, scores: Scores, min_auc: float) -> None:
    """Refuses a classifier whose AUC is below `min_auc`.

    Raises:
        QualityError: it is, or the AUC is NaN; says both numbers.
    """
    if not scores.auc >= min_auc:
        raise QualityError(
            f"the {name} was not registered: its AUC on {scores.rows} rows it has not seen is {scores.auc:.3f}, "
            f"and at least {min_auc:.3f} is asked for"
        )


def plot(
    name: str,
    answers: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    monthly_auc: Mapping[int, float],
) -> Any:
    """A `matplotlib.figure.Figure`: the ROC curve on the left, the AUC of each month on the right.

    It is made without pyplot, so it needs no display and may be made in any thread.
    """
    from matplotlib.figure import Figure
    from sklearn import metrics

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    false_positive, true_positive, _ = metrics.roc_curve(answers, probabilities)
    left.plot(false_positive, true_positive)
    left.plot([0, 1], [0, 1], linestyle=":", color="grey")
    left.set(title=f"ROC of the {name}", xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    right.bar([str(month) for month in monthly_auc], list(monthly_auc.values()))
    right.set(title="AUC by month of 2013", xlabel="month", ylabel="AUC", ylim=(0.5, 1.0))
    return figure
