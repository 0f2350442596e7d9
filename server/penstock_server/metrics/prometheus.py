"""Sums the counters over workers at a scrape, and renders them for Prometheus.

A custom collector makes the families from the versions loaded at the moment of a scrape. So totals over workers are
exact, and an unloaded version's series end with the next scrape. Labels come from loaded versions and fixed lists,
never from a request.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version as installed_version
from platform import python_version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from penstock.names import SERVER_NAME, VersionKey, VersionState
from penstock_server.metrics.counters import (
    CACHE_CELLS,
    KEY_FAILURES,
    LATENCY_EDGES_S,
    LOG_DROPS,
    MAX_CLASSES,
    MAX_PAIRED,
    REFUSALS,
    ROWS_EDGES,
    SCORE_EDGES,
    SHADOW_DROPS,
    SHADOW_RESULTS,
    STAGES,
    TIME_RATIO_EDGES,
    SharedCounters,
)
from penstock_server.metrics.routed import totals
from penstock_server.rollout import shares

VERSION: Final = ["model_name", "model_version"]
_BILLION: Final = 1e9
_WORD: Final = (1 << 64) - 1
OTHER: Final = "other"
"""The class of rows whose class has no name or no cell of its own."""


@dataclass(frozen=True, slots=True)
class VersionSnapshot:
    """A loaded version and its counters.

    Attributes:
        weight: the canary's share of the keys; None for other roles.
        counters: one per worker.
        class_names: names for class labels that are indices; empty when labels are numbers.
        steps: the names of an ensemble's steps.
        fraction: the share of the champion's batches that a shadow gets; None for other roles.
    """

    model: str
    version: str
    roles: Sequence[str]
    weight: float | None
    counters: Sequence[SharedCounters]
    class_names: Sequence[str] = ()
    steps: Sequence[str] = ()
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """What a scrape shows.

    Attributes:
        slots: each worker slot's own counters.
        restarts: by slot.
        resident_bytes: each worker's resident memory, by slot.
        cpu_s: what each worker's process has used of the CPU, in seconds, by slot.
        connections: how many each worker has, by slot, where that is known.
        sources: by name, whether the source answers.
        answered_s: by name, when the source answered last, in seconds since 1970; of those that have.
        states: by version, the state that /v1/models shows: of all that are desired or that a worker holds.
        is_ready: whether something can be answered.
        quarantined: desired versions that are kept out for what they do to a process.
        process_ends: how often a version ended the process of its own Python.
        offset_ns: what the monotonic clock is behind the time since 1970.
        spans: those that were sent, those that no collector took, and requests whose spans had no room; None if nothing is
            traced.
    """

    versions: Sequence[VersionSnapshot]
    slots: dict[int, SharedCounters]
    restarts: dict[int, int] = field(default_factory=dict)
    resident_bytes: dict[int, int] = field(default_factory=dict)
    cpu_s: dict[int, float] = field(default_factory=dict)
    connections: dict[int, int] = field(default_factory=dict)
    sources: dict[str, bool] = field(default_factory=dict)
    answered_s: dict[str, float] = field(default_factory=dict)
    states: Mapping[VersionKey, VersionState] = field(default_factory=dict)
    is_ready: bool = False
    reloads: int = 0
    failed_reloads: int = 0
    quarantined: int = 0
    process_ends: Mapping[VersionKey, int] = field(default_factory=dict)
    offset_ns: int = 0
    spans: tuple[int, int, int] | None = None


class MetricsCollector(Collector):
    """Makes the metric families from a snapshot at each scrape."""

    def __init__(self, snapshot: Callable[[], MetricsSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        yield from _predictions(snapshot.versions, snapshot.offset_ns)
        yield from _routed(snapshot.versions)
        yield from _queues(snapshot.versions)
        yield from _response_cache(snapshot.versions)
        yield from _steps(snapshot.versions)
        yield from _shadows(snapshot.versions)
        yield from _request_log(snapshot.versions)
        yield from _roles(snapshot.versions)
        yield from _states(snapshot)
        yield from _workers(snapshot)
        yield from _server(snapshot)
        if snapshot.spans is not None:
            yield from _spans(*snapshot.spans)


def registry_of(*collectors: Collector) -> CollectorRegistry:
    """A registry of its own with these collectors; nothing is registered globally."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


def of_this_process() -> Collector:
    """The start, CPU, memory and files of the process that is scraped, under the names that all clients give them."""
    return ProcessCollector(registry=None)


