"""What `GET /v1/labels` says: what became of labels, and how good each version is by them, as JSON."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.names import VersionKey
from penstock_server.errors import NotFoundError
from penstock_server.labels.gauges import latest
from penstock_server.labels.report import Report
from penstock_server.labels.totals import DELAY_EDGES_S

Estimates = Callable[[], Mapping[VersionKey, float]]
"""The accuracy of each version that is expected without any label."""


def as_json(report: Report | None, model: str, estimates: Estimates) -> bytes:
    """The report on a model, "" for all.

    Raises:
        NotFoundError: no labels are taken, or nothing is known of the model.
    """
    if report is None:
        raise NotFoundError("labels are not taken here; penstock serve --labels takes them")
    expected = estimates()
    named = {
        *report.models,
        *(each.model for each in report.totals.versions),
        *(each.model for each in report.qualities),
    }
    models = [_model(report, name, expected) for name in sorted(named) if model in ("", name)]
    if model and not models:
        raise NotFoundError(f"nothing is known of labels of model {model!r}")
    return msgspec.json.encode(
        {"time_ns": report.time_ns, "models": models, "kept": report.kept, "peers": report.peers}
    )


def _model(report: Report, name: str, expected: Mapping[VersionKey, float]) -> dict[str, Any]:
    counts = report.models.get(name)
    return {
        "name": name,
        "maturity_s": report.totals.maturity_s.get(name),
        "labels": {} if counts is None else counts.states,
        "labels_from_peers": {} if counts is None else counts.from_peers,
        "delays": None
        if counts is None
        else {"edges_s": DELAY_EDGES_S, "counts": counts.delays, "sum_s": counts.delay_sum_s},
        "versions": [
            {
                "version": each.version,
                "quality": each.quality,
                "expected_accuracy": expected.get((name, each.version)),
            }
            for each in latest(report.qualities)
            if each.model == name
        ],
        "totals": [each for each in report.totals.versions if each.model == name],
        "pairs": [each for each in report.totals.pairs if each.model == name],
    }
