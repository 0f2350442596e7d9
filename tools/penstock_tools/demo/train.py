"""Training: two models that foresee late arrivals, judged on later months and registered as two versions.

Decides the order and the split in time: all are fitted, converted, proven equal and judged before the first is
registered, so that one that is not good enough leaves the registry as it was. Columns are `flights`', features and
classifiers `candidates`', the gate `evaluate`'s. The command and the demo call it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.names import CHAMPION
from penstock_server.drift.baseline import Baseline
from penstock_server.features.fit import fit
from penstock_server.features.pipeline import Pipeline
from penstock_tools.demo import evaluate, flights
from penstock_tools.demo.candidates import Candidate, boosted_trees, logistic_regression
from penstock_tools.publish import golden, onnx_graph, promote
from penstock_tools.publish import onnx as publish
from penstock_tools.publish import registry as registries
from penstock_tools.publish import to_onnx as convert
from penstock_tools.sklearn_compiler import proof

if TYPE_CHECKING:
    import pandas as pd

MODEL_NAME: Final = "flights"
TRAINING_MONTHS: Final = (1, 2, 3)
LATER_MONTHS: Final = (4, 5, 6)
MIN_AUC: Final = 0.65

Report = Callable[[str], None]
"""Told what is being done, a line a step."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that passed everything but the gate, not yet registered.

    Attributes:
        scores: on the later months.
        graph: the ONNX model, opened.
        pipeline: the fitted feature specification, ready to run.
        baseline: how the training rows were distributed.
        sample: rows of the later months by raw column, for golden requests.
        record: what its run is to tell.
    """

    title: str
    scores: evaluate.Scores
    graph: onnx_graph.Graph
    pipeline: Pipeline
    baseline: Baseline
    sample: Mapping[str, NDArray[Any]]
    record: publish.Record


@dataclass(frozen=True, slots=True)
class Registered:
    """A version that training registered."""

    version: str
    title: str
    scores: evaluate.Scores


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
        registry: the registry's address; None for `MLFLOW_TRACKING_URI`, else the embedded one.
        frame: flights as `flights.load` gives them; None loads them.
        candidates: what to train; None for a logistic regression and boosted trees.
        min_auc: what the AUC on the later months must reach.
        with_champion: make the first version champion if the model has none yet.
        report: told what is being done.

    Raises:
        QualityError: a candidate is not good enough; nothing was registered.
        ModelFailedError: an ONNX model answers differently from its classifier; nothing was registered.
        UnavailableError: the registry does not answer.
    """
    if frame is None:
        report("reading the flights of 2013")
        frame = flights.load()
    trained = [fit_candidate(each, frame, report) for each in candidates or (logistic_regression(), boosted_trees())]
    for each in trained:
        evaluate.hold_gate(each.title, each.scores, min_auc)
    registered = tuple(_register(name, each, registry, report) for each in trained)
    if with_champion and not _has_champion(name, registry):
        report(str(promote.promote(name, registered[0].version, CHAMPION, registry=registry)))
    return registered


def fit_candidate(candidate: Candidate, frame: "pd.DataFrame", report: Report = lambda _: None) -> Trained:
    """One candidate, fitted on the training months, converted, proven equal and scored on the later ones.

    Raises:
        ModelFailedError: its ONNX model answers differently from its classifier.
    """
    early, later = flights.by_months(frame, TRAINING_MONTHS), flights.by_months(frame, LATER_MONTHS)
    report(f"fitting the {candidate.title} on {len(early):,} flights")
    features = fit(candidate.recipes, flights.table(early))
    pipeline = Pipeline(features)
    classifier = candidate.classifier().fit(pipeline.transform(flights.table(early)), flights.answers(early))
    graph = onnx_graph.read(convert.to_onnx(classifier, features.width))
    report(f"judging the {candidate.title} on {len(later):,} later flights")
    matrix = pipeline.transform(flights.table(later))
    difference = proof.check_probabilities(classifier, graph.runtime, matrix)
    probabilities = classifier.predict_proba(matrix)[:, 1]
    scores = evaluate.score(flights.answers(later), probabilities)
    report(f"AUC of the {candidate.title}: {scores.auc:.3f}")
    return Trained(
        title=candidate.title,
        scores=scores,
        graph=graph,
        pipeline=pipeline,
        baseline=golden.fit_baseline(graph, pipeline, flights.table(early)),
        sample=flights.table(later.iloc[:: max(1, len(later) // golden.GOLDEN_ROWS)].head(golden.GOLDEN_ROWS)),
        record=_record(candidate, scores, later, probabilities, difference),
    )


def _record(
    candidate: Candidate,
    scores: evaluate.Scores,
    later: "pd.DataFrame",
    probabilities: NDArray[np.floating[Any]],
    difference: float,
) -> publish.Record:
    answers = flights.answers(later)
    by_month = {
        month: evaluate.score(answers[at], probabilities[at]).auc
        for month in LATER_MONTHS
        if len(set(answers[at := (later["month"] == month).to_numpy()])) == 2
    }
    months = {"training_months": list(TRAINING_MONTHS), "later_months": list(LATER_MONTHS)}
    return publish.Record(
        title=candidate.title,
        params={"model": candidate.title, **candidate.params, **months},
        metrics={
            **scores.as_metrics(),
            "onnx_difference": difference,
            **{f"auc_month_{month}": auc for month, auc in by_month.items()},
        },
        figures={"evaluation.png": evaluate.plot(candidate.title, answers, probabilities, by_month)},
    )


def _register(name: str, trained: Trained, registry: str | None, report: Report) -> Registered:
    report(f"registering the {trained.title}")
    version = publish.publish(
        name,
        trained.graph,
        registry=registry,
        features=trained.pipeline,
        baseline=trained.baseline,
        sample=trained.sample,
        record=trained.record,
    )
    return Registered(version, trained.title, trained.scores)


def _has_champion(name: str, registry: str | None) -> bool:
    with registries.opened(registry) as client:
        return CHAMPION in client.get_registered_model(name).aliases
