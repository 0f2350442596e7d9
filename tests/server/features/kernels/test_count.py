"""The drift counts that a pipeline takes, against a recount with numpy of the same rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tensors import join_bytes
from penstock_server.drift.baseline import Baseline, NumberBaseline, StringBaseline
from penstock_server.drift.fit import fit_baseline
from penstock_server.drift.reference import reference_of
from penstock_server.features import counting
from penstock_server.features.counting import Counts, counts_of
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Hash,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
    TimeColumn,
    digest,
)  # fmt: skip
from penstock_server.features.spec.steps import Fill

NUMBER = FeatureSpec((NumberColumn("x"),), Take(("x",)))
STRING = FeatureSpec((StringColumn("s"),), Join((Text("s", Categories(("a", "b", "longer than eight"))),)))
LARGEST = np.finfo(np.float64).max


def run(spec: FeatureSpec, baseline: Baseline, numbers: Any, strings: Sequence[Sequence[bytes]] = ()) -> Counts:
    """What a pipeline counts in these rows."""
    pipeline = Pipeline(spec, baseline.cells_for(spec))
    rows = len(strings[0]) if strings else len(numbers)
    cells = np.zeros(baseline.cells_shape, np.int64)
    out = np.empty((rows, pipeline.width), pipeline.dtype)
    pipeline.run(np.array(numbers, np.float64).tobytes(), [join_bytes(each) for each in strings], rows, out, cells)
    return counts_of(cells)


def of_edges(edges: Sequence[float], low: float | None = None, high: float | None = None) -> Baseline:
    bins = len(edges) + 1
    column = NumberBaseline("x", tuple(edges), (0,) * bins, (0.0,) * bins, smallest=low, largest=high)
    return Baseline((column,), digest(NUMBER))


def recounted(edges: Sequence[float], values: Sequence[float], low: float, high: float) -> Counts:
    """The same of one column of numbers, with numpy."""
    given_values = np.array(values, np.float64)
    finite = given_values[np.isfinite(given_values)]
    places = np.searchsorted(np.array(edges, np.float64), finite, side="right")
    odd = [int(np.isnan(given_values).sum()), int(np.isinf(given_values).sum()), 0]
    return Counts(
        np.array([[*np.bincount(places, minlength=len(edges) + 1), *odd]]),
        np.array([[(finite < low).sum(), (finite > high).sum()]]),
        np.array([np.bincount(places, finite, minlength=len(edges) + 1)]),
    )


ODD = [0.0, -0.0, 1.0, 1.0000001, -1.0, 1e308, -1e308, LARGEST, 5e-324, -5e-324, np.inf, -np.inf, np.nan]
REALS = st.floats() | st.sampled_from(ODD) | st.floats(-2, 2, width=16)
FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-2, 2, width=16)


@given(
    st.lists(FINITE, unique_by=lambda value: value + 0.0, max_size=40).map(sorted),
    st.lists(REALS, max_size=40) | st.lists(REALS, min_size=250, max_size=600),
    st.floats(-2, 0),
    st.floats(0, 2),
)
def test_every_value_falls_in_the_bin_that_searchsorted_says(edges, values, low, high) -> None:
    found = run(NUMBER, of_edges(edges, low, high), values)
    wider = low - 1e-6 * abs(low), high + 1e-6 * abs(high)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = recounted(edges, values, *wider)
    np.testing.assert_array_equal(found.cells, expected.cells)
    np.testing.assert_array_equal(found.outside, expected.outside)
    scale = np.abs([value for value in values if np.isfinite(value)] or [0.0]).max()
    if scale < 1e300:
        np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-12, atol=1e-12 * scale * max(len(values), 1))


@pytest.mark.parametrize("rows", [1, 7, 8, 255, 256, 257, 1000])
@pytest.mark.parametrize("bins", [1, 2, 5, 9, 10, 20, 250])
def test_a_fitted_baseline_counts_its_own_rows_as_its_reference(rows: int, bins: int) -> None:
    values = np.random.default_rng(rows).lognormal(0, 2, rows)
    values[: rows // 10] = np.nan
    baseline = fit_baseline(NUMBER, {"x": values}, bins)
    found, reference = run(NUMBER, baseline, values), reference_of(baseline)
    np.testing.assert_array_equal(found.cells, reference.cells)
    np.testing.assert_allclose(found.sums, reference.sums, rtol=1e-12)
    assert not found.outside.any()


def test_an_overflowing_neighbour_spoils_no_other_bins_sum() -> None:
    found = run(NUMBER, of_edges((0.0, 10.0)), [5.0, 1e308, 1e308, -3.0])
    assert found.sums[0].tolist() == [-3.0, 5.0, np.inf]


def test_two_runs_add_up() -> None:
    baseline = of_edges((0.0,), -1.0, 1.0)
    pipeline = Pipeline(NUMBER, baseline.cells_for(NUMBER))
    cells = np.zeros(baseline.cells_shape, np.int64)
    for _ in range(3):
        out = np.empty((2, 1), np.float32)
        pipeline.run(np.array([0.5, 7.0]).tobytes(), (), 2, out, cells)
    found = counts_of(cells)
    assert (found.cells.tolist(), found.outside.tolist(), found.sums.tolist()) == (
        [[0, 6, 0, 0, 0]], [[0, 3]], [[0.0, 22.5]],
    )  # fmt: skip


KNOWN = ("b", "a", "z", "only here, and long enough")
WORDS = StringBaseline("s", KNOWN, (5, 4, 3))
TEXT = st.sampled_from(["a", "b", "z", "longer than eight", "only here, and long enough", "", "?", "ab"])


@given(st.lists(TEXT, max_size=30) | st.lists(TEXT, min_size=250, max_size=600), st.booleans())
def test_every_string_falls_in_its_cell_however_it_is_encoded(values: list[str], hashed: bool) -> None:
    spec = STRING
    if hashed:
        spec = FeatureSpec((StringColumn("s"),), Join((Text("s", Hash(4)),)))
    found = run(spec, Baseline((WORDS,), digest(spec)), np.empty((len(values), 0)), [[v.encode() for v in values]])
    others = values.count("only here, and long enough")
    unseen = sum(value not in ("", *KNOWN) for value in values)
    expected = [values.count("b"), values.count("a"), values.count("z"), others, values.count(""), 0, unseen]
    assert found.cells[0].tolist() == expected


def test_a_column_that_no_block_reads_is_watched_all_the_same() -> None:
    spec = FeatureSpec((NumberColumn("x"), StringColumn("s"), NumberColumn("y")), Take(("x",)))
    table = {"x": [1.0, 2.0], "s": ["a", ""], "y": [3.0, np.nan]}
    baseline = fit_baseline(spec, table, 1)
    found = run(spec, baseline, [[1.0, 3.0], [2.0, np.nan]], [[b"a", b""]])
    np.testing.assert_array_equal(found.cells, reference_of(baseline).cells)


TIMES = FeatureSpec(
    (NumberColumn("x"), StringColumn("s"), TimeColumn("t")), Join((Take(("x",)), Text("s", Categories(("a", "b")))))
)
TABLE = {
    "x": np.random.default_rng(0).normal(size=600),
    "s": np.array(["a", "b", "c"] * 200, object),
    "t": np.arange(600) * np.timedelta64(10**12, "ns") + np.datetime64("2024-01-01", "ns"),
}
MANY = 90
WIDE = FeatureSpec(
    tuple(NumberColumn(f"x{at}") for at in range(MANY)),
    Take(tuple(f"x{at}" for at in range(MANY)), (Fill((0.0,) * MANY),)),
)


def picked(rows: int, thinning: int, turn: int = 1) -> list[int]:
    """Which rows of a batch are counted, in whole numbers of Python: one of each 2 ** thinning."""
    of_turn, one, two = counting.MULTIPLIERS
    found = []
    for group in range(rows >> thinning):
        mixed = (turn * of_turn + group) * one % 2**64
        found.append((group << thinning) + ((mixed ^ mixed >> 32) * two % 2**64 >> 64 - thinning))
    return found


def counted(spec: FeatureSpec, table: Any, *, is_thinned: bool) -> tuple[Counts, Any, int]:
    """The counts of a table's rows, the features, and how many rows there should be."""
    fitted = fit_baseline(spec, TABLE if spec is TIMES else {f"x{at}": np.linspace(-2, 2, 600) for at in range(MANY)})
    pipeline = Pipeline(spec, fitted.cells_for(spec))
    rows = len(next(iter(table.values())))
    numbers = np.column_stack([table[name] for name in pipeline.numbers]).astype(np.float64).tobytes()
    others = [table[name].astype("M8[ns]").astype(np.int64).tobytes() for name in pipeline.times]
    others += [join_bytes(value.encode() for value in table[name]) for name in pipeline.strings]
    cells = np.zeros(pipeline.cells_shape, np.int64)
    out = np.empty((rows, pipeline.width), pipeline.dtype)
    pipeline.run(numbers, others, rows, out, cells, is_thinned=is_thinned)
    return counts_of(cells), out, pipeline.counted_rows(rows)


