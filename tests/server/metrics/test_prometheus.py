import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from penstock_server.metrics.counters import MAX_CLASSES, REFUSALS, SharedCounters
from penstock_server.metrics.prometheus import (
    MetricsCollector,
    MetricsSnapshot,
    VersionSnapshot,
    class_counts,
    of_this_process,
    registry_of,
)
from penstock_server.metrics.recorder import Recorder

NewCounters = Callable[..., SharedCounters]
VERSION = {"model_name": "m", "model_version": "1"}


class Scrape:
    """The text of one scrape, parsed."""

    def __init__(self, snapshot: MetricsSnapshot) -> None:
        text = generate_latest(registry_of(MetricsCollector(lambda: snapshot))).decode()
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        samples = [sample for family in self.families.values() for sample in family.samples]
        self.values = {(one.name, frozenset(one.labels.items())): one.value for one in samples}
        assert len(self.values) == len(samples), "a series is there twice"

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.values.get((name, frozenset(labels.items())))

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for sample, labels in self.values if sample == name]


def version_of(*workers: SharedCounters, **snapshot: Any) -> VersionSnapshot:
    return VersionSnapshot(
        **{"model": "m", "version": "1", "roles": ("champion",), "weight": None, "counters": workers, **snapshot}
    )


def scrape(*versions: VersionSnapshot, **snapshot: Any) -> Scrape:
    return Scrape(MetricsSnapshot(versions, **{"slots": {}, **snapshot}))


def batch(counters: SharedCounters, requests: int, rows: int, infer_s: float = 0.001) -> None:
    Recorder(counters).batch(
        arrived_s=[1.0] * requests, rows=rows, started_s=1.25, ended_s=1.5, features_s=0.0, infer_s=infer_s
    )


def test_a_scrape_has_the_same_families_whatever_was_served(new_counters: NewCounters) -> None:
    counters = new_counters()
    batch(counters, requests=2, rows=5)
    Recorder(counters).request_logged(1)
    before, after = scrape(), scrape(version_of(counters, roles=("canary", "shadow"), weight=0.5))
    assert before.families.keys() == after.families.keys()
    assert all(family.documentation for family in before.families.values())
    assert after.values.keys() > before.values.keys()


def test_nothing_is_registered_for_the_whole_process() -> None:
    from prometheus_client import REGISTRY

    registry_of(MetricsCollector(lambda: MetricsSnapshot([], {})))
    assert "penstock_loads" not in generate_latest(REGISTRY).decode()


def test_the_collector_is_not_scraped_when_it_is_registered() -> None:
    def snapshot() -> MetricsSnapshot:
        raise AssertionError("scraped too early")

    registry_of(MetricsCollector(snapshot))


def test_totals_are_sums_over_workers(new_counters: NewCounters) -> None:
    one, two = new_counters(), new_counters()
    batch(one, requests=2, rows=5)
    batch(two, requests=1, rows=3)
    batch(two, requests=1, rows=64)
    Recorder(one).waiting(4, 2)
    Recorder(two).waiting(1, 1)
    for _ in range(2):
        Recorder(one).refused("deadline")
    Recorder(two).refused("deadline")
    shown = scrape(version_of(one, two))
    assert shown("penstock_requests_total", **VERSION) == 4
    assert shown("model_predictions_total", **VERSION, prediction_class="") == 72
    assert shown("penstock_batch_rows_sum", **VERSION) == 72
    assert shown("penstock_batch_rows_count", **VERSION) == 3
    assert shown("penstock_batch_rows_bucket", **VERSION, le="4") == 1
    assert shown("penstock_batch_rows_bucket", **VERSION, le="8") == 2
    assert (shown("penstock_queue_rows", **VERSION), shown("penstock_queue_requests", **VERSION)) == (5, 3)
    refusals = {one["reason"] for one in shown.labels("penstock_refusals_total")}
    assert refusals == set(REFUSALS)
    assert shown("penstock_refusals_total", **VERSION, reason="deadline") == 3


