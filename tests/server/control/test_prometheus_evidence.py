"""What servers show to Prometheus is read back as they counted it, and nothing else is believed."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from penstock_server.control import prometheus_evidence
from penstock_server.control.evidence_gauges import EvidenceCollector
from penstock_server.control.own_evidence import OwnEvidence, label_counts
from penstock_server.control.prometheus_evidence import METRICS, PrometheusEvidence, query_of, snapshots
from penstock_server.control.view import VersionView
from penstock_server.errors import InvalidInputError
from penstock_server.labels.gauges import LabelCollector
from penstock_server.labels.report import Report
from penstock_server.labels.totals import LabelTotals, PairLabels, PairTotals, SubjectTotals, VersionLabels
from penstock_server.metrics.counters import REFUSALS, CountersShape
from penstock_server.metrics.prometheus import MetricsCollector, MetricsSnapshot, VersionSnapshot, registry_of
from penstock_server.metrics.store import CounterStore
from penstock_server.rollout.evidence import Snapshot

Weights = tuple[float, float] | None
LABELS = LabelTotals(
    1,
    (
        VersionLabels(
            "m", "2", "x", "canary", 0.0012345678, SubjectTotals(12, 10, 1, 0.0, 0.0, 9, 9.0, 9.0, 10, 1, 2, -3.5, 7.25)
        ),
        VersionLabels(
            "m",
            "1",
            "z",
            "champion",
            1 - 0.0012345678,
            SubjectTotals(30, 20, 5, 0.0, 0.0, 9, 9.0, 9.0, 20, 5, 1, 1.5, 2.25),
        ),
        VersionLabels("m", "2", "x", "named", None, SubjectTotals(99, 99, 9)),
    ),
    (
        PairLabels("m", "1", "2", PairTotals(80, 10, 20, 30, requests=(8, 1, 2, 3))),
        PairLabels("m", "0", "2", PairTotals(9, 9, 9, 9)),
    ),
)


@dataclass
class Server:
    """Counters of two versions in two workers, and what a scrape shows of them."""

    instance: str = "run"
    weights: list[Weights] = field(default_factory=lambda: [(0.05, 0.95)])
    labels: LabelTotals | None = None
    store: CounterStore = field(default_factory=CounterStore)

    def count(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for version in ("1", "2"):
            for slot in (0, 1):
                self.store.version(slot, ("m", version), CountersShape())
            for one in self.store.of_version(("m", version)):
                one.latency[0] += rng.integers(0, 10**6, one.latency[0].size)
                one.named_latency += rng.integers(0, 10, one.named_latency.size)
                one.routed += rng.integers(0, 10**9)
                one.refusals += rng.integers(0, 1000, len(REFUSALS))
                one.named_failed += rng.integers(0, 3)
                one.shadow += rng.integers(0, 10**7, one.shadow.size)
                one.differing += rng.integers(0, 10**7, one.differing.size)
                one.request_scores += rng.integers(0, 10**7, one.request_scores.size)
                one.key_failures += rng.integers(0, 10**7, one.key_failures.size)

    def told(self, *_: str) -> Weights:
        return self.weights.pop(0) if len(self.weights) > 1 else self.weights[0]

    @property
    def own(self) -> Snapshot:
        return OwnEvidence(
            instance=self.instance, since_s=0.0, weights=lambda *_: self.weights[-1], counters=self.store,
            labels=lambda *which: None if self.labels is None else label_counts(self.labels, *which),
        ).snapshot("m", "2", "1")  # fmt: skip

    def series(self, **target: str) -> list[dict[str, Any]]:
        """As Prometheus answers, among series that nobody asked for."""
        views = (
            VersionView("m", "1", "READY", ("champion",)),
            VersionView("m", "2", "READY", ("canary", "shadow"), weight=0.05),
            VersionView("m", "9", "LOADING"),
        )
        shown = [
            VersionSnapshot("m", view.version, view.roles, view.weight, self.store.of_version(view.key))
            for view in views[:2]
        ]
        collector = EvidenceCollector(
            MetricsCollector(lambda: MetricsSnapshot(shown, {})), instance=self.instance,
            versions=lambda: views, weights=self.told, generation=self.store.generation,
        )  # fmt: skip
        labels = LabelCollector(lambda: None if self.labels is None else Report(totals=self.labels))
        text = generate_latest(registry_of(collector, labels)).decode()
        return [
            {"metric": {"__name__": sample.name, **sample.labels, **target}, "value": [1.5, f"{sample.value:.17g}"]}
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with server.store:
        server.count(1)
        yield server


def answer(*series: Mapping[str, Any]) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": series}}).encode()


def read(*series: Mapping[str, Any]) -> tuple[dict[str, Snapshot], dict[str, str]]:
    return snapshots(answer(*series), "m", "2", "1")


def without_run(snapshot: Snapshot) -> tuple[Any, ...]:
    return snapshot.weight, snapshot.version, snapshot.champion, snapshot.shadow, snapshot.labels


@pytest.mark.parametrize("seed", range(5))
def test_what_was_counted_is_read_back_as_a_replica_would_tell_it(server: Server, seed: int) -> None:
    server.count(seed)
    server.labels = LABELS if seed % 2 else None
    found, problems = read(*server.series(instance="a:8002", job="penstock"))
    assert (list(found), problems) == (["instance=a:8002, job=penstock"], {})
    (snapshot,) = found.values()
    mine, own = without_run(snapshot), without_run(server.own)
    assert mine[:4] == own[:4]
    if server.labels is None:
        assert mine[4] is None
    else:
        assert own[4].wrong == mine[4].wrong == {"0.1234568": (10, 1, 20, 5)}
        assert (mine[4].pairs, mine[4].values) == (own[4].pairs, own[4].values)


def test_buckets_are_known_however_prometheus_writes_their_edges(server: Server) -> None:
    series = server.series(instance="a")
    for one in series:
        if one["metric"].get("le", "+Inf") != "+Inf":
            one["metric"]["le"] = repr(float(one["metric"]["le"]))
    (snapshot,) = read(*series)[0].values()
    assert snapshot.champion == server.own.champion


def test_each_server_counts_once_however_often_it_is_scraped(server: Server) -> None:
    with Server("another").store as store:
        other = Server("another", store=store)
        other.count(2)
        once = [*server.series(instance="a", job="x"), *other.series(instance="b", job="x")]
        found, _ = read(*once, *server.series(instance="a", job="y"))
    assert list(found) == ["instance=a, job=x", "instance=b, job=x"]
    assert len({snapshot.instance for snapshot in found.values()}) == 2


def test_counters_that_begin_anew_and_servers_that_start_again_are_another_run(server: Server) -> None:
    runs = {read(*server.series())[0][""].instance}
    server.instance = "later"
    runs.add(read(*server.series())[0][""].instance)
    server.store.forget(1, ("m", "1"))
    server.count(3)
    runs.add(read(*server.series())[0][""].instance)
    server.count(4)
    runs.add(read(*server.series())[0][""].instance)
    assert len(runs) == 3


@pytest.mark.parametrize(
    ("weights", "weight"),
    [
        ([(0.05, 0.95)], "5"),
        ([(0.2, 0.6)], "20:25"),
        ([(0.05, 0.95), (0.25, 0.75)], ""),  # it moves while counters are read
        ([None, (0.25, 0.75)], ""),
        ([(0.25, 0.75), None], ""),
        ([(1.0, 0.0)], ""),
    ],
)
def test_the_weight_is_the_one_that_was_in_force_from_the_first_counter_to_the_last(
    server: Server, weights: list[Weights], weight: str
) -> None:
    server.weights = weights
    (snapshot,) = read(*server.series(instance="a"))[0].values()
    assert snapshot.weight == weight


def test_a_server_without_one_of_the_versions_says_nothing(server: Server) -> None:
    lacking = [one for one in server.series(instance="a") if one["metric"].get("model_version") != "1"]
    assert read(*lacking) == ({}, {})
    assert read() == ({}, {})


def edit(name: str, value: str | None = None, **labels: str) -> Callable[[list[dict[str, Any]]], None]:
    """Changes the version's first series of this name."""

    def change(series: list[dict[str, Any]]) -> None:
        of = {"__name__": name, "model_version": "2"}
        one = next(one for one in series if of.items() <= one["metric"].items())
        one["metric"] |= labels
        if value is not None:
            one["value"][1] = value

    return change


