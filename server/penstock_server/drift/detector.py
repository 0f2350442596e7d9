"""Detects drift of a version's columns at any time, and since when: alarms that are wrong at most once in a stated time.

Pure but for what it keeps: counts come in slices, and after each it looks. `evidence` has the mathematics, `history` keeps
the slices, `monitor` feeds it. Rows that hang together count as fewer: as many fewer as the training rows in the order of time
vary more than independent ones, or as the slices do among themselves, whichever is more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift import evidence, statistics
from penstock_server.drift.baseline import DISPERSION_BLOCKS, FINER
from penstock_server.drift.history import History, Starts
from penstock_server.drift.reference import Reference
from penstock_server.drift.report import AlarmKind
from penstock_server.features.counting import EXTRA_CELLS, UNSEEN

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]

_SHARES, _UNSEEN = range(2)
UNSEEN_SHARE: Final = 0.001
"""So much larger than in the training rows the share of values that they do not have may be without an alarm."""
_NEARLY_ALL: Final = 1 - 1e-9
_SIGMAS: Final = 3.0
_PART_OF_SIZE: Final = 0.5
"""So many of the mean rows of a slice make it one of its level."""
QUIET_TIMES: Final = 2
"""An alarm goes off after this many times the rows that a column needs to be judged, if they do not drift."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that is on.

    Attributes:
        since_s: when the drift began, in seconds since 1970.
        noticed_s: when the slice began after which the alarm went on.
        once_in_looks: evidence as strong as this comes by chance once in so many looks.
    """

    since_s: float
    noticed_s: float
    once_in_looks: float


Alarms = Mapping[str, Alarm]


@dataclass(frozen=True, slots=True)
class Detected:
    """The alarms that are on.

    Attributes:
        drifted: by column: its rows are no longer distributed as the training rows.
        unseen: by column: more of its values than of the training rows' are unknown.
    """

    drifted: Alarms = field(default_factory=dict)
    unseen: Alarms = field(default_factory=dict)

    def each(self) -> dict[tuple[str, AlarmKind], Alarm]:
        """The alarms by column and kind."""
        found: dict[tuple[str, AlarmKind], Alarm] = {(name, "shares"): one for name, one in self.drifted.items()}
        return found | {(name, "unseen"): one for name, one in self.unseen.items()}


class Detector:
    """Watches one version.

    Args:
        reference: the training rows.
        minimum_effect: the index that is still no drift, float64 [columns].
        run_length: looks to a false alarm of any column, on average, at least.
    """

    def __init__(self, reference: Reference, minimum_effect: Reals, run_length: float) -> None:
        self._reference = reference
        self._effect = minimum_effect
        cells = reference.cells
        self._rows = cells.sum(axis=1)
        is_cell = reference.is_cell
        smoothed = np.where(is_cell, cells + 0.5, 0.0)
        self._shares = smoothed / smoothed.sum(axis=1, keepdims=True)
        # Extra cells that training never filled are possible, but not among those that the index is over.
        size = np.maximum((cells > 0).sum(axis=1), 1)
        self._tolerated = evidence.tolerance(minimum_effect, self._rows, size, reference.dispersion)
        # The finest scale first.
        self._excess = reference.scales.T[::-1] - 1
        lengths = np.maximum(self._rows / DISPERSION_BLOCKS, 1.0)
        self._lengths = [lengths / FINER**scale for scale in reversed(range(len(self._excess)))]
        unseen = cells[:, -EXTRA_CELLS + UNSEEN] / np.maximum(self._rows, 1)
        error = np.sqrt(unseen * (1 - unseen) * reference.dispersion / np.maximum(self._rows, 1))
        self._unseen_share = np.minimum(unseen + _SIGMAS * error + UNSEEN_SHARE, _NEARLY_ALL)
        self._may_be_unseen = ~reference.is_number
        tests = len(cells) + int(self._may_be_unseen.sum())
        self._threshold = np.log(tests) + np.log(run_length)
        self._tests = np.log(tests)
        self.history = History(cells.shape)
        self._quiet_rows = QUIET_TIMES * statistics.ROWS_PER_CELL * np.maximum(size, 2)
        self._forgotten_s = np.full((2, len(cells)), -np.inf)
        self.detected = Detected()

    def look(self, cells: Integers, began_s: float) -> Detected:
        """Takes the next slice, int64 [columns, cells], and looks.

        Args:
            cells: what was counted since the last look.
            began_s: when that was, in seconds since 1970.
        """
        self.history.add(cells, began_s)
        starts = self.history.starts
        rows = starts.cells.sum(axis=2)
        fewer = self._dispersion(rows)
        shares = self._alarms(_SHARES, self._evidence(starts, rows, fewer), starts, self.detected.drifted)
        unseen = self._alarms(_UNSEEN, self._unseen_evidence(starts, rows, fewer), starts, self.detected.unseen)
        self.detected = self._ended(starts, rows / fewer, Detected(shares, unseen))
        return self.detected

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that was learnt, as `restore` takes it."""
        alarms = [
            (kind, self._names.index(name), alarm)
            for kind, found in enumerate((self.detected.drifted, self.detected.unseen))
            for name, alarm in found.items()
        ]
        return {
            **self.history.to_arrays(),
            "forgotten_s": self._forgotten_s,
            "alarm_of": np.array([(kind, column) for kind, column, _ in alarms], np.int64).reshape(len(alarms), 2),
            "alarm": np.array(
                [(alarm.since_s, alarm.noticed_s, alarm.once_in_looks) for _, _, alarm in alarms], np.float64
            ).reshape(len(alarms), 3),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from what a detector of the same training rows had learnt.

        Raises:
            ValueError: it was of other columns.
        """
        forgotten_s, alarm_of, alarm = arrays["forgotten_s"], arrays["alarm_of"], arrays["alarm"]
        if forgotten_s.shape != self._forgotten_s.shape or alarm_of.shape != (len(alarm), 2) or alarm.shape[1:] != (3,):
            raise ValueError(f"it was of {forgotten_s.shape[-1]} columns, expected {len(self._names)}")
        found: tuple[dict[str, Alarm], dict[str, Alarm]] = ({}, {})
        for (kind, column), values in zip(alarm_of.tolist(), alarm.tolist(), strict=True):
            if not (0 <= kind < len(found) and 0 <= column < len(self._names)):
                raise ValueError(f"there is an alarm of kind {kind} and column {column}")
            found[kind][self._names[column]] = Alarm(*values)
        self.history.restore(arrays)
        self._forgotten_s = forgotten_s.copy()
        self.detected = Detected(*found)

    def _dispersion(self, rows: Integers) -> Reals:
        """By how much rows since each start are too many, 1 or more, float64 [starts, columns]; infinite while unknown."""
        found = self._usual_dispersion(rows)
        is_known = np.zeros(rows.shape, np.bool_)
        for size, multiples in zip(*self.history.dispersions, strict=True):
            is_seen = (rows >= _PART_OF_SIZE * size) & ~np.isnan(multiples)
            found = np.where(is_seen, np.maximum(found, multiples), found)
            is_known |= is_seen
        return np.where(is_known, found, np.inf)

    def _usual_dispersion(self, rows: Integers) -> Reals:
        """How much stretches of so many training rows vary; between two scales, and below the finest, in proportion."""
        found = np.ones(rows.shape)
        shorter, less = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        for length, excess in zip(self._lengths, self._excess, strict=True):
            found += (excess - less) * np.clip((rows - shorter) / (length - shorter), 0.0, 1.0)
            shorter, less = length, excess
        return found

    def _evidence(self, starts: Starts, rows: Integers, fewer: Reals) -> Reals:
        counts = np.where(self._shares > 0, starts.cells, 0) / fewer[:, :, None]
        # Inside the null an e-value is at most 1, which is left out.
        found = np.full(rows.shape, -np.inf)
        at, column = np.nonzero(evidence.is_outside(self._shares, counts, self._tolerated))
        found[at, column] = evidence.log_e_values(self._shares[column], counts[at, column], self._tolerated[column])
        return found

    def _unseen_evidence(self, starts: Starts, rows: Integers, fewer: Reals) -> Reals:
        counts = starts.cells[:, :, -EXTRA_CELLS + UNSEEN]
        is_more = self._may_be_unseen & (counts > self._unseen_share * rows)
        found = np.full(rows.shape, -np.inf)
        at, column = np.nonzero(is_more)
        found[at, column] = evidence.log_e_values_above(
            self._unseen_share[column], (counts / fewer)[at, column], (rows / fewer)[at, column]
        )
        return found

    def _alarms(self, kind: int, logs: Reals, starts: Starts, former: Alarms) -> Alarms:
        """The alarms after a look: those that were on, and new ones."""
        logs = np.where(starts.began_s[:, None] >= self._forgotten_s[kind], logs, -np.inf)
        best, largest = logs.argmax(axis=0), logs.max(axis=0)
        with np.errstate(invalid="ignore"):
            total = np.where(largest > -np.inf, largest + np.log(np.exp(logs - largest).sum(axis=0)), -np.inf)
        found: dict[str, Alarm] = {}
        for column, name in enumerate(self._names):
            if total[column] < self._threshold:
                if name in former:
                    found[name] = former[name]
            else:
                strength = min(float(total[column] - self._tests), 690.0)
                noticed_s = former[name].noticed_s if name in former else float(starts.began_s[0])
                found[name] = Alarm(float(starts.began_s[best[column]]), noticed_s, float(np.exp(strength)))
        return found

    @property
    def _names(self) -> tuple[str, ...]:
        names, first = self._reference.names, self._reference.columns
        return (*names[:first], "", *names[first + 1 :]) if self._reference.has_predictions else names

    def _ended(self, starts: Starts, effective: Reals, detected: Detected) -> Detected:
        """Without the alarms since which enough quiet rows came; what came before those is forgotten."""
        drifted, unseen = dict(detected.drifted), dict(detected.unseen)
        for kind, alarms in enumerate((drifted, unseen)):
            for column, name in enumerate(self._names):
                if name not in alarms:
                    continue
                is_enough = (effective[:, column] >= self._quiet_rows[column]) & (
                    starts.began_s > alarms[name].noticed_s
                )
                if not is_enough.any():
                    continue
                at = int(is_enough.argmax())
                if self._is_quiet(kind, column, starts.cells[at, column]):
                    del alarms[name]
                    self._forgotten_s[kind, column] = starts.began_s[at]
        return Detected(drifted, unseen)

    def _is_quiet(self, kind: int, column: int, cells: Integers) -> bool:
        if kind == _SHARES:
            return bool(statistics.psi_unbiased(self._reference.cells[column], cells) < self._effect[column])
        return bool(cells[-EXTRA_CELLS + UNSEEN] <= self._unseen_share[column] * cells.sum())
