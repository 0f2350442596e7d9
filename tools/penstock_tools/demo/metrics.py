"""What the server's metrics say, as far as the demo shows it: read from the text that Prometheus reads; pure."""

import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from penstock.names import CHAMPION
from penstock_server.errors import UnavailableError

_SCRAPE_TIMEOUT_S: Final = 5.0
_DISTANCE: Final = "penstock_shadow_score_distance"


@dataclass(frozen=True, slots=True)
class Shadow:
    """How the shadow compares with the champion.

    Attributes:
        version: the shadow's.
        compared: rows that both answered.
        agreement: the share with the same class; None before the first row.
        distance: the mean over rows of the largest difference between two scores.
        latency_ratio: its time over the champion's, for the same batches.
    """

    version: str
    compared: int
    agreement: float | None
    distance: float | None
    latency_ratio: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """One scrape, of one model.

    Attributes:
        champion: the version that has the role; None if none has.
        shadow: the version that was compared; None if none was.
        drift: by version, each watched feature's score from 0 to 1.
        window_rows: by version, the rows in its drift window.
    """

    champion: str | None = None
    shadow: Shadow | None = None
    drift: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    window_rows: Mapping[str, int] = field(default_factory=dict)

    def settled_drift(self, least_rows: int) -> Mapping[str, float]:
        """The champion's scores by feature; empty while its window holds fewer rows than that."""
        champion = self.champion or ""
        if self.window_rows.get(champion, 0) < least_rows:
            return {}
        return self.drift.get(champion, {})


@dataclass(frozen=True, slots=True)
class _Sample:
    name: str
    version: str
    labels: Mapping[str, str]
    value: float


def fetch(url: str) -> str:
    """What a page of the server holds.

    Raises:
        UnavailableError: it does not answer.
    """
    try:
        with urllib.request.urlopen(url, timeout=_SCRAPE_TIMEOUT_S) as reply:  # noqa: S310 - a http address of our own
            body: bytes = reply.read()
    except OSError as error:
        raise UnavailableError(f"{url} does not answer: {error}") from error
    return body.decode()


def read(text: str, model: str) -> Facts:
    """What a scrape says of a model; what it does not say is absent, never zero."""
    by_name: dict[str, list[_Sample]] = defaultdict(list)
    for sample in _samples(text, model):
        by_name[sample.name].append(sample)
    drift: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in by_name["data_drift_score"]:
        drift[sample.version][sample.labels["feature_name"]] = sample.value
    roles = {sample.labels["role"]: sample.version for sample in by_name["penstock_model_role"] if sample.value}
    return Facts(
        champion=roles.get(CHAMPION),
        shadow=_shadow(by_name),
        drift=dict(drift),
        window_rows={sample.version: int(sample.value) for sample in by_name["penstock_drift_window_rows"]},
    )


def excerpt(text: str, families: Iterable[str], lines: int) -> list[str]:
    """Of each of these families, the lines with the highest values, as Prometheus reads them."""
    chosen = []
    for family in families:
        found = [line for line in text.splitlines() if line.startswith((f"{family}{{", f"{family} "))]
        chosen += sorted(found, key=lambda line: -float(line.rpartition(" ")[2]))[:lines]
    return chosen


def _samples(text: str, model: str) -> Iterator[_Sample]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model_name") == model:
                yield _Sample(sample.name, sample.labels.get("model_version", ""), sample.labels, sample.value)


def _shadow(by_name: Mapping[str, list[_Sample]]) -> Shadow | None:
    compared: dict[str, int] = defaultdict(int)
    for sample in by_name.get("penstock_shadow_comparisons_total", ()):
        if sample.labels["result"] != "failed":
            compared[sample.version] += int(sample.value)
    if not compared:
        return None
    version = max(compared, key=lambda each: compared[each])
    scored = _of(by_name, f"{_DISTANCE}_count", version)
    total = _of(by_name, f"{_DISTANCE}_sum", version)
    return Shadow(
        version=version,
        compared=compared[version],
        agreement=_of(by_name, "penstock_shadow_agreement_ratio", version),
        distance=total / scored if scored and total is not None else None,
        latency_ratio=_of(by_name, "penstock_shadow_latency_ratio", version),
    )


def _of(by_name: Mapping[str, list[_Sample]], name: str, version: str) -> float | None:
    return next((sample.value for sample in by_name.get(name, ()) if sample.version == version), None)
