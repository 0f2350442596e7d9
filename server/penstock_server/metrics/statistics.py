"""Triton's statistics extension: what was counted of each version, as a `ModelStatisticsResponse`.

The supervisor answers with it, since a worker knows only what it counted itself.

Source: Triton Inference Server, "Statistics Extension".
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from penstock import inference_pb2 as pb
from penstock_server.metrics.counters import CACHE_CELLS, ROWS_EDGES, SharedCounters
from penstock_server.metrics.prometheus import VersionSnapshot
from penstock_server.metrics.selection import not_loaded, selected

_BATCH_SIZES: Final = (*ROWS_EDGES, 2 * ROWS_EDGES[-1])
"""What the cells of batches are called: the last one has all that are larger."""
_NS_PER_MS: Final = 1_000_000


def answer(body: bytes, versions: Callable[[], Sequence[VersionSnapshot]], since_1970_ns: Callable[[], int]) -> bytes:
    """The `ModelStatisticsResponse` to a `ModelStatisticsRequest`, both encoded.

    Args:
        body: the request.
        versions: all that are loaded now.
        since_1970_ns: what the monotonic clock is behind the wall clock.

    Raises:
        NotFoundError: no version that the request selects is loaded.
    """
    request = pb.ModelStatisticsRequest.FromString(body)
    found = selected(versions(), request.name, request.version)
    if not found and (request.name or request.version):
        raise not_loaded(request.name, request.version)
    behind_ns = since_1970_ns()
    encoded: bytes = pb.ModelStatisticsResponse(
        model_stats=[statistics(version, behind_ns) for version in found]
    ).SerializeToString()
    return encoded


def statistics(version: VersionSnapshot, since_1970_ns: int) -> pb.ModelStatistics:
    """What was counted of a version over all workers; `since_1970_ns` is what the monotonic clock is behind."""
    counters = [one.at_rest() for one in version.counters]
    answered_ns = max((int(one.answered_ns[0]) for one in counters), default=0)
    batches = np.sum([one.batch_rows for one in counters], axis=0)
    return pb.ModelStatistics(
        name=version.model,
        version=version.version,
        last_inference=(answered_ns + since_1970_ns) // _NS_PER_MS if answered_ns else 0,
        inference_count=sum(int(one.rows[0]) for one in counters) - _cached(counters)["hit_rows"],
        execution_count=int(batches.sum()),
        inference_stats=_by_request(counters),
        batch_stats=_by_batch(batches.tolist(), *np.sum([one.batch_ns for one in counters], axis=0).tolist()),
    )


def _by_request(counters: Sequence[SharedCounters]) -> pb.InferStatistics:
    requests, cached = sum(int(one.requests[0]) for one in counters), _cached(counters)
    hit_ns, miss_ns = np.sum([one.cache_ns for one in counters], axis=0).tolist()
    ran = requests - cached["hits"]
    total_ns, queue_ns = np.sum([one.latency_ns for one in counters], axis=0).tolist()
    features_ns, infer_ns = np.sum([one.compute_ns for one in counters], axis=0).tolist()
    # What is left; counters may be read while a batch is being counted.
    output_ns = max(0.0, total_ns - queue_ns - features_ns - infer_ns - hit_ns)
    return pb.InferStatistics(
        success=_duration(requests, total_ns),
        fail=_duration(sum(int(one.refusals.sum()) for one in counters), 0.0),
        queue=_duration(requests, queue_ns),
        compute_input=_duration(ran, features_ns),
        compute_infer=_duration(ran, infer_ns),
        compute_output=_duration(ran, output_ns),
        cache_hit=_duration(cached["hits"], hit_ns),
        cache_miss=_duration(cached["misses"], miss_ns),
    )


def _cached(counters: Sequence[SharedCounters]) -> dict[str, int]:
    """The cells of the response cache over all workers, by name."""
    return dict(zip(CACHE_CELLS, np.sum([one.cache for one in counters], axis=0).tolist(), strict=True))


def _by_batch(
    batches: Sequence[int], features_ns: Sequence[float], infer_ns: Sequence[float]
) -> list[pb.InferBatchStatistics]:
    return [
        pb.InferBatchStatistics(
            batch_size=size, compute_input=_duration(count, features), compute_infer=_duration(count, infer)
        )
        for size, count, features, infer in zip(_BATCH_SIZES, batches, features_ns, infer_ns, strict=True)
        if count
    ]


def _duration(count: int, ns: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=int(ns))
