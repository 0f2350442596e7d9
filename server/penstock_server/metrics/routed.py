"""What became of the requests that named no version: what canaries are judged by.

A request that names its version, by number or by alias, was not drawn: whoever tries a canary by hand must not change what is
concluded of it. Workers count all requests of a version and apart those that named it; the difference is taken here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.metrics.counters import FAILURES, REFUSALS, STAGES, SharedCounters

_FAILED = [REFUSALS.index(reason) for reason in FAILURES]
_TOTAL = STAGES.index("total")


class RoutedTotals(NamedTuple):
    """Totals of one version since its counters began.

    Attributes:
        requests: those that came to the version by their key or by chance, whatever became of them; some may wait still.
        failed: those that it failed to answer, by its own fault.
        by_key: of these, while canaries share the model's requests, as `counters.KEY_FAILURES` tells them apart.
        latency: those that it answered, by the cells of `counters.LATENCY_EDGES_S` and one for all that took longer.
    """

    requests: int
    failed: int
    by_key: tuple[int, ...]
    latency: tuple[int, ...]

    @property
    def answered(self) -> int:
        """Those that it answered."""
        return sum(self.latency)


def totals(workers: Sequence[SharedCounters]) -> RoutedTotals:
    """The totals of a version over these workers, each of which has counters of its own.

    None falls while workers go on counting: what named the version is read first.
    """
    named_failed, named = _sum(workers, "named_failed"), _sum(workers, "named_latency")
    latency = np.maximum(0, _sum(workers, "latency")[_TOTAL] - named)
    failed = max(0, int(_sum(workers, "refusals")[_FAILED].sum() - named_failed[0]))
    by_key = tuple(_sum(workers, "key_failures").tolist())
    return RoutedTotals(int(_sum(workers, "routed")[0]), failed, by_key, tuple(latency.tolist()))


def _sum(workers: Sequence[SharedCounters], name: str) -> NDArray[Any]:
    total: NDArray[Any] = np.sum([getattr(counters, name) for counters in workers], axis=0)
    return total
