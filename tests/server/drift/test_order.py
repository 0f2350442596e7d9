"""What the order of rows is taken for: a table of samples as people have them, and how often chance is mistaken."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from penstock_server.drift.fit import fit_baseline
from penstock_server.drift.order import FEW_ROWS, Change, RowOrder, is_still, row_order
from penstock_server.features.spec.spec import FeatureSpec, Join, NumberColumn, StringColumn, Take, Time, TimeColumn

ROWS = 4000
RNG = np.random.default_rng(0)
DAY_NS = 86_400 * 10**9
STILL = Change(1.0, 361)
MOVING = Change(9.0, 361)

NUMBERS = RNG.normal(size=ROWS)
WORDS = [b"%d" % at for at in RNG.integers(0, 30, ROWS)]
FLAGS = RNG.integers(0, 2, ROWS).astype(float)
DATES = [f"2024-{1 + at * 12 // ROWS:02}-{1 + at * 12 * 28 // ROWS % 28:02}".encode() for at in range(ROWS)]
GAPS = np.where(RNG.random(ROWS) < 0.1, np.nan, 1.0)


def sorted_flags(ones: int) -> np.ndarray:
    return np.repeat([0.0, 1.0], [24 - ones, ones])


def order_of(times: tuple[str, ...] = (), change: Change = MOVING, **columns) -> RowOrder:
    return row_order(columns, times, [change] * len(columns))


ORDERS = {
    "rows that change, in no order of values": (
        order_of(x=NUMBERS, s=WORDS), RowOrder("given")),
    "rows that do not change": (
        order_of(x=NUMBERS, s=WORDS, change=STILL), RowOrder("shuffled")),
    "too few rows to change": (
        order_of(x=NUMBERS[: FEW_ROWS - 1], change=STILL), RowOrder("given")),
    "no columns": (order_of(), RowOrder("given")),
    "sorted by a number": (
        order_of(x=NUMBERS, y=np.sort(NUMBERS)), RowOrder("sorted", ("y",))),
    "sorted down": (
        order_of(x=NUMBERS, y=np.sort(NUMBERS)[::-1]), RowOrder("sorted", ("y",))),
    "sorted by an answer": (
        order_of(x=NUMBERS, flag=np.sort(FLAGS)), RowOrder("sorted", ("flag",))),
    "sorted, with gaps": (
        order_of(x=NUMBERS, y=np.sort(NUMBERS) * GAPS), RowOrder("sorted", ("y",))),
    "sorted by a text": (
        order_of(x=NUMBERS, s=sorted(WORDS)), RowOrder("sorted", ("s",))),
    "in groups of a text, in any order of them": (
        order_of(x=NUMBERS, s=[b"%d" % (at * 7 % 30) for at in np.arange(ROWS) * 30 // ROWS]),
        RowOrder("sorted", ("s",))),
    "sorted by two": (
        order_of(x=np.sort(FLAGS), y=NUMBERS, s=sorted(WORDS)), RowOrder("sorted", ("x", "s"))),
    "numbered": (
        order_of(id=np.arange(float(ROWS)), x=NUMBERS), RowOrder("given")),
    "numbered after a shuffle": (
        order_of(id=np.arange(float(ROWS)), x=NUMBERS, change=STILL), RowOrder("shuffled")),
    "by seconds since 1970, the newest first": (
        order_of(at=1.7e9 - np.cumsum(RNG.exponential(9, ROWS)), x=NUMBERS), RowOrder("given")),
    "a number and nothing else": (
        order_of(id=np.arange(float(ROWS)), change=STILL), RowOrder("given")),
    "by days of which each has many rows": (
        order_of(times=("day",), day=np.arange(ROWS) // 50 * DAY_NS, x=NUMBERS, change=STILL),
        RowOrder("time", ("day",))),
    "by times, the newest first": (
        order_of(times=("at",), at=np.arange(ROWS)[::-1] * DAY_NS, x=np.sort(FLAGS)), RowOrder("time", ("at",))),
    "times out of their order": (
        order_of(times=("born",), born=RNG.permutation(ROWS) * DAY_NS, x=NUMBERS), RowOrder("given")),
    "by texts of dates": (
        order_of(day=DATES, x=NUMBERS, change=STILL), RowOrder("time", ("day",))),
    "in groups of dates, in another order": (
        order_of(day=DATES[ROWS // 2 :] + DATES[: ROWS // 2], x=NUMBERS), RowOrder("sorted", ("day",))),
    "a constant": (
        order_of(x=np.ones(ROWS), s=[b"a"] * ROWS, y=NUMBERS), RowOrder("given")),
    "one odd value at the end": (
        order_of(x=np.append(np.ones(ROWS - 1), 2.0), y=NUMBERS), RowOrder("given")),
    "texts of which none comes again": (
        order_of(s=[b"%d" % at for at in range(ROWS)], y=NUMBERS), RowOrder("given")),
    "just rows enough to change": (
        order_of(x=NUMBERS[:FEW_ROWS], change=STILL), RowOrder("shuffled")),
    "sorted down, with equal values": (
        order_of(x=NUMBERS, flag=np.sort(FLAGS)[::-1]), RowOrder("sorted", ("flag",))),
    "24 rows with 11 ones, of which one order in 1,248,072 is sorted": (
        order_of(x=sorted_flags(11)), RowOrder("sorted", ("x",))),
    "24 rows with 10 ones, of which one order in 980,628 is sorted": (
        order_of(x=sorted_flags(10)), RowOrder("given")),
    "24 texts, of which one order in 1,248,072 has the equal ones together": (
        order_of(s=[b"b"] * 13 + [b"a"] * 11), RowOrder("sorted", ("s",))),
    "24 texts, of which one order in 980,628 has the equal ones together": (
        order_of(s=[b"b"] * 14 + [b"a"] * 10), RowOrder("given")),
    "in groups of a text, of which one comes again": (
        order_of(s=[*[b"a"] * 50, *[b"b"] * 50, *[b"a"] * 50]), RowOrder("given")),
    "two numbers there, which count up": (
        order_of(x=np.append(np.full(ROWS - 2, np.nan), [1.0, 2.0]), change=STILL), RowOrder("given")),
    "one number there": (
        order_of(x=np.append(np.full(ROWS - 1, np.nan), 1.0), change=STILL), RowOrder("shuffled")),
    "a constant and nothing else": (
        order_of(x=np.ones(ROWS), change=STILL), RowOrder("shuffled")),
    "numbered, with gaps": (
        order_of(id=np.arange(float(ROWS)) * GAPS, x=NUMBERS), RowOrder("given")),
    "sorted by what is too late for a time": (
        order_of(x=6e9 + np.cumsum(RNG.exponential(9, ROWS))), RowOrder("sorted", ("x",))),
    "sorted by what is too early for a time": (
        order_of(x=np.cumsum(RNG.exponential(9, ROWS))), RowOrder("sorted", ("x",))),
    "by times, of which some are missing": (
        order_of(times=("at",), at=np.where(np.isnan(GAPS), np.iinfo(np.int64).min, np.arange(ROWS) * DAY_NS)),
        RowOrder("time", ("at",))),
    "by texts of dates, the newest first": (
        order_of(day=DATES[::-1], x=NUMBERS), RowOrder("time", ("day",))),
    "nothing there": (
        order_of(x=np.full(ROWS, np.nan), s=[b""] * ROWS, y=NUMBERS), RowOrder("given")),
}  # fmt: skip


@pytest.mark.parametrize(("found", "expected"), ORDERS.values(), ids=ORDERS)
def test_the_order_is_told_from_the_rows(found: RowOrder, expected: RowOrder) -> None:
    assert found == expected


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_a_dozen_rows_are_never_called_sorted_without_being_it(values: list[int]) -> None:
    found = row_order({"x": np.array(values, np.float64), "s": [b"%d" % value for value in values]}, (), [MOVING] * 2)
    together = sum(before != after for before, after in pairwise(values)) + 1 == len(set(values))
    if found.order == "sorted":
        assert together
    assert ("x" in found.columns) <= (values in (sorted(values), sorted(values, reverse=True)))


def test_many_columns_need_more_to_be_called_moving() -> None:
    # The chi-square tail of 1.2 x 361 over 361 degrees of freedom is 0.005.
    assert not is_still([Change(1.2, 361)])
    assert is_still([Change(1.2, 361), *[STILL] * 20])
    assert is_still([Change(1.0, 0)])


def test_one_shuffled_sample_in_a_hundred_is_called_moving() -> None:
    bound = chi2.isf(0.01, 361) / 361
    assert is_still([Change(bound * 0.9995, 361)])
    assert not is_still([Change(bound * 1.0005, 361)])


SPEC = FeatureSpec(
    (NumberColumn("x"), NumberColumn("y"), StringColumn("s"), TimeColumn("at")),
    Join((Take(("x", "y")), Time("at", ("hour",)))),
)


def table(rng: np.random.Generator, rows: int = ROWS, drift: float = 0.0) -> dict[str, np.ndarray]:
    """Rows of which the numbers move a little from day to day, and texts with them."""
    day = np.repeat(rng.normal(0, drift, 40), rows // 40)
    return {
        "x": rng.normal(size=rows) + day,
        "y": rng.lognormal(size=rows),
        "s": rng.choice(["a", "b", "c", *(f"rare {at}" for at in range(40))], rows),
        "at": rng.permutation(rows) * DAY_NS,
    }


@pytest.mark.long
def test_shuffled_rows_are_told_in_99_of_100_samples() -> None:
    rng = np.random.default_rng(1)
    found = [fit_baseline(SPEC, table(rng)).order for _ in range(100)]
    assert found.count("shuffled") >= 95
    assert set(found) <= {"shuffled", "given"}


def test_rows_that_move_from_day_to_day_are_not_taken_for_shuffled() -> None:
    rng = np.random.default_rng(2)
    assert {fit_baseline(SPEC, table(rng, drift=0.5)).order for _ in range(30)} == {"given"}


def test_a_baseline_keeps_what_its_rows_are_ordered_by() -> None:
    rows = table(np.random.default_rng(3))
    in_time = rows | {"at": np.sort(rows["at"])}
    assert [fit_baseline(SPEC, in_time).order, fit_baseline(SPEC, in_time).ordered_by] == ["time", ("at",)]
    by_y = rows | {"y": np.sort(rows["y"])}
    assert [fit_baseline(SPEC, by_y).order, fit_baseline(SPEC, by_y).ordered_by] == ["sorted", ("y",)]
    said = fit_baseline(SPEC, by_y, time="day")
    assert (said.order, said.ordered_by) == ("time", ("day",))