def summed(workers: Sequence[SharedCounters], name: str) -> NDArray[Any]:
    """An array of the counters, summed over workers."""
    total: NDArray[Any] = np.sum([getattr(counters, name) for counters in workers], axis=0)
    return total


def _labels(version: VersionSnapshot) -> list[str]:
    return [version.model, version.version]


def _predictions(versions: Sequence[VersionSnapshot], offset_ns: int) -> Iterator[Metric]:
    predictions = CounterMetricFamily(
        "model_predictions", "Rows answered, by predicted class (none for models without classes).",
        labels=[*VERSION, "prediction_class"],
    )  # fmt: skip
    latency = HistogramMetricFamily(
        "model_prediction_latency_seconds",
        "Time by stage: total and queue of each request, features and infer of each batch.",
        labels=[*VERSION, "stage"],
    )
    rows = HistogramMetricFamily("penstock_batch_rows", "Rows of each batch that ran.", labels=VERSION)
    requests = CounterMetricFamily("penstock_requests", "Requests answered.", labels=VERSION)
    for version in versions:
        labels = _labels(version)
        for name, count in class_counts(version):
            predictions.add_metric([*labels, name], count)
        counts = summed(version.counters, "latency")
        sums = [*summed(version.counters, "latency_ns"), *summed(version.counters, "batch_ns").sum(axis=1)]
        for at, stage in enumerate(STAGES):
            buckets = _with_exemplars(_buckets(LATENCY_EDGES_S, counts[at]), version.counters, at, offset_ns)
            latency.add_metric([*labels, stage], buckets, sum_value=sums[at] / _BILLION)
        ran = int(summed(version.counters, "rows")[0]) - _cache_cells(version)["hit_rows"]
        rows.add_metric(labels, _buckets(ROWS_EDGES, summed(version.counters, "batch_rows")), sum_value=ran)
        requests.add_metric(labels, int(summed(version.counters, "requests")[0]))
    yield from (predictions, latency, rows, requests)


def class_counts(version: VersionSnapshot) -> list[tuple[str, int]]:
    """Rows by class name over all workers; one unnamed class if the version has none."""
    totals: Counter[str] = Counter()
    for counters in version.counters:
        known = int(counters.class_count[0])
        for value, count in zip(counters.class_values[:known].tolist(), counters.classes[:known].tolist(), strict=True):
            totals[class_name(value, version.class_names)] += count
        if more := int(counters.classes[MAX_CLASSES]):
            totals[OTHER] += more
    if not totals:
        return [("", int(summed(version.counters, "rows")[0]))]
    return list(totals.items())


def class_name(value: int, names: Sequence[str]) -> str:
    """What a predicted label is called: itself where there are no names."""
    if not names:
        return str(value)
    return names[value] if 0 <= value < len(names) else OTHER


def class_pairs(version: VersionSnapshot) -> dict[tuple[str, str], int]:
    """Rows by the names of the champion's class and the shadow's, over all workers, the most first."""
    totals: Counter[tuple[str, str]] = Counter()
    for counters in version.counters:
        for champion, shadow, rows in _pairs(counters):
            names = version.class_names
            totals[_name(champion, names), _name(shadow, names)] += rows
    return dict(totals.most_common())


def _pairs(counters: SharedCounters) -> Iterator[tuple[int | None, int | None, int]]:
    """Both labels and the rows of each pair that occurred; None for a label that has no cell of its own."""
    labels: list[int | None] = counters.pair_values.tolist()[: int(counters.pair_count[0])]
    labels += [None] * (MAX_PAIRED + 1 - len(labels))
    for champion, shadow in np.argwhere(counters.pairs).tolist():
        yield labels[champion], labels[shadow], int(counters.pairs[champion, shadow])


def _name(label: int | None, names: Sequence[str]) -> str:
    return OTHER if label is None else class_name(label, names)


def _buckets(edges: Sequence[float], counts: NDArray[np.int64]) -> list[tuple[str, float]]:
    names = [*(f"{edge:.6g}" for edge in edges), "+Inf"]
    return list(zip(names, np.cumsum(counts).tolist(), strict=True))


Bucket = tuple[str, float] | tuple[str, float, Exemplar]


def _with_exemplars(
    buckets: Sequence[tuple[str, float]], workers: Sequence[SharedCounters], stage: int, offset_ns: int
) -> list[Bucket]:
    """The buckets, each with the trace that was counted in it last, if there is one."""
    cells = np.array([counters.exemplars[stage] for counters in workers])
    if not cells[..., -1].any():
        return list(buckets)
    again = np.array([counters.exemplars[stage] for counters in workers])
    # What changed while it was read says nothing yet.
    cells[(cells != again).any(axis=-1)] = 0
    latest = cells[cells[..., -1].argmax(axis=0), np.arange(len(buckets))].tolist()
    return [
        (*bucket, Exemplar({"trace_id": _trace_id(high, low)}, took / _BILLION, (at + offset_ns) / _BILLION))
        if at
        else bucket
        for bucket, (high, low, took, at) in zip(buckets, latest, strict=True)
    ]


