"""Predicts what a batch costs from its rows: a line fitted to past batches, and what follows from it.

The loader fits the line at warm-up. The queue updates it with each batch once deadlines or an objective matter, and
uses it to size batches and to refuse requests that would be late. Nothing but batches that ran moves it. It reads no
clock.
"""

from array import array
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

_WEIGHT: Final = 0.02
"""The newest batch's share in the averages, which therefore span about fifty batches."""
_OUTLIER: Final = 3.0
"""A batch counts as at most this many times the expected duration: one pause must not make the queue refuse everything,
while a lasting slowdown still moves the line by 4 % per batch."""
_STIFFNESS: Final = 0.001
"""The weight of the former slope, in squared mean sizes: batches of one size say nothing about the slope."""
_BASE, _ROW = range(2)
_PROBE_WEIGHT: Final = 0.25
"""The share of a probe that took less than the line says. Pauses make a batch take longer than it costs and nothing makes
it take less, so such a probe is worth many batches; a line ten times too high is right again after some fifteen."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a batch of n rows takes: `base_s + row_s * n`."""

    base_s: float
    row_s: float

    def of(self, rows: int) -> float:
        """Seconds for a batch of this many rows."""
        return self.base_s + self.row_s * rows

    def rows_within(self, span_s: float, most: int) -> int:
        """The rows of the largest batch that takes at most `span_s`: at least 1, at most `most`."""
        left_s = span_s - self.base_s
        if left_s >= self.row_s * most:
            return most
        return max(1, int(left_s / self.row_s)) if self.row_s > 0 else 1


class CostModel:
    """Least squares over the batches seen, older ones weighing exponentially less; O(1) per batch.

    Neither part of the line is ever negative. It starts from the warm-up's fit. `Cost(0, 0)` means no fit: then it
    starts with the first batch.

    Attributes:
        words: all that is known, float64: `base_s` and `row_s` of the line, and what the averages are; by its address kernels
            read and write it too.
    """

    __slots__ = ("words",)

    def __init__(self, cost: Cost, max_rows: int) -> None:
        """Starts from the warm-up's fit over batches of 1 and of `max_rows` rows."""
        mean_rows = (1 + max_rows) / 2
        mean_s = cost.base_s + cost.row_s * mean_rows
        variance = ((max_rows - 1) / 2) ** 2
        # Without a fit the first batch has the weight 1, which leaves nothing of the variance.
        seen = 0 if mean_s == 0 else round(1 / _WEIGHT)
        covariance = cost.row_s * variance
        self.words = array("d", [cost.base_s, cost.row_s, mean_rows, mean_s, variance, covariance, cost.row_s, seen])

    @property
    def cost(self) -> Cost:
        """The line now."""
        return Cost(self.words[_BASE], self.words[_ROW])

    def of(self, rows: int) -> float:
        """Seconds for a batch of this many rows; 0 while nothing is known."""
        return self.words[_BASE] + self.words[_ROW] * rows

    def update(self, rows: int, took_s: float, *, is_probe: bool = False) -> None:
        """Adds one batch: its rows, how long it took, and whether it ran to find that out."""
        _, _, mean_rows, mean_s, variance, covariance, slope_s, seen = self.words
        least = _WEIGHT
        if seen:
            expected_s = self.of(rows)
            if is_probe and took_s < expected_s:
                least = _PROBE_WEIGHT
            took_s = min(took_s, _OUTLIER * expected_s)
        seen += 1
        weight = max(least, 1 / seen)
        off_rows = rows - mean_rows
        off_s = took_s - mean_s
        mean_rows += weight * off_rows
        mean_s += weight * off_s
        variance = (1 - weight) * (variance + weight * off_rows * off_rows)
        covariance = (1 - weight) * (covariance + weight * off_rows * off_s)
        stiffness = _STIFFNESS * mean_rows * mean_rows
        scale = variance + stiffness
        row_s = (covariance + stiffness * slope_s) / scale if scale > 0 else 0.0
        most_s = mean_s / mean_rows if mean_rows > 0 else 0.0
        row_s = min(max(row_s, 0.0), most_s)
        slope_s += _WEIGHT * (row_s - slope_s)
        base_s = max(0.0, mean_s - row_s * mean_rows)
        self.words[:] = array("d", [base_s, row_s, mean_rows, mean_s, variance, covariance, slope_s, seen])


def batch_rows(cost: Cost, objective_s: float, max_rows: int) -> int:
    """The largest batch for an objective: it takes half the objective, since a request may have to wait for another batch."""
    return max_rows if objective_s == inf else cost.rows_within(objective_s / 2, max_rows)


def finish_s(start_s: float, cost: Cost, *, rows: int, largest: int) -> float:
    """When a request whose own rows are the last of `rows` will be answered, if batches hold `largest` rows.

    If a full batch is ahead of it, its own batch counts as full too. Otherwise requests that fill it later would make
    it late, or it would keep its batch small; under overload that happens to every batch.
    """
    batches = ceil(rows / largest)
    return start_s + (cost.of(rows) if batches <= 1 else batches * cost.of(largest))


def finish_singly_s(start_s: float, cost: Cost, *, rows: int, requests: int) -> float:
    """The same for a model whose requests run one by one."""
    return start_s + requests * cost.base_s + rows * cost.row_s


def is_patient(arrived_s: float, end_s: float, deadline_s: float, *, own_s: float) -> bool:
    """Whether a request waits for no more than half of what its deadline leaves apart from its own run of `own_s`.

    The other half is for waits that are not seen here: under overload a request waits in the socket before it is read, and
    its answer waits in the client's. A queue that reaches to the deadline answers every request slightly too late.
    """
    return 2 * (end_s - own_s - arrived_s) <= deadline_s - arrived_s - own_s
