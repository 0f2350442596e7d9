"""What the demo measures: the replies that it counts, and what the server's metrics say.

Decides when the promotion shows: the first reply of the new version as champion. The traffic's task writes the tally, the
observer's task the drift; the screen and the report read both. It has no I/O and reads no clock.
"""

from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal

from prometheus_client.parser import text_string_to_metric_families

from penstock.names import CHAMPION

RECENT: Final = 4_000
"""Requests that the live percentiles are taken over."""

HIGH: Final = 0.2
"""A distance shown as drift. Within the training months only the weather exceeds 0.1; its last weeks reach 0.3."""

_DISTANCE: Final = "penstock_shadow_score_distance"

Phase = Literal["before", "between", "after"]
"""Before the promotion was written, until the first reply that shows it, and from then on."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One request's answer.

    Attributes:
        at_s: when it came, in seconds since the stream began.
        took_s: from sending to the answer.
        right: rows whose predicted class was the true one.
    """

    at_s: float
    took_s: float
    month: int
    version: str
    role: str
    rows: int
    right: int


@dataclass(slots=True)
class Score:
    """Rows that a version answered, and of these the right ones."""

    rows: int = 0
    right: int = 0

    @property
    def accuracy(self) -> float | None:
        """The share that was right; None before the first row."""
        return self.right / self.rows if self.rows else None


@dataclass(slots=True)
class Tally:
    """The stream's results so far.

    Attributes:
        challenger: the version that is to be promoted.
        rows_by: rows by (version, role).
        scores: by (phase, version).
        month: that of the latest reply; 0 before the first.
        promoted_s: when the registry had the promotion.
        switched_s: when the first reply showed it.
        errors: the messages of failures, each with its count.
    """

    challenger: str
    requests: int = 0
    rows: int = 0
    month: int = 0
    failures: int = 0
    rows_by: Counter[tuple[str, str]] = field(default_factory=Counter)
    scores: dict[tuple[Phase, str], Score] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    promoted_s: float | None = None
    switched_s: float | None = None
    durations: "array[float]" = field(default_factory=lambda: array("d"))
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def phase(self) -> Phase:
        """Where the promotion stands."""
        if self.promoted_s is None:
            return "before"
        return "between" if self.switched_s is None else "after"

    def answered(self, reply: Reply) -> None:
        """Counts a reply."""
        if reply.role == CHAMPION:
            self._note_champion(reply)
        self.requests += 1
        self.rows += reply.rows
        self.month = max(self.month, reply.month)
        self.rows_by[reply.version, reply.role] += reply.rows
        score = self.scores.setdefault((self.phase, reply.version), Score())
        score.rows += reply.rows
        score.right += reply.right
        self.durations.append(reply.took_s)
        self.recent.append(reply.took_s)

    def _note_champion(self, reply: Reply) -> None:
        if reply.version == self.challenger and self.switched_s is None:
            # A server may follow the alias before the call that wrote it has returned.
            self.promoted(reply.at_s)
            self.switched_s = reply.at_s

    def failed(self, why: str) -> None:
        """Counts a request that got no answer."""
        self.requests += 1
        self.failures += 1
        self.errors[why] += 1

    def promoted(self, at_s: float) -> None:
        """The registry has the promotion."""
        if self.promoted_s is None:
            self.promoted_s = at_s

    @property
    def versions(self) -> list[str]:
        """Those that have answered, in order of their first reply."""
        return list(dict.fromkeys(version for _, version in self.scores))

    def score(self, version: str | None = None, phase: Phase | None = None) -> Score:
        """The score of a version or of all, over one phase or all of them."""
        chosen = [
            score for (when, who), score in self.scores.items() if version in (None, who) and phase in (None, when)
        ]
        return Score(sum(each.rows for each in chosen), sum(each.right for each in chosen))

    def share(self, version: str, phase: Phase | None = None) -> float | None:
        """The version's share of the rows, of all or of one phase; None where there were none."""
        total = self.score(phase=phase).rows
        return self.score(version, phase).rows / total if total else None


