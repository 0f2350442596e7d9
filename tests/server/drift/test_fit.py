from collections import Counter
from collections.abc import Sequence
from math import fsum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock_server.drift.baseline import (
    MAX_WATCHED,
    Baseline,
    ClassBaseline,
    NumberBaseline,
    StringBaseline,
    decode,
    encode,
)
from penstock_server.drift.fit import (
    FREE_TEXTS,
    OWN_BINS,
    dispersion,
    finer_dispersions,
    fit_baseline,
    fit_classes,
    fit_number,
    fit_string,
    with_predictions,
)
from penstock_server.drift.reference import reference_of
from penstock_server.drift.statistics import rows_needed
from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)

NAN, INF = float("nan"), float("inf")
SPEC = FeatureSpec((NumberColumn("x"), StringColumn("s")), Join((Take(("x",)), Text("s", Categories(("a", "b", "c"))))))
TABLE = {"x": [1.0, 2, 3, 4, NAN, INF, -INF, 4], "s": ["b", "b", "a", "", "?", "b", None, "a"]}
BASELINE = with_predictions(fit_baseline(SPEC, TABLE, bins=2), fit_classes("label", [1, 0, 1, 1], ("no", "yes")))


def number_of(values: Sequence[float], bins: int = 20) -> NumberBaseline:
    return fit_number("x", np.array(values, np.float64), bins)


def test_counts_and_sums_of_a_small_table() -> None:
    number, string = BASELINE.columns
    assert number == NumberBaseline(
        "x", (3 - 3e-6,), (2, 3), (3.0, 11.0), missing=1, infinite=2, smallest=1.0, largest=4.0,
        deviation=float(np.std([1, 2, 3, 4, 4])),
    )  # fmt: skip
    assert string == StringBaseline("s", ("b", "a", "?"), (3, 2, 1), other=0, missing=2, unseen=0)
    assert BASELINE.bins == 4
    assert BASELINE.cells_shape == (2, 4 + 3 + 2 + 4)
    assert reference_of(BASELINE).cells[:2].tolist() == [[2, 3, 0, 0, 1, 2, 0], [3, 2, 1, 0, 2, 0, 0]]
    assert BASELINE.predictions == ClassBaseline("label", (0, 1), (1, 3), ("no", "yes"))


VALUES = st.lists(st.floats() | st.sampled_from([0.0, 1.0, 1e308, -1e308, 5e-324]), max_size=80)


@given(VALUES, st.integers(1, 30))
def test_every_row_is_in_one_cell_and_every_finite_value_in_a_sum(values: list[float], bins: int) -> None:
    found = number_of(values, bins)
    finite = np.array([value for value in values if np.isfinite(value)], np.float64)
    assert len(found.counts) <= bins + 10
    assert sum(found.counts) == len(finite)
    assert sum(found.counts) + sum(found.extra) == len(values)
    cells = np.searchsorted(found.edges, finite, side="right")
    for cell, (count, total) in enumerate(zip(found.counts, found.sums, strict=True)):
        inside = finite[cells == cell]
        assert count == len(inside)
        assert np.isfinite(total)
        if np.abs(inside / 100).sum() < 1e306:  # beyond, a partial sum may have overflowed
            assert total == pytest.approx(fsum(inside), abs=1e-12 * np.abs(inside).sum())
    if len(finite):
        assert (found.smallest, found.largest) == (finite.min(), finite.max())
    assert decode(encode(Baseline((found,), "x"))).columns == (found,)


def test_bins_hold_equal_shares_of_a_continuous_column() -> None:
    counts = number_of(np.random.default_rng(0).normal(size=20_000).tolist()).counts
    assert len(counts) == 20
    # A value in a million lies between a quantile and the edge just below it.
    assert max(abs(count - 1000) for count in counts) <= 2


@pytest.mark.parametrize("value", [0.0, 0.7, -0.3, 1e300, 5e-324])
def test_a_constant_column_has_a_bin_of_its_own_between_two_empty_ones(value: float) -> None:
    assert number_of([value] * 50).counts == (0, 50, 0)


