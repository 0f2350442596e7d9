"""Trains the flight-delay models, judges them on later months, and registers them as two versions.

All candidates are fitted, judged, compiled and proven before the first is registered: one that is not good enough leaves
the registry as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.names import CHAMPION
from penstock_server.errors import PenstockError
from penstock_tools.demo import flights
from penstock_tools.demo.flights import Candidate
from penstock_tools.progress import Report
from penstock_tools.publish import pipeline, promote
from penstock_tools.publish.onnx import Record
from penstock_tools.publish.prepared import Prepared
from penstock_tools.publish.registry import opened

if TYPE_CHECKING:
    import pandas as pd

MODEL_NAME: Final = "flights"
TRAINING_MONTHS: Final = (1, 2, 3)
LATER_MONTHS: Final = (4, 5, 6)
MIN_AUC: Final = 0.65


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


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that is proven and not registered.

    Attributes:
        scores: on the later months.
        prepared: the compiled pipeline with its ONNX model.
        record: what is logged with its run.
    """

    title: str
    scores: Scores
    prepared: Prepared
    record: Record


@dataclass(frozen=True, slots=True)
class Registered:
    """A version that training registered."""

    version: str
    title: str
    scores: Scores


def train(
    name: str = MODEL_NAME,
    *,
    registry: str | None = None,
    frame: "pd.DataFrame | None" = None,
    candidates: Sequence[Candidate] | None = None,
    min_auc: float = MIN_AUC,
    with_champion: bool = True,
    report: Report = lambda _: None,
) -> tuple[Registered, ...]:
    """Trains the candidates on January to March, judges them on April to June, and registers them in order.

    Args:
        name: the registered model.
        registry: the registry's address; None for `MLFLOW_TRACKING_URI`, else a local file.
        frame: flights as `flights.load` gives them; None loads them.
        candidates: what to train; None for a logistic regression and boosted trees.
        min_auc: the least AUC on the later months.
        with_champion: make the first version champion if the model has none yet.
        report: called as each step begins.

    Raises:
        QualityError: a candidate is not good enough; nothing was registered.
        ModelFailedError: an ONNX model answers differently from its pipeline; nothing was registered.
        UnavailableError: the registry does not answer.
    """
    if frame is None:
        report("reading the flights of 2013")
        frame = flights.load()
    chosen = candidates or (flights.logistic_regression(), flights.boosted_trees())
    trained = [fit_candidate(each, frame, report) for each in chosen]
    for each in trained:
        check_quality(each.title, each.scores, min_auc)
    registered = tuple(_register(name, each, registry, report) for each in trained)
    if with_champion and not _has_champion(name, registry):
        report(str(promote.promote(name, registered[0].version, CHAMPION, registry=registry)))
    return registered


def fit_candidate(candidate: Candidate, frame: "pd.DataFrame", report: Report = lambda _: None) -> Trained:
    """One candidate, fitted on the training months, scored on the later ones, compiled and proven.

    Raises:
        ModelFailedError: its ONNX model answers differently from the pipeline.
    """
    early, later = flights.by_months(frame, TRAINING_MONTHS), flights.by_months(frame, LATER_MONTHS)
    columns = list(flights.COLUMNS)
    report(f"fitting the {candidate.title} on {len(early):,} flights")
    fitted = candidate.pipeline(early).fit(early[columns], flights.answers(early))
    report(f"judging the {candidate.title} on {len(later):,} later flights")
    probabilities = fitted.predict_proba(later[columns])[:, 1]
    scores = score(flights.answers(later), probabilities)
    report(f"AUC of the {candidate.title}: {scores.auc:.3f}; compiling it to features and ONNX")
    return Trained(
        title=candidate.title,
        scores=scores,
        prepared=pipeline.prepare(fitted, early),
        record=_record(candidate, scores, later, probabilities),
    )


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


def check_quality(title: str, scores: Scores, min_auc: float) -> None:
    """Refuses a classifier whose AUC is below `min_auc`.

    Raises:
        QualityError: it is, or the AUC is NaN.
    """
    # Written so that NaN fails too.
    if not scores.auc >= min_auc:
        raise QualityError(
            f"the {title} was not registered: its AUC on {scores.rows} unseen rows is {scores.auc:.3f}, "
            f"expected at least {min_auc:.3f}"
        )


def plot(
    title: str,
    answers: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    monthly_auc: Mapping[int, float],
) -> Any:
    """A `matplotlib.figure.Figure`: the ROC curve on the left, the AUC of each month on the right."""
    # Without pyplot, which needs a display and is not safe in threads.
    from matplotlib.figure import Figure
    from sklearn import metrics

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    false_positive, true_positive, _ = metrics.roc_curve(answers, probabilities)
    left.plot(false_positive, true_positive)
    left.plot([0, 1], [0, 1], linestyle=":", color="grey")
    left.set(title=f"ROC of the {title}", xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    right.bar([str(month) for month in monthly_auc], list(monthly_auc.values()))
    right.set(title="AUC by month of 2013", xlabel="month", ylabel="AUC", ylim=(0.5, 1.0))
    return figure


def _record(
    candidate: Candidate, scores: Scores, later: "pd.DataFrame", probabilities: NDArray[np.floating[Any]]
) -> Record:
    answers = flights.answers(later)
    by_month = {
        month: score(answers[at], probabilities[at]).auc
        for month in LATER_MONTHS
        if len(set(answers[at := (later["month"] == month).to_numpy()])) == 2
    }
    months = {"training_months": list(TRAINING_MONTHS), "later_months": list(LATER_MONTHS)}
    return Record(
        title=candidate.title,
        params={"model": candidate.title, **candidate.params, **months},
        metrics={**scores.as_metrics(), **{f"auc_month_{month}": auc for month, auc in by_month.items()}},
        figures={"evaluation.png": plot(candidate.title, answers, probabilities, by_month)},
    )


def _register(name: str, trained: Trained, registry: str | None, report: Report) -> Registered:
    report(f"registering the {trained.title}")
    # The scores are in the record: those on the later months, not on the rows that the model was trained on.
    published = pipeline.register(name, trained.prepared, {}, registry=registry, record=trained.record)
    return Registered(published.version, trained.title, trained.scores)


def _has_champion(name: str, registry: str | None) -> bool:
    with opened(registry) as client:
        return CHAMPION in client.get_registered_model(name).aliases