def _trace_id(high: int, low: int) -> str:
    return f"{(high & _WORD) << 64 | low & _WORD:032x}"


def _spans(sent: int, failed: int, lost: int) -> Iterator[Metric]:
    spans = CounterMetricFamily(
        "penstock_spans", "Spans of traced requests, by what became of them.", labels=["result"]
    )
    spans.add_metric(["sent"], sent)
    spans.add_metric(["failed"], failed)
    without_room = CounterMetricFamily("penstock_spans_lost_requests", "Traced requests whose spans had no room.")
    without_room.add_metric([], lost)
    yield from (spans, without_room)


def _routed(versions: Sequence[VersionSnapshot]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "penstock_routed_requests",
        "Requests that named no version and came to this one by key or chance.",
        labels=VERSION,
    )
    failures = CounterMetricFamily(
        "penstock_routed_failures", "Those of them that the version failed to answer, by its own fault.", labels=VERSION
    )
    by_key = CounterMetricFamily(
        "penstock_routed_key_failures",
        "Those of the failures, while canaries share the requests, that are their routing key's first, that are its fourth, "
        "and that are counted, which leaves out what one key has had beyond 32. Those without a key are in each.",
        labels=[*VERSION, "which"],
    )
    latency = HistogramMetricFamily(
        "penstock_routed_latency_seconds", "Time of those of them that were answered.", labels=VERSION
    )
    for version in versions:
        found = totals(version.counters)
        requests.add_metric(_labels(version), found.requests)
        failures.add_metric(_labels(version), found.failed)
        for which, count in zip(KEY_FAILURES, found.by_key, strict=True):
            by_key.add_metric([*_labels(version), which], count)
        latency.add_metric(_labels(version), _buckets(LATENCY_EDGES_S, np.array(found.latency)), sum_value=None)
    yield from (requests, failures, by_key, latency)


def _queues(versions: Sequence[VersionSnapshot]) -> Iterator[Metric]:
    depth = GaugeMetricFamily("penstock_queue_rows", "Rows that wait for a batch.", labels=VERSION)
    requests = GaugeMetricFamily("penstock_queue_requests", "Requests that wait for a batch.", labels=VERSION)
    refusals = CounterMetricFamily(
        "penstock_refusals", "Requests without an answer, by reason.", labels=[*VERSION, "reason"]
    )
    for version in versions:
        waiting = summed(version.counters, "waiting")
        depth.add_metric(_labels(version), int(waiting[0]))
        requests.add_metric(_labels(version), int(waiting[1]))
        for reason, count in zip(REFUSALS, summed(version.counters, "refusals").tolist(), strict=True):
            refusals.add_metric([*_labels(version), reason], count)
    yield from (depth, requests, refusals)


def _response_cache(versions: Sequence[VersionSnapshot]) -> Iterator[Metric]:
    """No series for versions whose answers were never looked for."""
    hits = CounterMetricFamily(
        "penstock_response_cache_hits", "Requests answered from the response cache.", labels=VERSION
    )
    misses = CounterMetricFamily(
        "penstock_response_cache_misses", "Requests that were looked for in the response cache and ran.", labels=VERSION
    )
    evictions = CounterMetricFamily(
        "penstock_response_cache_evictions", "Kept answers that made room for others.", labels=VERSION
    )
    size = GaugeMetricFamily("penstock_response_cache_bytes", "What kept answers take.", labels=VERSION)
    for version in versions:
        cells = _cache_cells(version)
        if not any(cells.values()):
            continue
        for family, name in ((hits, "hits"), (misses, "misses"), (evictions, "evictions"), (size, "bytes")):
            family.add_metric(_labels(version), cells[name])
    yield from (hits, misses, evictions, size)


def _cache_cells(version: VersionSnapshot) -> dict[str, int]:
    return dict(zip(CACHE_CELLS, summed(version.counters, "cache").tolist(), strict=True))