def percentile(values: Iterable[float], percent: float) -> float | None:
    """The nearest-rank percentile: the smallest value that at least `percent` of the values do not exceed.

    Returns:
        None where there are no values.

    >>> percentile([3.0, 1.0, 2.0], 50), percentile([], 99)
    (2.0, None)
    """
    ordered = sorted(values)
    return ordered[max(0, ceil(percent / 100 * len(ordered)) - 1)] if ordered else None


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """A feature's drift over the stream.

    Attributes:
        highest: the highest score seen, 0 to 1.
        highest_month: the month in which it was seen.
        began: the first month in which the score was high; None if it never was.
    """

    feature: str
    highest: float
    highest_month: int
    began: int | None


class DriftLog:
    """The highest score of each feature over all scrapes, and the first month in which it was high."""

    def __init__(self) -> None:
        self._by_feature: dict[str, FeatureDrift] = {}

    def add(self, month: int, scores: Mapping[str, float]) -> None:
        """Adds the scores of one scrape in this month."""
        for feature, score in scores.items():
            known = self._by_feature.get(feature) or FeatureDrift(feature, -1.0, month, None)
            is_higher = score > known.highest
            self._by_feature[feature] = FeatureDrift(
                feature,
                highest=score if is_higher else known.highest,
                highest_month=month if is_higher else known.highest_month,
                began=month if known.began is None and score >= HIGH else known.began,
            )

    def top(self, count: int) -> list[FeatureDrift]:
        """The features that drifted most, the highest score first."""
        return sorted(self._by_feature.values(), key=lambda each: (-each.highest, each.feature))[:count]


def highest(scores: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    """The highest scores of one scrape, with their features."""
    return sorted(scores.items(), key=lambda each: (-each[1], each[0]))[:count]


@dataclass(frozen=True, slots=True)
class ShadowMetrics:
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
class DemoMetrics:
    """What one scrape of /metrics says of one model.

    Attributes:
        champion: the version that has the role; None if none has.
        shadow: the version that was compared; None if none was.
        drift: by version, each watched feature's score from 0 to 1.
        window_rows: by version, the rows in its drift window.
    """

    champion: str | None = None
    shadow: ShadowMetrics | None = None
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


def read_metrics(text: str, model: str) -> DemoMetrics:
    """What a scrape says of a model; what it does not say is absent, never zero."""
    by_name: dict[str, list[_Sample]] = defaultdict(list)
    for sample in _samples(text, model):
        by_name[sample.name].append(sample)
    drift: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in by_name["data_drift_score"]:
        drift[sample.version][sample.labels["feature_name"]] = sample.value
    roles = {sample.labels["role"]: sample.version for sample in by_name["penstock_model_role"] if sample.value}
    return DemoMetrics(
        champion=roles.get(CHAMPION),
        shadow=_shadow(by_name),
        drift=dict(drift),
        window_rows={sample.version: int(sample.value) for sample in by_name["penstock_drift_window_rows"]},
    )


def metrics_excerpt(text: str, families: Iterable[str], lines: int) -> list[str]:
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


def _shadow(by_name: Mapping[str, list[_Sample]]) -> ShadowMetrics | None:
    compared: dict[str, int] = defaultdict(int)
    for sample in by_name.get("penstock_shadow_comparisons_total", ()):
        if sample.labels["result"] in ("agree", "disagree"):
            compared[sample.version] += int(sample.value)
    if not compared:
        return None
    version = max(compared, key=lambda each: compared[each])
    scored = _of(by_name, f"{_DISTANCE}_count", version)
    total = _of(by_name, f"{_DISTANCE}_sum", version)
    return ShadowMetrics(
        version=version,
        compared=compared[version],
        agreement=_of(by_name, "penstock_shadow_agreement_ratio", version),
        distance=total / scored if scored and total is not None else None,
        latency_ratio=_of(by_name, "penstock_shadow_latency_ratio", version),
    )


def _of(by_name: Mapping[str, list[_Sample]], name: str, version: str) -> float | None:
    return next((sample.value for sample in by_name.get(name, ()) if sample.version == version), None)
