"""What all servers have counted, asked from a Prometheus that scrapes them.

One instant query asks for all series of a model, so that all are of one moment: Prometheus shows a scrape as a whole or not
at all. Series of a server that ended are stale by then and absent. What is scraped twice, such as by two jobs, is told apart by
the run of its counters, and counts once. A server is first seen at some scrape: what it had counted before is left out, since
nobody knows under which weight.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlencode

import msgspec
import structlog

from penstock_server.control.own_evidence import label_counts
from penstock_server.control.replicas import TIMEOUT_S, get
from penstock_server.errors import InvalidInputError
from penstock_server.labels.totals import LabelTotals, PairLabels, PairTotals, SubjectTotals, VersionLabels
from penstock_server.metrics.counters import KEY_FAILURES, LATENCY_EDGES_S, SCORE_EDGES, SHADOW_RESULTS
from penstock_server.rollout import shares
from penstock_server.rollout.evidence import LabelCounts, ShadowTotals, Snapshot, VersionTotals, weight_key

log = structlog.get_logger(__name__)

MAX_REPLY_BYTES: Final = 16 * 2**20
"""What some 500 servers say of two versions."""

RUN: Final = "penstock_counters_info"
SHARE: Final = "penstock_routed_share_ratio"
REQUESTS: Final = "penstock_routed_requests_total"
FAILURES: Final = "penstock_routed_failures_total"
BY_KEY: Final = "penstock_routed_key_failures_total"
LATENCY: Final = "penstock_routed_latency_seconds_bucket"
SHADOW: Final = "penstock_shadow_comparisons_total"
DISTANCE: Final = "penstock_shadow_request_score_distance_bucket"
DIFFERING: Final = "penstock_shadow_request_differing_ratio_bucket"
LABELLED: Final = "penstock_labelled_requests_total"
VALUES: Final = "penstock_request_values_total"
VALUE_SUM: Final = "penstock_request_value_summed"
VALUE_SQUARES: Final = "penstock_request_value_squares"
PAIRS: Final = "penstock_labelled_request_pairs_total"
METRICS: Final = (
    RUN, SHARE, REQUESTS, FAILURES, BY_KEY, LATENCY, SHADOW, DISTANCE, DIFFERING, LABELLED,
    VALUES, VALUE_SUM, VALUE_SQUARES, PAIRS,
)  # fmt: skip
_OF_METRICS: Final = {
    "__name__", "model_name", "model_version", "champion_version", "run", "le", "result", "role", "weight", "which",
}  # fmt: skip
"""Labels of the metrics; all others say which target was scraped."""
_MOST: Final = 2.0**53
"""Prometheus' numbers are exact up to here."""


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    value: tuple[float, str]


class _Vector(msgspec.Struct, frozen=True, rename="camel"):
    result_type: Literal["vector"]
    result: list[_Series]


class _Answer(msgspec.Struct, frozen=True):
    status: Literal["success"]
    data: _Vector


_answers: Final = msgspec.json.Decoder(_Answer)