def test_latency_is_a_histogram_by_stage(new_counters: NewCounters) -> None:
    counters = new_counters()
    batch(counters, requests=3, rows=3, infer_s=0.002)
    shown = scrape(version_of(counters))
    name = "model_prediction_latency_seconds"
    sums = {"total": 1.5, "queue": 0.75, "features": 0.0, "infer": 0.002}
    counts = {"total": 3, "queue": 3, "features": 1, "infer": 1}
    for stage, total in sums.items():
        labels = {**VERSION, "stage": stage}
        assert shown(f"{name}_sum", **labels) == pytest.approx(total)
        assert shown(f"{name}_count", **labels) == counts[stage]
        assert shown(f"{name}_bucket", **labels, le="+Inf") == counts[stage]
        buckets = [
            (float(one["le"]), shown(f"{name}_bucket", **one) or 0.0)
            for one in shown.labels(f"{name}_bucket")
            if one["stage"] == stage
        ]
        values = [value for _, value in sorted(buckets)]
        assert len(values) == 38
        assert values == sorted(values)  # cumulative


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([], (), {"": 0}),
        ([0, 2, 2], (), {"0": 1, "2": 2}),
        ([-1, 7], (), {"-1": 1, "7": 1}),
        ([0, 1, 1], ("ham", "eggs"), {"ham": 1, "eggs": 2}),
        ([0, 2, 5, -1], ("ham", "eggs"), {"ham": 1, "other": 3}),
        ([0, 2], ("other", "eggs"), {"other": 2}),
        (list(range(MAX_CLASSES + 3)), tuple(map(str, range(MAX_CLASSES))), None),
    ],
)
def test_classes_have_one_series_each(new_counters: NewCounters, labels: list[int], names: Any, expected: Any) -> None:
    one, two = new_counters(), new_counters()
    Recorder(one).classes(np.array(labels, np.int64))
    snapshot = version_of(one, two, class_names=names)
    if expected is None:
        expected = {str(label): 1 for label in range(MAX_CLASSES)} | {"other": 3}
    assert dict(class_counts(snapshot)) == expected
    Recorder(two).classes(np.array(labels[::-1], np.int64))
    shown = scrape(snapshot)
    for name, count in expected.items():
        assert shown("model_predictions_total", **VERSION, prediction_class=name) == 2 * count


def test_an_unloaded_versions_series_are_gone(new_counters: NewCounters) -> None:
    first, second = version_of(new_counters()), version_of(new_counters(), version="2", roles=("shadow",), weight=0.1)
    both, one = scrape(first, second), scrape(first)
    assert any(labels.get("model_version") == "2" for labels in map(dict, (key[1] for key in both.values)))
    assert not any(dict(labels).get("model_version") == "2" for _, labels in one.values)
    assert one.families.keys() == both.families.keys()


def test_roles_and_weight(new_counters: NewCounters) -> None:
    shown = scrape(version_of(new_counters(), roles=("canary", "shadow"), weight=0.25))
    assert shown("penstock_model_role", **VERSION, role="canary") == 1
    assert shown("penstock_model_role", **VERSION, role="shadow") == 1
    assert shown("penstock_model_role", **VERSION, role="champion") is None
    assert shown("penstock_canary_weight_ratio", **VERSION) == 0.25
    assert scrape(version_of(new_counters())).labels("penstock_canary_weight_ratio") == []


def test_routed_requests_are_those_that_named_no_version(new_counters: NewCounters) -> None:
    counters = new_counters()
    recorder = Recorder(counters)
    recorder.routed()
    batch(counters, requests=1, rows=1)
    facts = {"rows": 1, "started_s": 1.25, "ended_s": 1.5, "features_s": 0.0, "infer_s": 0.0}
    recorder.batch(arrived_s=[1.0], named_s=[1.0], **facts)  # type: ignore[arg-type]
    recorder.refused("internal")
    recorder.refused("internal", is_named=True)
    shown = scrape(version_of(counters))
    assert shown("penstock_routed_requests_total", **VERSION) == 1
    assert shown("penstock_routed_failures_total", **VERSION) == 1
    assert shown("penstock_routed_latency_seconds_bucket", **VERSION, le="+Inf") == 1
    assert shown("model_prediction_latency_seconds_bucket", **VERSION, stage="total", le="+Inf") == 2