def twice(series: list[dict[str, Any]]) -> None:
    info = next(one for one in series if one["metric"]["__name__"] == prometheus_evidence.RUN)
    series.append({**info, "metric": {**info["metric"], "run": "other"}})


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit(prometheus_evidence.REQUESTS, "NaN"), "nan"),
        (edit(prometheus_evidence.REQUESTS, "+Inf"), "inf"),
        (edit(prometheus_evidence.REQUESTS, "-1"), "whole number"),
        (edit(prometheus_evidence.REQUESTS, "1.5"), "whole number"),
        (edit(prometheus_evidence.REQUESTS, "1e300"), "whole number"),
        (edit(prometheus_evidence.FAILURES, "many"), "many"),
        (edit(prometheus_evidence.LATENCY, "1e12"), "falls from a bucket"),
        (edit(prometheus_evidence.LATENCY, le="0.5"), "other buckets"),
        (edit(prometheus_evidence.LATENCY, le="NaN"), "other buckets"),
        (edit(prometheus_evidence.DISTANCE, le="wide"), "wide"),
        (edit(prometheus_evidence.SHARE, "7"), "expected 0 to 1"),
        (edit(prometheus_evidence.SHARE, "NaN"), "nan"),
        (edit(prometheus_evidence.LABELLED, weight="much"), "much"),
        (edit(prometheus_evidence.VALUE_SUM, "NaN"), "nan"),
        (twice, "2 runs of counters"),
    ],
)
def test_a_target_that_says_what_no_server_says_is_left_out_and_the_others_count(
    server: Server, change: Callable[[list[dict[str, Any]]], None], problem: str
) -> None:
    server.labels = LABELS
    bad = server.series(instance="bad")
    change(bad)
    server.instance = "good"
    found, problems = read(*bad, *server.series(instance="good"))
    assert list(found) == ["instance=good"]
    assert list(problems) == ["instance=bad"]
    assert problem in problems["instance=bad"]