def _steps(versions: Sequence[VersionSnapshot]) -> Iterator[Metric]:
    """No series for versions that are no ensembles."""
    labels = [*VERSION, "step"]
    runs = CounterMetricFamily("penstock_step_runs", "Batches that an ensemble's step ran.", labels=labels)
    rows = CounterMetricFamily("penstock_step_rows", "Rows that an ensemble's step ran for.", labels=labels)
    took = CounterMetricFamily("penstock_step_seconds", "Time of an ensemble's step, over its batches.", labels=labels)
    for version in versions:
        if not version.steps:
            continue
        for name, counts in zip(version.steps, summed(version.counters, "steps").tolist(), strict=True):
            own = [*_labels(version), name]
            runs.add_metric(own, counts[0])
            rows.add_metric(own, counts[1])
            took.add_metric(own, counts[2] / _BILLION)
    yield from (runs, rows, took)


def _shadows(versions: Sequence[VersionSnapshot]) -> Iterator[Metric]:
    results = CounterMetricFamily(
        "penstock_shadow_comparisons",
        "Rows that the shadow ran after the champion, by result.",
        labels=[*VERSION, "result"],
    )
    drops = CounterMetricFamily(
        "penstock_shadow_dropped", "Rows not copied to the shadow, by reason.", labels=[*VERSION, "reason"]
    )
    agreement = GaugeMetricFamily(
        "penstock_shadow_agreement_ratio", "Share of compared rows with the champion's class.", labels=VERSION
    )
    distance = HistogramMetricFamily(
        "penstock_shadow_score_distance",
        "Largest difference between a row's scores and the champion's.",
        labels=VERSION,
    )
    differing = HistogramMetricFamily(
        "penstock_shadow_request_differing_ratio",
        "Share of each request's rows, of those that the champion answered, that the shadow did not answer alike.",
        labels=VERSION,
    )
    request_distance = HistogramMetricFamily(
        "penstock_shadow_request_score_distance",
        "Mean over each request's rows of the largest difference between a row's scores, up to 1.",
        labels=VERSION,
    )
    latency = GaugeMetricFamily(
        "penstock_shadow_latency_ratio",
        "The shadow's time for the batches it ran, over the champion's.",
        labels=VERSION,
    )
    classes = CounterMetricFamily(
        "penstock_shadow_classes",
        "Rows that were compared, by the champion's class and the shadow's.",
        labels=[*VERSION, "champion_class", "shadow_class"],
    )
    ratios = HistogramMetricFamily(
        "penstock_shadow_time_ratio",
        "The shadow's time for each batch that it ran, over the champion's.",
        labels=VERSION,
    )
    for version in versions:
        counts, dropped = summed(version.counters, "shadow"), summed(version.counters, "shadow_drops")
        if "shadow" not in version.roles and not counts.any() and not dropped.any():
            continue
        labels = _labels(version)
        for result, count in zip(SHADOW_RESULTS, counts.tolist(), strict=True):
            results.add_metric([*labels, result], count)
        for reason, count in zip(SHADOW_DROPS, dropped.tolist(), strict=True):
            drops.add_metric([*labels, reason], count)
        if compared := int(counts[0] + counts[1]):
            agreement.add_metric(labels, counts[0] / compared)
        scores, total = summed(version.counters, "scores"), float(summed(version.counters, "score_sum")[0])
        distance.add_metric(labels, _buckets(SCORE_EDGES, scores), sum_value=total)
        by_share = np.append(summed(version.counters, "differing"), 0)
        differing.add_metric(labels, _buckets(shares.EDGES, by_share), sum_value=None)
        by_distance = summed(version.counters, "request_scores")
        request_distance.add_metric(labels, _buckets(SCORE_EDGES, by_distance), sum_value=None)
        champion_ns, shadow_ns = summed(version.counters, "pair_ns").tolist()
        if champion_ns:
            latency.add_metric(labels, shadow_ns / champion_ns)
        for pair, count in class_pairs(version).items():
            classes.add_metric([*labels, *pair], count)
        ratios.add_metric(labels, _buckets(TIME_RATIO_EDGES, summed(version.counters, "time_ratios")), sum_value=None)
    yield from (results, drops, agreement, distance, differing, request_distance, latency, classes, ratios)


def _request_log(versions: Sequence[VersionSnapshot]) -> Iterator[Metric]:
    """No series for versions of which no request was ever sampled."""
    rows = CounterMetricFamily("penstock_request_log_rows", "Rows written to the request log.", labels=VERSION)
    drops = CounterMetricFamily(
        "penstock_request_log_dropped",
        "Sampled rows that were not written to the request log, by reason.",
        labels=[*VERSION, "reason"],
    )
    for version in versions:
        written, dropped = int(summed(version.counters, "log_rows")[0]), summed(version.counters, "log_drops")
        if written or dropped.any():
            rows.add_metric(_labels(version), written)
            for reason, count in zip(LOG_DROPS, dropped.tolist(), strict=True):
                drops.add_metric([*_labels(version), reason], count)
    yield from (rows, drops)


