"""Trains the flight model anew on what a server logged and what turned out: the command of a retraining's action.

The latest labelled rows count. The last of them are held out. On these the new model must rank better than the champion does,
at no larger log loss; else nothing is registered. What is registered declares its rollout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from penstock.names import CHAMPION
from penstock_server.errors import InvalidInputError
from penstock_server.rollout.spec import of_mapping
from penstock_tools.demo import flights
from penstock_tools.demo.flights import Candidate, boosted_trees
from penstock_tools.demo.train import QualityError, Scores, score
from penstock_tools.progress import Report
from penstock_tools.publish import pipeline, published, rollout
from penstock_tools.publish.holdout import HoldOut
from penstock_tools.publish.onnx import Record
from penstock_tools.replay import candidate as replayed
from penstock_tools.replay.log import Part, ReplayLog
from penstock_tools.replay.truth import Truth, truth_of

if TYPE_CHECKING:
    import pandas as pd

WINDOW_ROWS: Final = 60_000
"""The latest labelled rows that are taken: some two months of New York's flights."""
LEAST_ROWS: Final = 2_000
HOLD_OUT: Final = 0.25
_LATE_WORDS: Final = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_TIME: Final = "departure"
_LATE: Final = "late"


@dataclass(frozen=True, slots=True)
class Window:
    """Labelled rows in the order in which they were answered.

    Attributes:
        training, later: the earlier rows, and the later ones that are held out.
    """

    training: "pd.DataFrame"
    later: "pd.DataFrame"


@dataclass(frozen=True, slots=True)
class Retrained:
    """What was registered, and the scores that it was judged by.

    Attributes:
        scores, champion: of the new version and of the champion on the rows that were held out.
    """

    version: str
    title: str
    scores: Scores
    champion: Scores


def retrain(
    log: Path,
    labels: Path,
    name: str,
    *,
    registry: str | None = None,
    rows: int = WINDOW_ROWS,
    min_gain: float = 0.0,
    declared: Mapping[str, Any] | None = None,
    reason: str = "",
    chosen: Candidate | None = None,
    report: Report = lambda _: None,
) -> Retrained:
    """Trains on the latest labelled rows of a request log, and registers what is better than the champion.

    Args:
        log: the folder of the request log.
        labels: whether flights were late, by request id and row, as `replay.truth.truth_of` reads it.
        name: the registered model.
        registry: its address; None for `MLFLOW_TRACKING_URI`, else a local file.
        rows: the most rows that are taken.
        min_gain: how much larger than the champion's the AUC on the later rows must be.
        declared: the rollout of what is registered, as `rollout.spec.of_mapping` reads it; None declares none.
        reason: why it is trained anew, for the run.
        chosen: what to train; None for boosted trees.
        report: called as each step begins.

    Raises:
        QualityError: it is not better than the champion; nothing was registered.
        InvalidInputError: the log, the labels or the declaration are not what they should be, too few rows have a label, or
            another version is being rolled out.
        NotFoundError: the model has no champion, or nothing was logged.
        UnavailableError: the registry does not answer.
    """
    if declared is not None:
        of_mapping(declared)  # before minutes are spent on training
    report("reading the requests that have labels")
    window = _split(labelled(ReplayLog(log, name), truth_of(labels, name), rows))
    made, columns = chosen or boosted_trees(), list(flights.COLUMNS)
    report(f"fitting the {made.title} on {len(window.training):,} flights")
    training = window.training[columns]
    fitted = made.pipeline(window.training).fit(training, flights.answers(window.training))
    report(f"judging it and the champion on {len(window.later):,} later flights")
    truth = flights.answers(window.later)
    scores = score(truth, fitted.predict_proba(window.later[columns])[:, 1])
    champion = _champion_scores(name, registry, window.later)
    check_better(made.title, scores, champion, min_gain)
    report(f"AUC {scores.auc:.3f}, the champion's {champion.auc:.3f}; compiling it to features and ONNX")
    prepared = pipeline.prepare(fitted, training)
    published_as = pipeline.register(
        name,
        prepared,
        {},
        registry=registry,
        holdout=HoldOut(window.later[columns], truth),
        record=_record(made, window, scores, champion, reason),
        report=report,
    )
    if declared is not None:
        report("declaring its rollout")
        rollout.start(name, published_as.version, declared, registry)
    return Retrained(published_as.version, made.title, scores, champion)