class PrometheusEvidence:
    """Asks a Prometheus what servers counted. One that does not answer tells of nothing at this look; it is told of once.

    Args:
        address: of its HTTP API, such as `http://prometheus:9090`.
        token_file: what it is shown as a bearer token, read at each look; None for nothing.
        timeout_s: how long a look waits for it.
    """

    def __init__(self, address: str, token_file: Path | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._address = address.rstrip("/")
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._problems: dict[str, str] = {}

    async def look(self, model: str, version: str, champion: str) -> Mapping[str, Snapshot]:
        """What each server has counted of a version and its champion, by the labels of its target."""
        query = urlencode({"query": query_of(model, version, champion), "timeout": f"{1000 * self._timeout_s:.0f}ms"})
        place = f"{self._address}/api/v1/query?{query}"
        try:
            body = await asyncio.to_thread(get, place, self._token_file, self._timeout_s, MAX_REPLY_BYTES)
            found, problems = snapshots(body, model, version, champion)
        except (OSError, HTTPException, ValueError, InvalidInputError) as error:
            found, problems = {}, {self._address: str(error)[:200]}
        for target, problem in problems.items():
            if self._problems.get(target) != problem:
                log.warning("Prometheus does not say what was counted", of=target, reason=problem)
        self._problems = problems
        return found


def query_of(model: str, version: str, champion: str) -> str:
    """The query for all series that tell of a version and its champion."""
    versions = "|".join(re.escape(each) for each in (version, champion))
    return f"{{__name__=~{_quoted('|'.join(METRICS))},model_name={_quoted(model)},model_version=~{_quoted(versions)}}}"


def _quoted(text: str) -> str:
    """A string of PromQL, which escapes as JSON does."""
    return msgspec.json.encode(text).decode()


def snapshots(body: bytes, model: str, version: str, champion: str) -> tuple[dict[str, Snapshot], dict[str, str]]:
    """What Prometheus' answer says, by the labels of each target; and what is wrong with those that say nothing usable.

    Servers that do not have both versions are in neither.

    Raises:
        InvalidInputError: it is no answer to `query_of`.
    """
    try:
        answer = _answers.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInputError(f"the answer is none of Prometheus to an instant query: {error}") from error
    targets: dict[str, list[_Series]] = defaultdict(list)
    for series in answer.data.result:
        labels = (f"{name}={value}" for name, value in series.metric.items() if name not in _OF_METRICS)
        targets[", ".join(sorted(labels))].append(series)
    found: dict[str, Snapshot] = {}
    problems: dict[str, str] = {}
    counted = set[str]()
    for target, held in sorted(targets.items()):
        try:
            snapshot = _Target(held).snapshot(model, version, champion)
        except (ValueError, InvalidInputError) as error:
            problems[target] = str(error)[:200]
            continue
        if snapshot is not None and snapshot.instance not in counted:
            counted.add(snapshot.instance)
            found[target] = snapshot
    return found, problems


class _Target:
    """The series of one target."""

    def __init__(self, held: Sequence[_Series]) -> None:
        self._held: dict[str, list[_Series]] = defaultdict(list)
        for series in held:
            self._held[series.metric.get("__name__", "")].append(series)

    def snapshot(self, model: str, version: str, champion: str) -> Snapshot | None:
        """What it counted; None if it has not both versions.

        Raises:
            InvalidInputError, ValueError: it says what no server says.
        """
        runs = [self._run(each) for each in (version, champion)]
        if not all(runs):
            return None
        return Snapshot(
            "/".join(runs),
            self._weight(version, champion),
            version=self._routed(version),
            champion=self._routed(champion),
            shadow=self._shadow(version),
            labels=self._labels(model, version, champion),
        )

    def _run(self, version: str) -> str:
        runs = [series.metric.get("run", "") for series in self._of(RUN, version)]
        if len(runs) > 1:
            raise InvalidInputError(f"version {version} has {len(runs)} runs of counters, expected one")
        return runs[0] if runs else ""

    def _weight(self, version: str, champion: str) -> str:
        shares = [self._sum(SHARE, each) for each in (version, champion)]
        if not all(0 <= share <= 1 for share in shares):
            raise InvalidInputError(f"{SHARE} is {shares}, expected 0 to 1")
        return weight_key(*shares) if min(shares) > 0 else ""

    def _routed(self, version: str) -> VersionTotals:
        return VersionTotals(
            _count(self._sum(REQUESTS, version)),
            _count(self._sum(FAILURES, version)),
            self._cells(LATENCY, version, LATENCY_EDGES_S),
            self._by_key(version),
        )

    def _by_key(self, version: str) -> tuple[int, int, int] | None:
        """Failures by key; None where the server is older and does not tell."""
        if not self._of(BY_KEY, version):
            return None
        first, fourth, counted = (_count(self._sum(BY_KEY, version, which=which)) for which in KEY_FAILURES)
        return first, fourth, counted

    def _shadow(self, version: str) -> ShadowTotals:
        agree, disagree, failed, refused = (
            _count(self._sum(SHADOW, version, result=result)) for result in SHADOW_RESULTS
        )
        distances = self._cells(DISTANCE, version, SCORE_EDGES)
        differing = self._cells(DIFFERING, version, shares.EDGES)[:-1]
        return ShadowTotals(agree, disagree, failed + refused, distances, differing)

    def _labels(self, model: str, version: str, champion: str) -> LabelCounts | None:
        if not self._held[LABELLED] and not self._held[PAIRS]:
            return None
        shares = {
            (each.metric.get("model_version", ""), each.metric.get("role", ""), each.metric.get("weight", ""))
            for each in (*self._held[LABELLED], *self._held[VALUES])
        }
        versions = tuple(
            VersionLabels(model, of, "", role, float(weight) if weight else None, self._labelled(of, role, weight))
            for of, role, weight in sorted(shares)
        )
        both, only_champion, only_shadow, neither = (
            _count(self._sum(PAIRS, version, champion_version=champion, result=result))
            for result in ("both", "only_champion", "only_shadow", "neither")
        )
        pairs = PairTotals(requests=(both, only_champion, only_shadow, neither))
        totals = LabelTotals(versions=versions, pairs=(PairLabels(model, champion, version, pairs),))
        return label_counts(totals, model, version, champion)

    def _labelled(self, version: str, role: str, weight: str) -> SubjectTotals:
        of = {"role": role, "weight": weight}
        right, wrong = (_count(self._sum(LABELLED, version, **of, result=result)) for result in ("right", "wrong"))
        return SubjectTotals(
            labelled_requests=right + wrong,
            wrong_requests=wrong,
            request_values=_count(self._sum(VALUES, version, **of)),
            request_value_sum=self._sum(VALUE_SUM, version, **of),
            request_value_squares=self._sum(VALUE_SQUARES, version, **of),
        )

    def _cells(self, name: str, version: str, edges: Sequence[float]) -> tuple[int, ...]:
        """How many each cell of a histogram has, from the cumulative numbers that Prometheus keeps; () for no histogram."""
        told = {f"{float(each.metric.get('le', '')):.6g}": _value(each) for each in self._of(name, version)}
        if not told:
            return ()
        names = [*(f"{edge:.6g}" for edge in edges), "inf"]
        if told.keys() != set(names):
            raise InvalidInputError(f"{name} has other buckets than this server's {len(names)}")
        totals = [0, *(_count(told[edge]) for edge in names)]
        cells = tuple(after - before for before, after in pairwise(totals))
        if min(cells) < 0:
            raise InvalidInputError(f"{name} falls from a bucket to the next")
        return cells

    def _sum(self, name: str, version: str, **labels: str) -> float:
        """The series with these labels, of which there is one at most: 0 where there is none."""
        found = [_value(each) for each in self._of(name, version) if labels.items() <= each.metric.items()]
        return sum(found, 0.0)

    def _of(self, name: str, version: str) -> list[_Series]:
        return [series for series in self._held[name] if series.metric.get("model_version") == version]


def _value(series: _Series) -> float:
    value = float(series.value[1])
    if not isfinite(value):
        raise InvalidInputError(f"{series.metric.get('__name__')} is {value}, expected a number")
    return value


def _count(value: float) -> int:
    if not (0 <= value <= _MOST and value.is_integer()):
        raise InvalidInputError(f"a count is {value}, expected a whole number from 0 to 2^53")
    return int(value)
