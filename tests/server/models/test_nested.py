from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock_server.errors import InvalidInputError
from penstock_server.models.golden import to_array, to_lists

shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=3)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2], np.int64, [1, 2]),
        ([1, 2.5], np.float64, [1.0, 2.5]),
        ([1.5, None], np.float64, [1.5, np.nan]),
        ([None], np.float64, [np.nan]),
        ([1, None], np.float64, [1.0, np.nan]),
        ([True, False], np.bool_, [True, False]),
        (["a", None], np.object_, ["a", ""]),
        ([["a"], ["b"]], np.object_, [["a"], ["b"]]),
        ([[1.0, 2.0], [3.0, 4.0]], np.float64, [[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_lists_become_arrays(values: list[Any], dtype: type, expected: list[Any]) -> None:
    array = to_array(values, "input 'x'")
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, np.array(expected, dtype=dtype))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "is empty"),
        ([[]], "is empty"),
        ([[1], 2], "is ragged"),
        ([1, [2]], "holds int, list"),
        ([[1, 2], [3]], "is ragged"),
        ([1, "a"], "holds int, str"),
        ([True, 1], "holds bool, int"),
        ([{}], "holds dict"),
        ([2**70], "out of range"),
        ([[[[[[[[[1]]]]]]]]], "nested deeper than 8"),
    ],
)
def test_what_is_no_array_is_refused_by_name(values: list[Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=f"input 'x'.*{said}"):
        to_array(values, "input 'x'")


@given(hnp.arrays(np.float32, shapes, elements=st.floats(allow_infinity=False, width=32)))
def test_floats_survive_the_round_trip(array: np.ndarray) -> None:
    lists = to_lists(array, "x")
    assert None in np.array(lists, dtype=object).ravel() or not np.isnan(array).any()
    np.testing.assert_array_equal(to_array(lists, "x").astype(np.float32), array)


@given(hnp.arrays(st.sampled_from([np.int64, np.int32, np.uint8, np.bool_]), shapes))
def test_whole_numbers_and_booleans_survive_the_round_trip(array: np.ndarray) -> None:
    np.testing.assert_array_equal(to_array(to_lists(array, "x"), "x"), array)


@given(hnp.arrays(np.object_, shapes, elements=st.text(max_size=3)))
def test_strings_survive_the_round_trip(array: np.ndarray) -> None:
    np.testing.assert_array_equal(to_array(to_lists(array, "x"), "x"), array)


def test_missing_strings_become_empty_ones() -> None:
    assert to_lists(np.array(["a", None, float("nan")], dtype=object), "x") == ["a", "", ""]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([np.inf]), "an infinity"),
        (np.array(1.0), "a single value"),
        (np.array([1j]), "of type complex128"),
        (np.array(["a", 3], dtype=object), "not strings"),
    ],
)
def test_what_json_cannot_hold_is_refused(array: np.ndarray, said: str) -> None:
    with pytest.raises(InvalidInputError, match=f"output 'y'.*{said}"):
        to_lists(array, "output 'y'")
