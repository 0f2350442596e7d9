"""Adds what the executors report to a version's shared counters: the only writer on the request path.

An executor reports once per batch. Single cells are written through memoryviews, which cost half as much as numpy's scalars.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server import errors
from penstock_server.errors import PenstockError
from penstock_server.features import counting
from penstock_server.features.cells import AnswerCells, ClassCells
from penstock_server.metrics.counters import (
    CACHE_CELLS,
    FAILURES,
    KEY_FAILURES,
    LATENCY_EDGES_NS,
    LOG_DROPS,
    MAX_CLASSES,
    MAX_PAIRED,
    MOST_OF_A_KEY,
    NTH_FAILURE,
    REFUSALS,
    SCORE_EDGES,
    SHADOW_DROPS,
    SHADOW_RESULTS,
    STAGES,
    TIME_RATIO_EDGES,
    SharedCounters,
    latency_bucket,
    rows_bucket,
)
from penstock_server.metrics.failed_keys import FailedKeys
from penstock_server.metrics.prediction_counts import ClassCounts, NumberCounts
from penstock_server.rollout import shares

_REASONS: Final[dict[type[PenstockError], str]] = {
    errors.InvalidInputError: "invalid_input",
    errors.OverloadedError: "overloaded",
    errors.DeadlinePassedError: "deadline",
    errors.ModelFailedError: "model_failed",
    errors.RefusedByModelError: "invalid_input",
    errors.NotReadyError: "not_ready",
    errors.StandbyError: "not_ready",
    errors.UnavailableError: "not_ready",
    errors.NotFoundError: "not_found",
    errors.UnsupportedError: "unsupported",
    errors.UnauthenticatedError: "unauthenticated",
    errors.DeniedError: "denied",
    errors.LimitedError: "limited",
}
_REFUSAL_CELL: Final = {reason: cell for cell, reason in enumerate(REFUSALS)}
_DROP_CELL: Final = {reason: cell for cell, reason in enumerate(SHADOW_DROPS)}
_LOG_DROP_CELL: Final = {reason: cell for cell, reason in enumerate(LOG_DROPS)}
_HITS, _HIT_ROWS, _MISSES, _EVICTIONS, _BYTES = range(len(CACHE_CELLS))
_AGREE, _DISAGREE, _FAILED, _REFUSED = range(len(SHADOW_RESULTS))
_TOTAL, _QUEUE, _FEATURES, _INFER = range(len(STAGES))
_FIRST, _NTH, _COUNTED = range(len(KEY_FAILURES))
_FARTHEST: Final = 1e12
"""The most that one row adds to the sum of distances: an infinite one, of answers of other shapes, must not end the sum."""


def refusal_reason(error: PenstockError) -> str:
    """The reason of `REFUSALS` that counts this error."""
    return _REASONS.get(type(error), "internal")


class Recorder:
    """Records one version's batches, refusals and comparisons.

    Args:
        counters: the version's, in this worker.
        drift_window_rows: counted rows of the whole drift window, spread over its sub-windows.
        answers: what is counted of the answers, in the order of its rows after those of the features.

    Attributes:
        counters: the version's.
        sub_window_rows: rows of a sub-window.
        number_counts: counts numbers, each by its place among the answers.
        failed_keys: how often each routing key has failed; None while no canary shares the model's requests.
    """

    def __init__(
        self,
        counters: SharedCounters,
        drift_window_rows: int = 10_000,
        answers: Sequence[AnswerCells] = (),
    ) -> None:
        self.counters = counters
        self._latency = [row.data for row in counters.latency]
        self._latency_ns = counters.latency_ns.data
        self._batch_rows = counters.batch_rows.data
        self._features_ns, self._infer_ns = (row.data for row in counters.batch_ns)
        self._compute_ns = counters.compute_ns.data
        self._answered_ns = counters.answered_ns.data
        self._rows = counters.rows.data
        self._requests = counters.requests.data
        self._refusals = counters.refusals.data
        self._routed = counters.routed.data
        self._named_failed = counters.named_failed.data
        self._named_latency = counters.named_latency.data
        self._key_failures = counters.key_failures.data
        self.failed_keys: FailedKeys | None = None
        self._waiting = counters.waiting.data
        self._cache = counters.cache.data
        self._cache_ns = counters.cache_ns.data
        self._classes = counters.classes.data
        self._class_cells: dict[int, int] = {
            int(value): cell for cell, value in enumerate(counters.class_values[: int(counters.class_count[0])])
        }
        self._pair_cells: dict[int, int] = {
            int(value): cell for cell, value in enumerate(counters.pair_values[: int(counters.pair_count[0])])
        }
        self._sub_windows = counters.shape.sub_windows
        self._drift_at = counters.drift_at.data
        self._drift_rows = counters.drift_rows.data
        features = counters.shape.features
        self._drift_cells = [window[:features] for window in counters.drift] if features else []
        self.sub_window_rows = max(1, drift_window_rows // counters.shape.sub_windows)
        self._class_counts: ClassCounts | None = None
        self.number_counts: dict[int, NumberCounts] = {}
        for place, answer in enumerate(answers):
            rows = counters.drift[:, features + place]
            if isinstance(answer.cells, ClassCells):
                self._class_counts = ClassCounts(answer.cells, rows)
            else:
                self.number_counts[place] = NumberCounts(answer.cells, rows)

    def batch(
        self,
        *,
        arrived_s: Sequence[float],
        rows: int,
        started_s: float,
        ended_s: float,
        features_s: float,
        infer_s: float,
        named_s: Sequence[float] = (),
    ) -> None:
        """Records an answered batch: when its requests arrived, its rows, and the durations of its stages.

        `named_s` says when those of them arrived that named the version.
        """
        total, queue = self._latency[_TOTAL], self._latency[_QUEUE]
        total_ns = queue_ns = 0
        for arrived in arrived_s:
            waited, took = int((started_s - arrived) * 1e9), int((ended_s - arrived) * 1e9)
            queue[latency_bucket(waited)] += 1
            total[latency_bucket(took)] += 1
            queue_ns += waited
            total_ns += took
        for arrived in named_s:
            self._named_latency[latency_bucket(int((ended_s - arrived) * 1e9))] += 1
        self._latency_ns[_TOTAL] += total_ns
        self._latency_ns[_QUEUE] += queue_ns
        self.stages(requests=len(arrived_s), rows=rows, ended_s=ended_s, features_s=features_s, infer_s=infer_s)

    def stages(self, *, requests: int, rows: int, ended_s: float, features_s: float, infer_s: float) -> None:
        """Records an answered batch whose requests were counted in `latency_cells` by others."""
        features_ns, infer_ns = int(features_s * 1e9), int(infer_s * 1e9)
        self._latency[_FEATURES][latency_bucket(features_ns)] += 1
        self._latency[_INFER][latency_bucket(infer_ns)] += 1
        cell = rows_bucket(rows)
        self._batch_rows[cell] += 1
        self._features_ns[cell] += features_ns
        self._infer_ns[cell] += infer_ns
        self._compute_ns[0] += requests * features_ns
        self._compute_ns[1] += requests * infer_ns
        self._answered_ns[0] = int(ended_s * 1e9)
        self._rows[0] += rows
        self._requests[0] += requests

    def routed(self) -> None:
        """Records a request that named no version and came to this one."""
        self._routed[0] += 1

    def hit(self, *, arrived_s: float, rows: int, started_s: float, ended_s: float, is_named: bool = False) -> None:
        """Records a request that was answered from the response cache: no batch ran for it."""
        waited, took = int((started_s - arrived_s) * 1e9), int((ended_s - arrived_s) * 1e9)
        self._latency[_QUEUE][latency_bucket(waited)] += 1
        self._latency[_TOTAL][latency_bucket(took)] += 1
        if is_named:
            self._named_latency[latency_bucket(took)] += 1
        self._latency_ns[_QUEUE] += waited
        self._latency_ns[_TOTAL] += took
        self.hits(requests=1, rows=rows, started_s=started_s, ended_s=ended_s)

    def hits(self, *, requests: int, rows: int, started_s: float, ended_s: float) -> None:
        """The same of several at once, which were counted in `latency_cells` by others."""
        self._answered_ns[0] = int(ended_s * 1e9)
        self._rows[0] += rows
        self._requests[0] += requests
        self._cache[_HITS] += requests
        self._cache[_HIT_ROWS] += rows
        self._cache_ns[0] += int((ended_s - started_s) * 1e9)

    def missed(self, took_s: float, requests: int = 1) -> None:
        """Records requests that were not in the response cache, and how long it took to find out."""
        self._cache[_MISSES] += requests
        self._cache_ns[1] += int(took_s * 1e9)

    def cached(self, size_bytes: int) -> None:
        """Records that so many bytes of answers are kept in addition, or fewer."""
        self._cache[_BYTES] += size_bytes

    def evicted(self) -> None:
        """Records an answer that made room for others."""
        self._cache[_EVICTIONS] += 1

    def latency_cells(self) -> tuple[NDArray[Any], ...]:
        """Where kernels count a request.

        First the bounds of the cells in nanoseconds, int64; then the cells of what it took in all and of what it waited,
        int64; then both sums, float64 [1]; then the traced requests that cells show, int64; last the cells of what those took
        that named the version, int64.
        """
        cells, sums = self.counters.latency, self.counters.latency_ns
        edges = np.array(LATENCY_EDGES_NS, np.int64)
        exemplars, named = self.counters.exemplars, self.counters.named_latency
        total_sum, queue_sum = sums[_TOTAL : _TOTAL + 1], sums[_QUEUE : _QUEUE + 1]
        return edges, cells[_TOTAL], cells[_QUEUE], total_sum, queue_sum, exemplars, named

    def exemplify(
        self,
        trace_id: int,
        *,
        arrived_s: float,
        started_s: float,
        ended_s: float,
        features_s: float,
        infer_s: float,
    ) -> None:
        """Has the cells in which a traced request was counted show its trace."""
        halves = [half - ((half >> 63) << 64) for half in (trace_id >> 64, trace_id & (1 << 64) - 1)]
        took = (ended_s - arrived_s, started_s - arrived_s, features_s, infer_s)
        for stage, took_s in zip(self.counters.exemplars, took, strict=True):
            took_ns = int(took_s * 1e9)
            cell = stage[latency_bucket(took_ns)]
            cell[-1] = 0
            cell[:-1] = *halves, took_ns
            cell[-1] = int(ended_s * 1e9)

    def classes(self, labels: NDArray[np.int64], *, is_drift: bool = True) -> None:
        """Records the predicted class of each row, int64 [N]; `is_drift` for drift too."""
        if len(labels) > MAX_CLASSES:
            found, times = np.unique(labels, return_counts=True)
            values, counts = found.tolist(), times.tolist()
            for value, count in zip(values, counts, strict=True):
                self._classes[self._class_cell(value)] += count
        else:
            values, counts = labels.tolist(), None
            for value in values:
                self._classes[self._class_cell(value)] += 1
        if self._class_counts is not None and is_drift:
            self._class_counts.add(self._drift_place(), values, counts)

    def known_classes(self) -> list[tuple[int, int, int]]:
        """For each class that has a cell: its label, the cell, and where a row of drift counts has its predictions."""
        counts = self._class_counts
        return [
            (label, cell, 0 if counts is None else counts.place_of(label)) for label, cell in self._class_cells.items()
        ]

    @property
    def has_class_counts(self) -> bool:
        """Whether predicted classes are counted for drift."""
        return self._class_counts is not None

    def numbers(self, place: int, values: NDArray[Any]) -> None:
        """Records a number of each row's answer, floats [N], which `answers` has at this place."""
        self.number_counts[place].add(self._drift_place(), values)

    def _class_cell(self, value: int) -> int:
        cell = self._class_cells.get(value)
        if cell is None:
            cell = len(self._class_cells)
            if cell >= MAX_CLASSES:
                return MAX_CLASSES
            self._class_cells[value] = cell
            self.counters.class_values[cell] = value
            self.counters.class_count[0] = cell + 1
        return cell

    def refused(self, reason: str, *, is_named: bool = False, key: str = "") -> None:
        """Records a request without an answer, by a reason of `REFUSALS`.

        Args:
            reason: why.
            is_named: it named the version.
            key: by which it came to the version if it named none; "" if by chance.
        """
        self._refusals[_REFUSAL_CELL[reason]] += 1
        if reason not in FAILURES:
            return
        if is_named:
            self._named_failed[0] += 1
        elif self.failed_keys is not None:
            count = self.failed_keys.count(key) if key else 1
            self._key_failures[_FIRST] += count == 1
            self._key_failures[_NTH] += not key or count == NTH_FAILURE
            self._key_failures[_COUNTED] += count <= MOST_OF_A_KEY

    def refusal_cells(self, reasons: Sequence[str]) -> list[NDArray[np.int64]]:
        """Where kernels count requests without an answer, int64 [1] for each reason."""
        return [self.counters.refusals[_REFUSAL_CELL[reason] :][:1] for reason in reasons]

    def waiting(self, rows: int, requests: int) -> None:
        """Records what is in the queue now."""
        self._waiting[0] = rows
        self._waiting[1] = requests

    def drift_cells(self) -> NDArray[np.int64] | None:
        """The [features, words] counts that a pipeline adds its rows to; None if the version has no drift baseline.

        It is the same array until the next sub-window: a pipeline keeps its address.
        """
        return self._drift_cells[self._drift_at[0] % self._sub_windows] if self._drift_cells else None

    def drift_counted(self, rows: int) -> None:
        """Records rows that were added to `drift_cells`; after a full sub-window the next one replaces the oldest."""
        counters = self.counters
        place = self._drift_place()
        self._drift_rows[place] += rows
        if self._drift_rows[place] >= self.sub_window_rows:
            # Zeroed before the number rises: a reader in between may miss old rows, but counts no old row as new.
            following = (place + 1) % self._sub_windows
            counters.drift[following] = 0
            self._drift_rows[following] = 0
            self._drift_at[0] += 1

    def drift_added(self, counts: NDArray[np.int64], rows: int) -> None:
        """Adds rows that were counted apart, in an array of the shape of `drift_cells` or of a whole sub-window."""
        if self._drift_cells:
            cells = self.counters.drift[self._drift_place(), : len(counts)]
            sums_at = counting.bins_of(counts.shape[1]) + counting.EXTRA_CELLS + counting.TALLIES
            cells[:, :sums_at] += counts[:, :sums_at]
            cells.view(np.float64)[:, sums_at:] += counts.view(np.float64)[:, sums_at:]
            self.drift_counted(rows)

    def _drift_place(self) -> int:
        """The current sub-window's position in the ring."""
        place: int = self._drift_at[0] % self._sub_windows
        return place

    def shadow_compared(
        self,
        *,
        agree: NDArray[np.bool_],
        distance: NDArray[np.float64],
        champion_s: float,
        shadow_s: float,
        classes: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> None:
        """Records a batch that a shadow ran after the champion.

        Args:
            agree: whether both gave a row the same class.
            distance: between their scores, by row.
            champion_s: what the champion took.
            shadow_s: what the shadow took.
            classes: of each row, the champion's and the shadow's; None where there are none.
        """
        counters = self.counters
        agreeing = int(np.count_nonzero(agree))
        counters.shadow[_AGREE] += agreeing
        counters.shadow[_DISAGREE] += len(agree) - agreeing
        counters.scores += _cells_of(distance, SCORE_EDGES, len(counters.scores))
        counters.score_sum[0] += np.minimum(np.nan_to_num(distance, nan=1.0, posinf=_FARTHEST), _FARTHEST).sum()
        counters.pair_ns[0] += champion_s * 1e9
        counters.pair_ns[1] += shadow_s * 1e9
        if champion_s > 0:
            counters.time_ratios[bisect_left(TIME_RATIO_EDGES, shadow_s / champion_s)] += 1
        if classes is not None:
            pairs = Counter(zip(*(labels.tolist() for labels in classes), strict=True))
            for (champion, shadow), rows in pairs.items():
                counters.pairs[self._pair_cell(champion), self._pair_cell(shadow)] += rows

    def shadow_requests(self, differing: NDArray[np.float64], distances: NDArray[np.float64]) -> None:
        """Records requests that a shadow ran after the champion.

        Args:
            differing: the share of each one's rows that do not agree, of those that the champion answered.
            distances: of each one of which both answered a row, the mean distance of its scores, none of which is above 1.
        """
        counters = self.counters
        counters.differing += _cells_of(differing, shares.EDGES, len(counters.differing))
        counters.request_scores += _cells_of(distances, SCORE_EDGES, len(counters.request_scores))

    def _pair_cell(self, value: int) -> int:
        cell = self._pair_cells.get(value)
        if cell is None:
            cell = len(self._pair_cells)
            if cell >= MAX_PAIRED:
                return MAX_PAIRED
            self._pair_cells[value] = cell
            self.counters.pair_values[cell] = value
            self.counters.pair_count[0] = cell + 1
        return cell

    def shadow_refused(self, rows: int) -> None:
        """Records rows that the champion answered and the shadow refuses."""
        self.counters.shadow[_REFUSED] += rows

    def shadow_failed(self, rows: int) -> None:
        """Records rows on which the shadow failed."""
        self.counters.shadow[_FAILED] += rows

    def shadow_dropped(self, reason: str, rows: int) -> None:
        """Records rows that were not copied to the shadow, by a reason of `SHADOW_DROPS`."""
        self.counters.shadow_drops[_DROP_CELL[reason]] += rows

    def request_logged(self, rows: int) -> None:
        """Records rows written to the request log; only the log's thread calls it."""
        self.counters.log_rows[0] += rows

    def request_log_dropped(self, reason: str, rows: int) -> None:
        """Records sampled rows that were not written, by a reason of `LOG_DROPS`."""
        self.counters.log_drops[_LOG_DROP_CELL[reason]] += rows


def _cells_of(values: NDArray[np.float64], edges: Sequence[float], cells: int) -> NDArray[np.int64]:
    """How many values are in each of so many cells, whose upper ends these are."""
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=cells)