HOSTILE = [
    b"",
    b"<html>",
    b"[" * 100_000,
    b"\xff\xfe",
    b"null",
    b'{"status": "error", "errorType": "bad_data", "error": "no"}',
    b'{"status": "success"}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": []}}',
    b'{"status": "success", "data": {"resultType": "vector", "result": {}}}',
    answer({"metric": {}, "value": [1, 2]}),
    answer({"metric": {}, "value": [1]}),
    answer({"metric": {"a": 1}, "value": [1, "2"]}),
    answer({"metric": {}, "histogram": [1, {}]}),
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError, match="none of Prometheus"):
        snapshots(body, "m", "2", "1")


def test_names_are_quoted_in_the_query() -> None:
    query = query_of('a"b\\c', "1.0", "v|2")
    assert query.startswith('{__name__=~"' + "|".join(METRICS) + '",')
    assert 'model_name="a\\"b\\\\c",model_version=~"1\\\\.0|v\\\\|2"}' in query


@dataclass
class Fake:
    """A Prometheus that answers what it is told."""

    address: str = ""
    status: int = 200
    body: bytes = b""
    parts: int = 1
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def fake() -> Iterator[Fake]:
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.asked.append((self.path, self.headers["authorization"]))
            self.send_response(fake.status)
            self.end_headers()
            for _ in range(fake.parts):
                self.wfile.write(fake.body)
                if fake.parts > 1 and fake.is_over.wait(0.02):
                    break

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fake.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield fake
    fake.is_over.set()
    server.shutdown()
    server.server_close()
    thread.join()


async def test_prometheus_is_asked_once_a_look_with_its_token(fake: Fake, server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    fake.body = answer(*server.series(instance="a"))
    found = await PrometheusEvidence(f"{fake.address}/prefix/", token).look("m", "2", "1")
    assert without_run(found["instance=a"]) == without_run(server.own)
    ((path, sent),) = fake.asked
    assert (urlsplit(path).path, sent) == ("/prefix/api/v1/query", "Bearer secret")
    assert parse_qs(urlsplit(path).query) == {"query": [query_of("m", "2", "1")], "timeout": ["3000ms"]}


async def test_a_prometheus_that_fails_tells_of_nothing_and_is_told_of_once(
    fake: Fake, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus_evidence, "MAX_REPLY_BYTES", 200_000)
    evidence = PrometheusEvidence(fake.address)
    for status, body, problem in (
        (503, b"", "503"),
        (200, b"x" * 200_001, "more than 200,000 bytes"),
        (200, b"x", "none of Prometheus"),
    ):
        fake.status, fake.body = status, body
        with capture_logs() as logs:
            assert [await evidence.look("m", "2", "1") for _ in range(2)] == [{}, {}]
        (line,) = logs
        assert problem in line["reason"]
    fake.body = answer(*server.series(instance="a"))
    with capture_logs() as logs:
        assert len(await evidence.look("m", "2", "1")) == 1
    assert logs == []


async def test_a_reply_that_never_ends_is_given_up(fake: Fake) -> None:
    fake.body, fake.parts = b" ", 10**9
    with capture_logs() as logs:
        assert await PrometheusEvidence(fake.address, timeout_s=0.1).look("m", "2", "1") == {}
    assert "longer than 0.1 s" in logs[0]["reason"]