def test_a_value_on_an_edge_falls_in_one_bin_as_fp32_and_as_fp64() -> None:
    values = np.random.default_rng(0).integers(0, 1000, 5000) / 10
    edges = np.array(number_of(values.tolist()).edges)
    rounded = values.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(np.searchsorted(edges, values, "right"), np.searchsorted(edges, rounded, "right"))


def test_sums_and_deviations_that_overflow_are_stored_as_the_largest_float() -> None:
    found = number_of([1.7e308] * 300 + [-1.7e308] * 300, 1)
    assert found.deviation == np.finfo(np.float64).max
    assert decode(encode(Baseline((found,), "x"))).columns == (found,)


def test_an_empty_column_has_one_bin() -> None:
    assert number_of([NAN, INF]) == NumberBaseline("x", (), (0,), (0.0,), missing=1, infinite=1)


def test_rare_values_are_counted_together() -> None:
    values = [f"{at:03}".encode() for at in range(60) for _ in range(60 - at)]
    found = fit_string("s", values)
    assert found.watched == tuple(f"{at:03}" for at in range(60))
    assert found.counts == tuple(60 - at for at in range(OWN_BINS))
    assert found.other == sum(range(1, 11))


NUMBER_BINS = [
    # rows, of them missing and infinite, the bins that they are enough to judge
    (30, 0, 0, 4), (99, 0, 0, 4), (125, 0, 0, 4), (150, 0, 0, 5), (300, 0, 0, 11), (524, 0, 0, 19),
    (525, 0, 0, 20), (100_000, 0, 0, 20), (524, 1, 0, 18), (549, 1, 0, 19), (550, 1, 0, 20), (550, 1, 1, 19),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "missing", "infinite", "bins"), NUMBER_BINS)
def test_fewer_rows_have_fewer_bins(rows: int, missing: int, infinite: int, bins: int) -> None:
    values = np.random.default_rng(rows).normal(size=rows)
    values[:missing], values[rows - infinite :] = NAN, INF
    found = fit_number("x", values)
    assert len(found.counts) == bins
    assert len(fit_number("x", values, 13).counts) == 13
    cells = np.array([*found.bins, *found.extra])
    if rows >= 125:
        # One cell that the sample does not know may be there too.
        assert rows >= rows_needed(cells, cells) + 25


@given(st.integers(125, 1500), st.integers(1, 80), st.booleans())
def test_a_column_of_categories_is_judged_by_its_own_rows(rows: int, values: int, has_missing: bool) -> None:
    texts = [b"%d" % (at * at % values) for at in range(rows)]
    texts[0] = b"" if has_missing else texts[0]
    found = fit_string("s", texts)
    assert sum(found.bins) + sum(found.extra) == rows
    cells = np.array([*found.bins, *found.extra])
    kinds = len(set(texts))
    if not found.unseen:
        assert rows >= rows_needed(cells, cells)
    assert len(found.counts) == min(kinds - has_missing, OWN_BINS) or len(found.counts) >= 3
    assert fit_string("s", texts * 60).counts == tuple(
        60 * count for count in sorted(Counter(texts[has_missing:]).values())[::-1][:OWN_BINS]
    )


def test_a_baseline_has_the_share_of_rows_that_repeat() -> None:
    assert fit_baseline(SPEC, TABLE).repeats == 0
    again = {"x": [1.0, 1.0, NAN, NAN], "s": ["a", "a", "", None]}
    assert fit_baseline(SPEC, again).repeats == 0.5
    assert fit_baseline(SPEC, {"x": [], "s": []}).repeats is None


def test_values_that_nobody_can_watch_are_unseen() -> None:
    many = [str(at).encode() for at in range(MAX_WATCHED + 7)] * 2
    assert (len(fit_string("s", many).watched), fit_string("s", many).unseen) == (MAX_WATCHED, 14)
    found = fit_string("s", [b"a", b"\xff", b"x" * 2000, b"", b"a"])
    assert (found.watched, found.counts, found.unseen, found.missing) == (("a",), (2,), 2, 1)