def rows_of(spec: FeatureSpec, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    if spec is WIDE:
        return {f"x{at}": rng.normal(size=rows) for at in range(MANY)}
    return {
        "x": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(0, 2, rows)),
        "s": np.array(rng.choice(["a", "b", "c", "d", ""], rows), object),
        "t": rng.integers(0, 10**15, rows) * np.timedelta64(1000, "ns") + np.datetime64("2024-01-01", "ns"),
    }


@pytest.mark.parametrize(
    ("spec", "rows", "thinning"),
    [(TIMES, 682, 0), (TIMES, 683, 1), (TIMES, 1023, 1), (TIMES, 1024, 2), (TIMES, 2051, 2), (WIDE, 511, 0),
     (WIDE, 512, 1), (WIDE, 1279, 2)],
)  # fmt: skip
def test_of_a_large_batch_the_rows_are_counted_that_their_places_say(
    spec: FeatureSpec, rows: int, thinning: int
) -> None:
    """A brief batch of few columns, which kernels may run on their own, is counted whole."""
    table = rows_of(spec, rows)
    places = picked(rows, thinning)
    found, features, expected_rows = counted(spec, table, is_thinned=True)
    expected, _, _ = counted(spec, {name: column[places] for name, column in table.items()}, is_thinned=False)
    assert found.rows.tolist() == [expected_rows] * len(spec.columns) == [rows >> thinning] * len(spec.columns)
    np.testing.assert_array_equal(found.cells, expected.cells)
    np.testing.assert_array_equal(found.outside, expected.outside)
    np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-12)
    whole, same, _ = counted(spec, table, is_thinned=False)
    assert whole.rows.tolist() == [rows] * len(spec.columns)
    np.testing.assert_array_equal(features, same)