def test_shadows(new_counters: NewCounters) -> None:
    counters = new_counters()
    recorder = Recorder(counters)
    recorder.shadow_compared(
        agree=np.array([True, True, False, True]),
        distance=np.array([0.0, 0.0, 0.4, 0.1]),
        champion_s=0.2,
        shadow_s=0.3,
        classes=(np.array([1, 1, 0, 0]), np.array([1, 1, 1, 0])),
    )
    recorder.shadow_failed(2)
    recorder.shadow_dropped("busy", 5)
    shown = scrape(version_of(counters, new_counters(), roles=("shadow",), fraction=0.25, class_names=("ham", "spam")))
    assert shown("penstock_shadow_sample_ratio", **VERSION) == 0.25
    assert shown("penstock_shadow_classes_total", **VERSION, champion_class="ham", shadow_class="spam") == 1
    assert shown("penstock_shadow_classes_total", **VERSION, champion_class="spam", shadow_class="spam") == 2
    assert shown("penstock_shadow_time_ratio_bucket", **VERSION, le="1.25") == 0
    assert shown("penstock_shadow_time_ratio_bucket", **VERSION, le="1.5") == 1
    assert shown("penstock_shadow_comparisons_total", **VERSION, result="agree") == 3
    assert shown("penstock_shadow_comparisons_total", **VERSION, result="disagree") == 1
    assert shown("penstock_shadow_comparisons_total", **VERSION, result="failed") == 2
    assert shown("penstock_shadow_dropped_total", **VERSION, reason="busy") == 5
    assert shown("penstock_shadow_agreement_ratio", **VERSION) == 0.75
    assert shown("penstock_shadow_latency_ratio", **VERSION) == pytest.approx(1.5)
    assert shown("penstock_shadow_score_distance_sum", **VERSION) == pytest.approx(0.5)
    assert shown("penstock_shadow_score_distance_bucket", **VERSION, le="0") == 2
    assert shown("penstock_shadow_score_distance_count", **VERSION) == 4


def test_a_shadow_without_copies_has_no_ratio(new_counters: NewCounters) -> None:
    shown = scrape(version_of(new_counters(), roles=("shadow",)))
    assert shown("penstock_shadow_comparisons_total", **VERSION, result="agree") == 0
    assert shown("penstock_shadow_agreement_ratio", **VERSION) is None
    assert shown("penstock_shadow_latency_ratio", **VERSION) is None


def test_a_version_that_was_never_a_shadow_has_no_shadow_series(new_counters: NewCounters) -> None:
    assert scrape(version_of(new_counters())).labels("penstock_shadow_comparisons_total") == []


def test_the_server_itself(new_counters: NewCounters) -> None:
    one, two = new_counters(), new_counters()
    for counters in (one, one, two, two, two):
        Recorder(counters).refused("not_found")
    shown = scrape(
        slots={0: one, 1: two}, restarts={0: 0, 1: 4}, resident_bytes={0: 10**8}, connections={1: 5},
        sources={"models/": True, "https://registry": False}, reloads=7, failed_reloads=2, quarantined=3,
        process_ends={("m", "1"): 2}, cpu_s={1: 12.5}, answered_s={"models/": 1.8e9}, is_ready=True,
        states={("m", "1"): "READY", ("n", "2"): "UNAVAILABLE"},
    )  # fmt: skip
    assert shown("penstock_unrouted_refusals_total", reason="not_found") == 5
    assert shown("penstock_unrouted_refusals_total", reason="internal") == 0
    assert shown("penstock_worker_restarts_total", worker="1") == 4
    assert shown("penstock_worker_resident_bytes", worker="0") == 10**8
    assert shown("penstock_worker_connections", worker="1") == 5
    assert shown("penstock_worker_connections", worker="0") is None
    assert shown("penstock_source_up", source="models/") == 1
    assert shown("penstock_source_up", source="https://registry") == 0
    assert shown("penstock_loads_total", result="ok") == 7
    assert shown("penstock_loads_total", result="failed") == 2
    assert shown("penstock_quarantined_versions") == 3
    assert shown("penstock_python_process_ends_total", **VERSION) == 2
    assert shown("penstock_worker_cpu_seconds_total", worker="1") == 12.5
    assert shown("penstock_source_answered_timestamp_seconds", source="models/") == 1.8e9
    assert shown.labels("penstock_source_answered_timestamp_seconds") == [{"source": "models/"}]
    assert shown("penstock_version_state", **VERSION, state="READY") == 1
    assert shown("penstock_version_state", model_name="n", model_version="2", state="UNAVAILABLE") == 1
    assert len(shown.labels("penstock_version_state")) == 2
    assert shown("penstock_ready") == 1
    (build,) = shown.labels("penstock_build_info")
    assert build["python_version"] == platform.python_version()