def _roles(versions: Sequence[VersionSnapshot]) -> Iterator[Metric]:
    roles = GaugeMetricFamily("penstock_model_role", "1 for each role of a version.", labels=[*VERSION, "role"])
    weight = GaugeMetricFamily("penstock_canary_weight_ratio", "Share of keys that the canary answers.", labels=VERSION)
    sample = GaugeMetricFamily(
        "penstock_shadow_sample_ratio", "Share of the champion's batches that the shadow gets.", labels=VERSION
    )
    for version in versions:
        for role in version.roles:
            roles.add_metric([*_labels(version), role], 1)
        if version.weight is not None:
            weight.add_metric(_labels(version), version.weight)
        if version.fraction is not None:
            sample.add_metric(_labels(version), version.fraction)
    yield from (roles, weight, sample)


@cache
def _build() -> tuple[str, str]:
    return installed_version(SERVER_NAME), python_version()


def _states(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "penstock_version_state",
        "1 for the state of each version that is wanted or loaded: READY, STANDBY, LOADING, UNLOADING or UNAVAILABLE.",
        labels=[*VERSION, "state"],
    )
    for key, state in snapshot.states.items():
        states.add_metric([*key, state], 1)
    yield states


def _workers(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    restarts = CounterMetricFamily(
        "penstock_worker_restarts", "Workers that died and were replaced.", labels=["worker"]
    )
    resident = GaugeMetricFamily("penstock_worker_resident_bytes", "Resident memory of each worker.", labels=["worker"])
    cpu = CounterMetricFamily(
        "penstock_worker_cpu_seconds", "What each worker has used of the CPU; one that is replaced begins at 0.",
        labels=["worker"],
    )  # fmt: skip
    connections = GaugeMetricFamily(
        "penstock_worker_connections", "Open connections of each worker.", labels=["worker"]
    )
    for family, by_slot in (
        (restarts, snapshot.restarts),
        (resident, snapshot.resident_bytes),
        (cpu, snapshot.cpu_s),
        (connections, snapshot.connections),
    ):
        for slot, value in by_slot.items():
            family.add_metric([str(slot)], value)
    yield from (restarts, resident, cpu, connections)


def _server(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    refusals = CounterMetricFamily(
        "penstock_unrouted_refusals", "Requests refused before a version was found, by reason.", labels=["reason"]
    )
    total = (
        np.sum([counters.refusals for counters in snapshot.slots.values()], axis=0)
        if snapshot.slots
        else np.zeros(len(REFUSALS))
    )
    for reason, count in zip(REFUSALS, total.tolist(), strict=True):
        refusals.add_metric([reason], count)
    sources = GaugeMetricFamily("penstock_source_up", "1 while the source of models answers.", labels=["source"])
    for name, is_up in snapshot.sources.items():
        sources.add_metric([name], int(is_up))
    answered = GaugeMetricFamily(
        "penstock_source_answered_timestamp_seconds",
        "When the source of models answered last, in seconds since 1970; absent before it has.",
        labels=["source"],
    )
    for name, at_s in snapshot.answered_s.items():
        answered.add_metric([name], at_s)
    reloads = CounterMetricFamily("penstock_loads", "Versions loaded by workers, by result.", labels=["result"])
    reloads.add_metric(["ok"], snapshot.reloads)
    reloads.add_metric(["failed"], snapshot.failed_reloads)
    quarantined = GaugeMetricFamily(
        "penstock_quarantined_versions",
        "Versions that should be served and are kept out: they did not pass the airlock, or ended workers.",
    )
    quarantined.add_metric([], snapshot.quarantined)
    process_ends = CounterMetricFamily(
        "penstock_python_process_ends",
        "Processes that ran a version's own Python, ended and were replaced.",
        labels=VERSION,
    )
    for key, count in snapshot.process_ends.items():
        process_ends.add_metric(key, count)
    ready = GaugeMetricFamily("penstock_ready", "1 while the server can answer something, as /readyz says.")
    ready.add_metric([], int(snapshot.is_ready))
    build = GaugeMetricFamily("penstock_build_info", "1 for what runs here.", labels=["version", "python_version"])
    build.add_metric(_build(), 1)
    yield from (refusals, sources, answered, reloads, quarantined, process_ends, ready, build)