@pytest.mark.parametrize("thinning", [1, 2])
@pytest.mark.parametrize("rows", [512, 1024, 3000])
def test_each_place_is_counted_as_often_as_others_over_the_batches(rows: int, thinning: int) -> None:
    """Nor does it matter at which place of a period a row stands, such as among the candidates of a request."""
    batches = 400
    times = np.zeros(rows)
    for turn in range(batches):
        times[picked(rows, thinning, turn)] += 1
    share = 2.0**-thinning
    deviation = (batches * share * (1 - share)) ** 0.5
    off = (times[: rows >> thinning << thinning] - batches * share) / deviation
    assert abs(off.mean()) < 1e-9
    assert 0.8 < off.std() < 1.2
    assert np.abs(off).max() < 5
    for period in (2, 3, 4, 5, 8, 13, 21, 32, 34, 64):
        each = np.array([off[place::period].sum() / len(off[place::period]) ** 0.5 for place in range(period)])
        assert np.abs(each).max() < 4.5, period


def test_each_batch_has_other_rows_counted() -> None:
    table = rows_of(WIDE, 1024) | {"x0": np.linspace(-2, 2, 1024)}
    pipeline = Pipeline(WIDE, fit_baseline(WIDE, {f"x{at}": np.linspace(-2, 2, 600) for at in range(MANY)}).cells)
    numbers = np.column_stack([table[name] for name in pipeline.numbers]).tobytes()
    sums = set()
    for _ in range(20):
        cells = np.zeros(pipeline.cells_shape, np.int64)
        pipeline.run(numbers, (), 1024, np.empty((1024, MANY), np.float32), cells, is_thinned=True)
        sums.add(round(float(counts_of(cells).sums[0].sum()), 6))
    assert len(sums) > 15


@pytest.mark.parametrize("rows", [512, 1000, 1024, 5000])
def test_sorted_rows_are_counted_evenly(rows: int) -> None:
    table = rows_of(WIDE, rows) | {"x0": np.sort(np.random.default_rng(1).uniform(-2, 2, rows))}
    found, _, total = counted(WIDE, table, is_thinned=True)
    bins = found.bins
    places = np.searchsorted(np.linspace(-2, 2, bins + 1)[1:-1], table["x0"], side="right")
    share = np.bincount(places, minlength=bins) * total / rows
    assert np.abs(found.cells[0, :bins] - share).max() <= 3
