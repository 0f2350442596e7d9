"""Joins labels with answers: which rows a label is written to, and what became of each label. Pure.

A label is about a row of a request. Several answers may be kept for it: the champion's, a shadow's, and those of a request that
was sent again; of each version and role the latest counts. Of an answer the first label counts: what was counted never
changes, so tests that look at any time stay valid. One that says the same again is a duplicate, one that says otherwise
conflicts, and both are counted.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.labels.layout import CHAMPION, SHADOW
from penstock_server.labels.segment import Rows
from penstock_server.labels.store import FoundRows
from penstock_server.labels.subjects import ClassTable, Subject
from penstock_server.labels.wire import CLASS, NUMBER, PASSED_ON, RECEIVED_NS, ROW, VALUE

UNKNOWN, MATCHED, LATE, DUPLICATE, CONFLICTING, INVALID = range(6)
STATES: Final = ("unknown", "matched", "late", "duplicate", "conflicting", "invalid")
"""What becomes of a label: no answer has its id; it was joined; it was, later than counts; the answer had it already; the
answer had another; it is no class of the model."""


class WrittenRows(NamedTuple):
    """What is written to rows, [M] each: where, what, and how long after the answer it came."""

    places: NDArray[np.int64]
    subjects: NDArray[np.int64]
    values: NDArray[np.float64]
    delays_s: NDArray[np.float32]


class JoinedPairs(NamedTuple):
    """Rows that a champion and a shadow answered, with a label that came for both now, [P] each.

    Attributes:
        champion, shadow: their subjects.
        answers: the predictions of both, [P, 2].
        truths: the label as each of them counts it, [P, 2].
        rows: their places in their requests.
    """

    champion: NDArray[np.int64]
    shadow: NDArray[np.int64]
    answers: NDArray[np.float64]
    truths: NDArray[np.float64]
    rows: NDArray[np.int64]


class Joined(NamedTuple):
    """What a join has found.

    Attributes:
        states: of each label, [N].
        labels, values: what is to be written.
        pairs: of champion and shadow.
    """

    states: NDArray[np.int64]
    labels: WrittenRows
    values: WrittenRows
    pairs: JoinedPairs


def join(
    records: NDArray[np.int64],
    found: FoundRows,
    subjects: Sequence[Subject],
    tables: Sequence[ClassTable],
    maturity_s: NDArray[np.float64],
) -> Joined:
    """Joins labels with the rows of their keys.

    Args:
        records: the labels, [N, 8] as `wire` has them, in the order in which they count.
        found: rows of their keys.
        subjects: by number.
        tables: of the classes of each subject's version.
        maturity_s: of each subject, [S]: a label that comes later after its answer does not count.
    """
    numbers, words = records.view(np.float64), records.view(np.uint64)
    is_asked = (records[found.which, ROW] & ~PASSED_ON) == found.rows["row"]
    which, places, rows = (column[is_asked] for column in found)
    order = _latest(which, rows, subjects)
    which, places, rows = which[order], places[order], rows[order]
    subject = rows["subject"].astype(np.int64)
    delays_s = np.maximum((records[which, RECEIVED_NS] - rows["time_ns"]) / 1e9, 0.0).astype(np.float32)
    is_late = delays_s > maturity_s[subject]

    has_label = (words[which, CLASS] != 0) | ~np.isnan(numbers[which, NUMBER])
    truth = np.full(len(which), np.nan)
    for one in np.unique(subject[has_label]).tolist():
        mine = has_label & (subject == one)
        truth[mine] = tables[one].classes(numbers[which[mine], NUMBER], words[which[mine], CLASS])
    value = numbers[which, VALUE]
    is_label, is_value = ~np.isnan(truth), ~np.isnan(value)
    label_first, label_same = _first(places, which, truth, rows, "label")
    value_first, value_same = _first(places, which, value, rows, "value")

    states = np.full(len(records), UNKNOWN)
    # The later ones have the last word; a label says what became of it before its value does.
    is_value &= ~has_label
    for state, mine in (
        (INVALID, has_label & ~is_label),
        (DUPLICATE, (is_label & label_same) | (is_value & value_same)),
        (CONFLICTING, (is_label & ~label_same & ~label_first) | (is_value & ~value_same & ~value_first)),
        (LATE, ((is_label & label_first) | (is_value & value_first)) & is_late),
        (MATCHED, ((is_label & label_first) | (is_value & value_first)) & ~is_late),
    ):
        states[which[mine]] = state
    return Joined(
        states,
        WrittenRows(places[label_first], subject[label_first], truth[label_first], delays_s[label_first]),
        WrittenRows(places[value_first], subject[value_first], value[value_first], delays_s[value_first]),
        _pairs(which[label_first], rows[label_first], truth[label_first], subjects),
    )


def _latest(which: NDArray[np.intp], rows: Rows, subjects: Sequence[Subject]) -> NDArray[np.intp]:
    """Of the rows of each label those that count: the latest of each version and role; the first labels first."""
    slots: dict[tuple[object, int], int] = {}
    slot_of = np.array([slots.setdefault((each.version, each.role), len(slots)) for each in subjects], np.int64)
    slot = slot_of[rows["subject"]] if len(slot_of) else np.zeros(len(rows), np.int64)
    order = np.lexsort((rows["time_ns"], slot, which))
    is_last = np.ones(len(order), bool)
    is_last[:-1] = (which[order][1:] != which[order][:-1]) | (slot[order][1:] != slot[order][:-1])
    return order[is_last]


def _first(
    places: NDArray[np.int64], which: NDArray[np.intp], given: NDArray[np.float64], rows: Rows, name: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of what is given, NaN for nothing, is the first for its row; and which says again what the row has or gets."""
    held, step = rows[name], rows[f"{name}_step"]
    at = np.flatnonzero(~np.isnan(given))
    at = at[np.argsort(which[at], kind="stable")]
    _, first, again = np.unique(places[at], return_index=True, return_inverse=True)
    counts = np.where(step[at] != 0, held[at], given[at][first][again] if len(at) else 0.0)
    is_first, is_same = np.zeros(len(places), bool), np.zeros(len(places), bool)
    is_first[at[first]] = True
    is_first &= step == 0
    is_same[at] = given[at] == counts
    return is_first, is_same & ~is_first


def _pairs(which: NDArray[np.intp], rows: Rows, truth: NDArray[np.float64], subjects: Sequence[Subject]) -> JoinedPairs:
    role = np.array([each.role for each in subjects], np.int64)[rows["subject"]] if len(subjects) else np.zeros(0)
    champions, shadows = np.flatnonzero(role == CHAMPION), np.flatnonzero(role == SHADOW)
    # At most one champion answers a request at a time; of several, which a promotion in between makes, the last one counts.
    of_label = np.full(int(which.max(initial=-1)) + 1, -1)
    of_label[which[champions]] = champions
    champion = of_label[which[shadows]] if len(shadows) else np.zeros(0, np.int64)
    shadows, champion = shadows[champion >= 0], champion[champion >= 0]
    both = np.stack([champion, shadows], axis=1)
    return JoinedPairs(
        rows["subject"][champion].astype(np.int64),
        rows["subject"][shadows].astype(np.int64),
        rows["prediction"][both],
        truth[both],
        rows["row"][shadows].astype(np.int64),
    )
