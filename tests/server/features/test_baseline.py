import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.features.baseline import MAX_CODES, check, decode, encode, fit_baseline
from penstock_server.features.baseline_columns import NumberBaseline, StringBaseline
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import FeatureSpec, NumberColumn, StringColumn

NAN, INF = float("nan"), float("inf")
SPEC = FeatureSpec((NumberColumn("x"), StringColumn("s", ("a", "b", "c"))))
TABLE = {"x": [1.0, 2, 3, 4, NAN, INF, -INF, 4], "s": ["b", "b", "a", "", "?", "b", None, "a"]}
BASELINE = fit_baseline(SPEC, TABLE, bins=2)


def number_of(values: Any, bins: int = 20) -> NumberBaseline:
    (column,) = fit_baseline(FeatureSpec((NumberColumn("x"),)), {"x": values}, bins).columns
    assert isinstance(column, NumberBaseline)
    return column


def test_counts_of_a_small_table() -> None:
    number, string = BASELINE.columns
    assert number == NumberBaseline("x", (3 - 3e-6,), (2, 3), missing=1, infinite=2)
    assert string == StringBaseline("s", (1, 0), (3, 2), other=0, missing=2, unseen=1)
    assert BASELINE.cells_shape == (2, 6)
    assert BASELINE.reference.tolist() == [[2, 3, 0, 1, 2, 0], [3, 2, 0, 2, 0, 1]]


@given(st.lists(st.floats() | st.sampled_from([0.0, 1.0, 1e308, -1e308, 5e-324]), max_size=80), st.integers(1, 30))
def test_reference_is_what_a_pipeline_counts_in_the_same_rows(values: list[float], bins: int) -> None:
    spec = FeatureSpec((NumberColumn("x"),))
    baseline = fit_baseline(spec, {"x": values}, bins)
    pipeline = Pipeline(spec, baseline)
    cells = np.zeros(pipeline.cells_shape, np.int64)
    pipeline.run(np.array(values, np.float64), (), len(values), np.empty((len(values), 1), np.float32), cells)
    np.testing.assert_array_equal(cells, baseline.reference)
    assert baseline.reference.sum() == len(values)
    assert len(number_of(values, bins).counts) <= bins


def test_bins_hold_equal_shares_of_a_continuous_column() -> None:
    counts = number_of(np.random.default_rng(0).normal(size=20_000)).counts
    assert len(counts) == 20
    # A value in a million lies between a quantile and the edge just below it.
    assert max(abs(count - 1000) for count in counts) <= 2


@pytest.mark.parametrize("value", [0.0, 0.7, -0.3, 1e300, 5e-324])
def test_a_constant_column_has_a_bin_of_its_own_between_two_empty_ones(value: float) -> None:
    assert number_of([value] * 50).counts == (0, 50, 0)


def test_a_value_on_an_edge_falls_in_one_bin_as_fp32_and_as_fp64() -> None:
    values = np.random.default_rng(0).integers(0, 1000, 5000) / 10
    edges = np.array(number_of(values).edges)
    rounded = values.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(np.searchsorted(edges, values, "right"), np.searchsorted(edges, rounded, "right"))


def test_an_empty_column_has_one_bin() -> None:
    assert number_of([NAN, INF]) == NumberBaseline("x", (), (0,), missing=1, infinite=1)


def test_rare_categories_are_counted_together() -> None:
    categories = tuple(f"{at:03}" for at in range(60))
    spec = FeatureSpec((StringColumn("s", categories),))
    values = [category for at, category in enumerate(categories) for _ in range(60 - at)]
    (column,) = fit_baseline(spec, {"s": values}).columns
    assert isinstance(column, StringBaseline)
    assert column.codes == tuple(range(MAX_CODES))
    assert column.other == sum(range(1, 11))


def test_decodes_what_it_encodes() -> None:
    assert decode(encode(BASELINE)) == BASELINE
    check(decode(encode(BASELINE)), SPEC)


def changed(*path: str | int, to: Any) -> bytes:
    document = json.loads(encode(BASELINE))
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = to
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed("format", to=9), "format 9 is unknown"),
        (changed("columns", 0, "edges", to=[2, 1]), r"column 'x', edges\[1\] is 1.0 after 2.0"),
        (changed("columns", 0, "counts", to=[1]), "column 'x', 1 counts for 1 edges"),
        (changed("columns", 0, "counts", to=[1, -1]), "column 'x', Expected `int` >= 0"),
        (changed("columns", 0, "counts", to=[1, 2**60]), "column 'x', Expected `int` <="),
        (changed("columns", 1, "codes", to=[1, 1]), "column 's', a code is there twice"),
        (changed("columns", 1, "codes", to=[1]), "column 's', 2 counts for 1 codes"),
        (changed("columns", 1, "missing", to=0.5), "column 's', "),
        (changed("columns", 1, "sums", to=[]), "column 's', .*sums"),
        (b"{}", "format"),
    ],
)
def test_refuses_with_the_place_and_the_reason(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        decode(data)


@given(st.binary(max_size=100))
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode(data)


def test_codes_beyond_the_categories_are_refused() -> None:
    forged = decode(changed("columns", 1, "codes", to=[0, 3]))
    with pytest.raises(InvalidInputError, match="column 's' has the code 3, expected below 3"):
        check(forged, SPEC)


def test_a_table_of_another_form_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no column 's'"):
        fit_baseline(SPEC, {"x": [1]})
    with pytest.raises(InvalidInputError, match="column 's' holds"):
        fit_baseline(SPEC, {"x": [1], "s": [1]})