def labelled(log: ReplayLog, truth: Truth, rows: int) -> "pd.DataFrame":
    """The latest rows of a log that have a label: the columns of flights, `late`, and the time of the answer, sorted by it.

    Raises:
        InvalidInputError: the log lacks a column, a label says neither 0 nor 1, or too few rows have one.
    """
    import pandas as pd

    frames = [_labelled(part, truth) for part in log.parts() if part.rows]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({_TIME: []})
    if len(frame) < LEAST_ROWS:
        raise InvalidInputError(
            f"{len(frame):,} rows of the log have a label, expected {LEAST_ROWS:,} or more; requests need an id, and labels "
            "name it"
        )
    return frame.sort_values(_TIME, kind="stable", ignore_index=True).tail(rows).reset_index(drop=True)


def _labelled(part: Part, truth: Truth) -> "pd.DataFrame":
    import pandas as pd

    if lacking := [name for name in flights.COLUMNS if name not in part.inputs]:
        raise InvalidInputError(f"the log lacks the columns {', '.join(lacking)}; is it of another model?")
    labels = truth.of(part.ids.tolist(), part.places.tolist())
    known = np.array([label is not None for label in labels], np.bool_)
    frame = pd.DataFrame({name: part.inputs[name][known] for name in flights.COLUMNS})
    return frame.assign(**{_LATE: [_is_late(label) for label in labels if label is not None], _TIME: part.times[known]})


def _is_late(label: Any) -> bool:
    try:
        return _LATE_WORDS[str(label).casefold()]
    except KeyError:
        raise InvalidInputError(f"a label is {label!r}, expected 1 for a late flight and 0 for another") from None


def _split(frame: "pd.DataFrame") -> Window:
    first = int(len(frame) * (1 - HOLD_OUT))
    window = Window(frame.iloc[:first], frame.iloc[first:])
    for rows in (window.training, window.later):
        if rows[_LATE].nunique() < 2:
            raise InvalidInputError("all labelled flights were late, or none; there is nothing to learn")
    return window


def _champion_scores(name: str, registry: str | None, later: "pd.DataFrame") -> Scores:
    """The champion's scores on these rows, answered as a server would answer them."""
    with published.version(f"{name}@{CHAMPION}", registry) as files:
        champion = replayed.Candidate(files, (name, CHAMPION))
        try:
            probabilities = champion.scores(flights.table(later), len(later))[:, -1]
        finally:
            champion.close()
    return score(flights.answers(later), probabilities)


def check_better(title: str, scores: Scores, champion: Scores, min_gain: float) -> None:
    """Refuses a model whose AUC is not larger than the champion's by `min_gain`, or whose log loss is larger.

    A season that changes within the window gives models that rank better and are wrong about how many flights are late.

    Raises:
        QualityError: it is not.
    """
    # Written so that NaN fails too.
    if not (scores.auc >= champion.auc + min_gain and scores.log_loss <= champion.log_loss):
        raise QualityError(
            f"the {title} was not registered: on {scores.rows:,} later flights its AUC is {scores.auc:.3f} and its log loss "
            f"{scores.log_loss:.3f}, the champion's {champion.auc:.3f} and {champion.log_loss:.3f}; expected a gain of AUC of "
            f"{min_gain:g} and no larger loss"
        )


def _record(made: Candidate, window: Window, scores: Scores, champion: Scores, reason: str) -> Record:
    begin, end = (window.training[_TIME].iloc[0], window.later[_TIME].iloc[-1])
    return Record(
        title=f"{made.title}, retrained",
        params={
            "model": made.title,
            **made.params,
            "training_rows": len(window.training),
            "answered_from": str(begin),
            "answered_to": str(end),
            "reason": reason[:500],
        },
        metrics={
            **scores.as_metrics(),
            **{f"champion_{name}": value for name, value in champion.as_metrics().items()},
        },
    )