def test_free_text_is_unseen_but_for_what_comes_again() -> None:
    free = [f"text {at}".encode() for at in range(FREE_TEXTS)]
    found = fit_string("s", [*free, b"thanks", b"thanks", b""])
    assert (found.watched, found.counts, found.unseen, found.missing) == (("thanks",), (2,), FREE_TEXTS, 1)
    assert len(fit_string("s", free[1:]).watched) == FREE_TEXTS - 1
    assert len(fit_string("s", [*free, *[b"thanks"] * FREE_TEXTS]).watched) == FREE_TEXTS + 1


def test_classes_beyond_the_names_are_called_by_number() -> None:
    assert fit_classes("label", [2, 0, 2, -1], ("a", "b")) == ClassBaseline(
        "label", (-1, 0, 2), (1, 1, 2), ("-1", "a", "2")
    )


def test_rows_in_the_order_of_time_say_how_much_they_clump() -> None:
    rng = np.random.default_rng(1)
    clumps = np.repeat(rng.normal(size=200), 50)
    assert number_of(rng.permutation(clumps).tolist()).dispersion < 1.3
    assert number_of(clumps.tolist()).dispersion > 20


def test_short_stretches_of_rows_vary_as_storms_do() -> None:
    """A tenth of 20,000 rows is unusual: a hundred storms of 20 rows, or five of 400."""
    usual = np.tile(np.arange(10), 2000)

    def scales(storms: int, rows: int) -> tuple[float, ...]:
        cells = usual.copy()
        for begin in np.linspace(0, len(cells) - rows, storms).astype(int):
            cells[begin : begin + rows] = 0
        return finer_dispersions(cells)

    short, long = scales(100, 20), scales(5, 400)
    assert len(short) == len(long) == 2
    assert long[0] > 10 * short[0]
    assert long[0] > long[1] > 3
    assert finer_dispersions(usual[:3999]) == ()
    assert len(finer_dispersions(usual[:4000])) == 1


def test_a_table_of_another_form_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no column 's'"):
        fit_baseline(SPEC, {"x": [1]})
    with pytest.raises(InvalidInputError, match="column 's' holds"):
        fit_baseline(SPEC, {"x": [1], "s": [1]})
    with pytest.raises(InvalidInputError, match="bins is 0, expected 1 to 254"):
        fit_baseline(SPEC, TABLE, bins=0)
    with pytest.raises(InvalidInputError, match="minimum_effect is -1, expected 0 or more"):
        fit_baseline(SPEC, TABLE, minimum_effect=-1)


@given(arrays(np.int64, st.integers(0, 200), elements=st.integers(0, 5)))
def test_it_is_never_below_one_and_always_finite(cells: np.ndarray) -> None:
    assert 1 <= dispersion(cells) < 1e9


def test_independent_rows_have_one() -> None:
    rng = np.random.default_rng(0)
    found = [dispersion(rng.integers(0, 20, 10_000)) for _ in range(50)]
    assert np.mean(found) == pytest.approx(1.03, abs=0.03)
    assert max(found) < 1.4


@pytest.mark.parametrize("length", [2, 5, 20])
def test_rows_that_come_in_clumps_have_the_clumps_length(length: int) -> None:
    rng = np.random.default_rng(1)
    found = [dispersion(np.repeat(rng.integers(0, 10, 4000), length)) for _ in range(30)]
    assert np.mean(found) == pytest.approx(length, rel=0.1)


def test_a_chain_has_the_ratio_of_its_long_variance() -> None:
    """A state that is kept with probability r: the variance of counts grows by (1 + r) / (1 - r)."""
    rng = np.random.default_rng(2)
    kept = 0.8
    found = []
    for _ in range(20):
        states = rng.integers(0, 5, 20_000)
        begins = rng.random(20_000) >= kept
        begins[0] = True
        chain = states[np.maximum.accumulate(np.where(begins, np.arange(20_000), 0))]
        found.append(dispersion(chain))
    assert np.mean(found) == pytest.approx((1 + kept) / (1 - kept), rel=0.15)


@pytest.mark.parametrize("cells", [[], [1], [1] * 1000, list(range(19))])
def test_where_nothing_can_be_said_it_is_one(cells: list[int]) -> None:
    assert dispersion(np.array(cells, np.int64)) == 1
