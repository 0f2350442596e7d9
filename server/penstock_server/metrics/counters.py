"""Counters in shared memory: one file per worker and version, written by the worker and read by the supervisor.

The file holds 64-bit words, and both processes map it. The worker adds with plain array arithmetic; the supervisor sums
over workers at a scrape. The supervisor creates the file and passes its path to the worker, so a worker that replaces a dead
one continues its counts.

Counts are integers: at a million rows per second they last 290,000 years. Sums of durations and distances are float64, as
Prometheus shows them: nanoseconds that 4,096 waiting requests add up overflow an integer within four weeks, and a year of
them is exact to 16 us.

A reader may see a histogram's sum before its count. Scrapes tolerate that, and a lock would slow down every request.
"""

import mmap
import os
from bisect import bisect_left
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.rollout import shares
from penstock_server.tracing.layout import EXEMPLAR_WORDS

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

WORD_BYTES: Final = 8
MAX_CLASSES: Final = 64
"""The most classes with a cell each; rows of all further classes share the cell after the last."""

LATENCY_EDGES_S: Final[tuple[float, ...]] = (*(50e-6 * 2 ** (i / 2) for i in range(36)), 10.0)
"""Upper bounds of the latency buckets: 50 us to 10 s by factors of the square root of two."""

ROWS_EDGES: Final[tuple[int, ...]] = tuple(2**i for i in range(13))
SCORE_EDGES: Final[tuple[float, ...]] = (0.0, 1e-6, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

STAGES: Final = ("total", "queue", "features", "infer")
REFUSALS: Final = (
    "invalid_input",
    "overloaded",
    "deadline",
    "cancelled",
    "model_failed",
    "not_ready",
    "not_found",
    "unsupported",
    "unauthenticated",
    "denied",
    "limited",
    "internal",
)
FAILURES: Final = ("model_failed", "internal", "invalid_input")
"""The reasons of `REFUSALS` for which a version may be to blame: one that takes other columns refuses what others take."""
KEY_FAILURES: Final = ("first", "fourth", "counted")
"""Of the failures of requests that named no version, those that are the first of their routing key, those that are its fourth,
and all but what a key has had beyond `MOST_OF_A_KEY`. Those without a key are in each. See `metrics.failed_keys`."""
NTH_FAILURE: Final = 4
MOST_OF_A_KEY: Final = 32
SHADOW_RESULTS: Final = ("agree", "disagree", "failed", "refused")
"""What became of rows that the champion answered, and the shadow got."""
SHADOW_DROPS: Final = ("busy", "incompatible", "sampled_out")
MAX_PAIRED: Final = 16
"""The most classes of which a champion's and a shadow's are counted in pairs; further ones share a cell after the last."""
TIME_RATIO_EDGES: Final[tuple[float, ...]] = (0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Upper bounds of how many times the champion's time a shadow took for the same batch."""
STEP_CELLS: Final = ("runs", "rows", "took_ns")
CACHE_CELLS: Final = ("hits", "hit_rows", "misses", "evictions", "bytes")
"""Of the response cache: requests, the rows of those that were answered from it, and what is kept now."""
LOG_DROPS: Final = ("busy", "disk")
"""The executor drops rows while the log is "busy"; the log's own thread drops them when the "disk" fails or is full."""

RUN_CELLS: Final = 4
"""The threads that may run one version at once: the reactor's, the version's own, the shadow's, and that of large requests."""

_TRIES: Final = 100
"""A copy takes a microsecond, and a batch is counted in less."""
LATENCY_EDGES_NS: Final = [int(edge * 1e9) for edge in LATENCY_EDGES_S]
_LATENCY_CELLS: Final = len(LATENCY_EDGES_S) + 1
_ROWS_CELLS: Final = len(ROWS_EDGES) + 1
_SCORE_CELLS: Final = len(SCORE_EDGES) + 1
_RATIO_CELLS: Final = len(TIME_RATIO_EDGES) + 1


@dataclass(frozen=True, slots=True)
class CountersShape:
    """The part of the layout that depends on a version.

    Attributes:
        features: its drift columns.
        cells: the words per row of counts.
        sub_windows: of the drift window.
        answers: what is counted of its answers.
        joint: the words of its tables of two columns.
        steps: those of an ensemble.
    """

    features: int = 0
    cells: int = 0
    sub_windows: int = 10
    answers: int = 1
    joint: int = 0
    steps: int = 0

    @property
    def drift(self) -> tuple[int, int, int]:
        """The shape of the ring; the rows after the features count answers."""
        return self.sub_windows, self.features + self.answers if self.features else 0, self.cells

    @property
    def words(self) -> int:
        """The size of the file in 64-bit words."""
        fixed = (
            len(STAGES) * _LATENCY_CELLS
            + 2
            + len(STAGES) * _LATENCY_CELLS * EXEMPLAR_WORDS
            + 3 * _ROWS_CELLS
            + 2
            + 1
            + 2
            + len(REFUSALS)
            + 2 * MAX_CLASSES
            + 2
            + len(SHADOW_RESULTS)
            + len(SHADOW_DROPS)
            + _SCORE_CELLS
            + 1
            + 2
            + 2
            + 1
            + 1
            + len(LOG_DROPS)
            + len(CACHE_CELLS)
            + 2
            + 1
            + RUN_CELLS
            + 1
            + 1
            + _LATENCY_CELLS
            + len(KEY_FAILURES)
            + len(shares.EDGES)
            + _SCORE_CELLS
            + MAX_PAIRED
            + 1
            + (MAX_PAIRED + 1) ** 2
            + _RATIO_CELLS
        )
        return fixed + self.joint + len(STEP_CELLS) * self.steps + self.sub_windows + prod(self.drift)


class SharedCounters:
    """A version's counters in one worker; its arrays are views of the shared file.

    Attributes:
        latency: [stages, buckets + 1] requests (for `features` and `infer`: batches), the last cell above 10 s.
        latency_ns: [total, queue] sums over requests, float64.
        exemplars: [stages, buckets + 1, `EXEMPLAR_WORDS`] a traced request of each cell, as `tracing.layout` has it.
        batch_rows: batches by their rows; `rows` and `requests` are [1], answered.
        batch_ns: [features and infer, batches by their rows] sums over batches, float64.
        compute_ns: [features, infer] sums over requests, each of which counts its whole batch's time, float64.
        answered_ns: [1] when a batch was last answered, by the monotonic clock; 0 before the first.
        refusals: by reason, in the order of `REFUSALS`.
        classes: rows by predicted class, [MAX_CLASSES + 1].
        class_values: the predicted labels that the cells stand for, `class_count` of them so far, in order of
            appearance (an index into the names when the labels are not numbers).
        shadow, shadow_drops: rows by result and by reason of the drop.
        scores, score_sum: rows by distance between the shadow's score and the champion's; their sum [1], float64.
        differing: requests by the share of their rows that do not agree, in the cells of `rollout.shares`.
        request_scores: requests by the mean distance of their rows' scores, each of which is at most 1.
        pairs: [champion's class, shadow's class] rows, [MAX_PAIRED + 1] each way.
        pair_values: [MAX_PAIRED] the labels that they stand for, `pair_count` of them so far, in order of appearance.
        time_ratios: batches by how many times the champion's time the shadow took.
        pair_ns: [champion, shadow] time for the batches that both ran, float64.
        routed: [1] requests that named no version and came here by their key or by chance, whatever became of them.
        named_failed: [1] of those that named the version, by its number or an alias, the refusals for a reason of `FAILURES`.
        named_latency: [buckets + 1] of the same, the answered ones by their total latency; `latency` has them too.
        key_failures: of those that named none, the failures by the order of `KEY_FAILURES`, while canaries share the requests.
        waiting: [rows, requests] now in the queue.
        cache: in the order of `CACHE_CELLS`; `rows` and `requests` have the hits too.
        cache_ns: [hits, misses] sums of what the response cache took of the reactor's time, float64.
        log_rows, log_drops: [1] rows written to the request log, and sampled rows that were not, by reason.
        drift_at: [1] the number of the current sub-window, counted from 0; modulo the number of sub-windows it is the
            position in the ring.
        drift_rows: [sub_windows] rows counted in each.
        beat_ns: [1] when the worker's loop last came round, in a worker's own counters; 0 before the first time.
        running_since_ns: [RUN_CELLS] when the version's run on each thread began, by the monotonic clock; 0 while none runs.
        joint: [words] rows sampled so far, and the tables of two columns that they are counted in, as `features.joint` does.
        steps: [steps, STEP_CELLS] of an ensemble's steps, in their order.
        drift: [sub_windows, features + answers, words], as `features.counting` lays them out.
    """

    def __init__(self, memory: mmap.mmap | bytes, shape: CountersShape) -> None:
        self.shape = shape
        self._words: Integers = np.frombuffer(memory, np.int64, shape.words)
        self._at = 0
        self.latency = self._take(len(STAGES) * _LATENCY_CELLS).reshape(len(STAGES), _LATENCY_CELLS)
        self.latency_ns = self._take_reals(2)
        self.exemplars = self._take(len(STAGES) * _LATENCY_CELLS * EXEMPLAR_WORDS).reshape(
            len(STAGES), _LATENCY_CELLS, EXEMPLAR_WORDS
        )
        self.batch_rows = self._take(_ROWS_CELLS)
        self.batch_ns = self._take_reals(2 * _ROWS_CELLS).reshape(2, _ROWS_CELLS)
        self.compute_ns = self._take_reals(2)
        self.answered_ns = self._take(1)
        self.rows = self._take(1)
        self.requests = self._take(1)
        self.refusals = self._take(len(REFUSALS))
        self.classes = self._take(MAX_CLASSES + 1)
        self.class_values = self._take(MAX_CLASSES)
        self.class_count = self._take(1)
        self.shadow = self._take(len(SHADOW_RESULTS))
        self.shadow_drops = self._take(len(SHADOW_DROPS))
        self.scores = self._take(_SCORE_CELLS)
        self.score_sum = self._take_reals(1)
        self.pair_ns = self._take_reals(2)
        self.waiting = self._take(2)
        self.log_rows = self._take(1)
        self.log_drops = self._take(len(LOG_DROPS))
        self.cache = self._take(len(CACHE_CELLS))
        self.cache_ns = self._take_reals(2)
        self.beat_ns = self._take(1)
        self.running_since_ns = self._take(RUN_CELLS)
        self.routed = self._take(1)
        self.named_failed = self._take(1)
        self.named_latency = self._take(_LATENCY_CELLS)
        self.key_failures = self._take(len(KEY_FAILURES))
        self.differing = self._take(len(shares.EDGES))
        self.request_scores = self._take(_SCORE_CELLS)
        self.pair_values = self._take(MAX_PAIRED)
        self.pair_count = self._take(1)
        self.pairs = self._take((MAX_PAIRED + 1) ** 2).reshape(MAX_PAIRED + 1, MAX_PAIRED + 1)
        self.time_ratios = self._take(_RATIO_CELLS)
        self.joint = self._take(shape.joint)
        self.steps = self._take(shape.steps * len(STEP_CELLS)).reshape(shape.steps, len(STEP_CELLS))
        self.drift_at = self._take(1)
        self.drift_rows = self._take(shape.sub_windows)
        self.drift = self._take(prod(shape.drift)).reshape(shape.drift)

    def at_rest(self) -> "SharedCounters":
        """A copy of what does not depend on the version, in which a batch is counted as a whole or not at all."""
        shape = CountersShape()
        for _ in range(_TRIES):
            copy = SharedCounters(self._words[: shape.words].tobytes(), shape)
            if (copy.rows[0], copy.requests[0]) == (self.rows[0], self.requests[0]):
                break
        return copy

    def _take(self, words: int) -> Integers:
        self._at += words
        return self._words[self._at - words : self._at]

    def _take_reals(self, words: int) -> Reals:
        return self._take(words).view(np.float64)


def create_counters(path: Path, shape: CountersShape) -> SharedCounters:
    """New counters, all zero, in a file at `path`; `OSError` when there is no room for it."""
    with path.open("xb") as file:
        # Not only truncated: in a full file system the first write to the mapping would end the process (SIGBUS).
        os.posix_fallocate(file.fileno(), 0, shape.words * WORD_BYTES)
    return open_counters(path, shape)


def open_counters(path: Path, shape: CountersShape) -> SharedCounters:
    """The counters in the file at `path`; `ValueError` if the file is not of this shape."""
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    if len(memory) != shape.words * WORD_BYTES:
        raise ValueError(f"{path} holds {len(memory)} bytes of counters, expected {shape.words * WORD_BYTES}")
    return SharedCounters(memory, shape)


def new_counters(shape: CountersShape) -> SharedCounters:
    """Counters of this process alone, all zero."""
    return SharedCounters(mmap.mmap(-1, shape.words * WORD_BYTES), shape)


def latency_bucket(duration_ns: int) -> int:
    """The cell of a latency histogram that counts this duration."""
    return bisect_left(LATENCY_EDGES_NS, duration_ns)


def rows_bucket(rows: int) -> int:
    """The cell of the batch size histogram that counts this many rows."""
    return bisect_left(ROWS_EDGES, rows)