def test_a_server_that_can_answer_nothing_says_so() -> None:
    assert scrape()("penstock_ready") == 0


def test_a_process_has_the_names_that_every_client_gives() -> None:
    text = generate_latest(registry_of(of_this_process())).decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"process_start_time_seconds", "process_cpu_seconds", "process_resident_memory_bytes"} <= names


def test_names_from_outside_are_escaped(new_counters: NewCounters) -> None:
    name = 'a "model"\nwith \\ more'
    shown = scrape(version_of(new_counters(), model=name))
    assert shown("penstock_requests_total", model_name=name, model_version="1") == 0


def log_lines(*workers: SharedCounters) -> list[str]:
    snapshot = MetricsSnapshot([VersionSnapshot("m", "1", ("champion",), None, workers)], {})
    text = generate_latest(registry_of(MetricsCollector(lambda: snapshot))).decode()
    return [line for line in text.splitlines() if line.startswith("penstock_request_log")]


def test_what_was_written_and_dropped_is_summed_over_workers(new_counters: Callable[..., Any]) -> None:
    workers = [new_counters(), new_counters()]
    assert log_lines(*workers) == []
    for counters in workers:
        recorder = Recorder(counters)
        recorder.request_logged(3)
        recorder.request_logged(4)
        recorder.request_log_dropped("busy", 2)
    Recorder(workers[1]).request_log_dropped("disk", 5)
    labels = 'model_name="m",model_version="1"'
    assert log_lines(*workers) == [
        f"penstock_request_log_rows_total{{{labels}}} 14.0",
        f'penstock_request_log_dropped_total{{{labels},reason="busy"}} 4.0',
        f'penstock_request_log_dropped_total{{{labels},reason="disk"}} 5.0',
    ]


def test_sums_beyond_an_integer_are_shown(new_counters: NewCounters) -> None:
    workers = [new_counters(), new_counters()]
    for one in workers:
        one.latency_ns[0] = 2.0**63
        one.score_sum[0] = 1e20
        one.shadow[0] = 2**61
    shown = scrape(version_of(*workers))
    assert shown("model_prediction_latency_seconds_sum", **VERSION, stage="total") == 2.0**64 / 1e9
    assert shown("penstock_shadow_score_distance_sum", **VERSION) == 2e20
    assert shown("penstock_shadow_comparisons_total", **VERSION, result="agree") == 2**62


def test_hits_of_the_response_cache_are_requests_but_no_batches(new_counters: NewCounters) -> None:
    counters = new_counters()
    batch(counters, requests=2, rows=5)
    without = scrape(version_of(counters))
    assert without.labels("penstock_response_cache_hits_total") == []
    recorder = Recorder(counters)
    recorder.missed(0.001)
    recorder.hit(arrived_s=2.0, rows=3, started_s=2.0, ended_s=2.25)
    recorder.cached(700)
    recorder.cached(-200)
    recorder.evicted()
    found = scrape(version_of(counters))
    for name, value in (("hits_total", 1), ("misses_total", 1), ("evictions_total", 1), ("bytes", 500)):
        assert found(f"penstock_response_cache_{name}", **VERSION) == value
    assert found("penstock_requests_total", **VERSION) == 3
    assert found("model_predictions_total", **VERSION, prediction_class="") == 8
    assert found("penstock_batch_rows_sum", **VERSION) == 5
    for stage, count in (("total", 3), ("queue", 3), ("infer", 1)):
        assert found("model_prediction_latency_seconds_count", **VERSION, stage=stage) == count
    assert found("model_prediction_latency_seconds_sum", **VERSION, stage="total") == 1.25
