import contextlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock_server.errors import InvalidInputError
from penstock_server.models import golden
from penstock_server.models.golden import Golden, to_array, to_lists

NAN = float("nan")


def expecting(values: list[Any], **tolerance: float) -> Golden:
    return Golden(inputs={"x": [1.0]}, outputs={"y": values}, **tolerance)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ([0.5, 0.25], np.array([0.5, 0.25], np.float32)),
        ([0.5], np.array([0.5005])),
        ([None], np.array([NAN])),
        ([[0.1, 0.9]], np.array([[0.1, 0.9]], np.float32)),
        ([1, 2], np.array([1, 2], np.int32)),
        ([1, 2], np.array([1.0, 2.0], np.float32)),
        ([True], np.array([True])),
        (["UA", ""], np.array(["UA", ""], dtype=object)),
        (["UA"], np.array(["UA"])),
    ],
)
def test_answers_within_tolerance_agree(expected: list[Any], got: np.ndarray) -> None:
    assert golden.compare(expecting(expected), {"y": got, "unasked": np.array([0])}) is None


@pytest.mark.parametrize(
    ("expected", "got", "sentence"),
    [
        ([0.5, 0.25], [0.5, 0.35], "output 'y', row 1: expected 0.25, got 0.35, which differ by 0.1"),
        ([[0.1, 0.9]], [[0.1, 0.8]], "output 'y', row 0, position [1]: expected 0.9, got 0.8, which differ by 0.1"),
        ([0.5], [NAN], "output 'y', row 0: expected 0.5, got nan, which differ by nan"),
        ([None], [0.5], "output 'y', row 0: expected nan, got 0.5, which differ by nan"),
        ([0.5], [np.inf], "output 'y', row 0: expected 0.5, got inf, which differ by inf"),
        ([5000], np.array([5001]), "output 'y', row 0: expected 5000, got 5001, which differ by 1"),
        ([0.5], [[0.5]], "output 'y' has shape [1, 1]; expected [1]"),
        ([0.5], np.array(["0.5"]), "output 'y' holds strings; expected numbers (float64)"),
        (["a"], [0.5], "output 'y' holds numbers (float64); expected strings"),
        (["UA"], np.array(["AA"], dtype=object), "output 'y', row 0: expected 'UA', got 'AA'"),
        ([True], np.array([False]), "output 'y', row 0: expected 1, got 0, which differ by 1"),
    ],
)
def test_a_difference_names_output_row_and_amount(expected: list[Any], got: Any, sentence: str) -> None:
    assert golden.compare(expecting(expected), {"y": np.asarray(got)}) == sentence


def test_an_output_that_is_not_given_is_named() -> None:
    said = golden.compare(expecting([1.0]), {"label": np.array([1]), "odds": np.array([1])})
    assert said == "output 'y' is missing; the model gives 'label', 'odds'"


def test_tolerances_are_obeyed() -> None:
    assert golden.compare(expecting([100.0], rtol=0.0, atol=0.5), {"y": np.array([100.4])}) is None
    assert golden.compare(expecting([100.0], rtol=0.0, atol=0.3), {"y": np.array([100.4])}) is not None
    assert golden.compare(expecting([100.0], rtol=0.1, atol=0.0), {"y": np.array([109.0])}) is None


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
        elements=st.floats(allow_infinity=False, width=32),
    )
)
def test_every_answer_agrees_with_itself_after_json(answer: np.ndarray) -> None:
    made = golden.make({"x": np.array([1.0])}, {"y": answer}, rtol=0.0, atol=0.0)
    assert golden.compare(golden.decode(golden.encode(made)), {"y": answer}) is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), st.data())
def test_compare_is_the_formula(values: list[float], data: st.DataObject) -> None:
    got = np.array([value + data.draw(st.floats(-0.01, 0.01)) for value in values])
    is_near = all(abs(g - v) <= 1e-5 + 1e-3 * abs(v) for v, g in zip(values, got, strict=True))
    assert (golden.compare(expecting(values), {"y": got}) is None) == is_near


def test_inputs_become_arrays_of_their_kind() -> None:
    made = golden.make(
        {"delay": np.array([1.5, NAN]), "carrier": np.array(["UA", None], dtype=object), "month": np.array([1, 2])},
        {"label": np.array([0, 1])},
    )
    arrays = golden.decode(golden.encode(made)).input_arrays()
    assert made.rows == 2
    assert {name: array.dtype.kind for name, array in arrays.items()} == {"delay": "f", "carrier": "O", "month": "i"}
    assert arrays["carrier"].tolist() == ["UA", ""]
    assert np.isnan(arrays["delay"][1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": {}}, "there are no inputs"),
        ({"outputs": {}}, "there are no outputs"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, r"have \[1, 2\] rows"),
        ({"inputs": {"a": [[1], [2, 3]]}}, "input 'a' is ragged"),
        ({"outputs": {"y": [1, "a"]}}, "output 'y' holds int, str"),
        ({"rtol": -1}, "rtol is -1"),
        ({"format": 2}, "format is 2"),
        ({"inputs": {"a": 3}}, "Expected `array`"),
        ({"more": 1}, "unknown field"),
        ({"inputs": {"a": [[0] * 1000] * 1001}}, "more than 1,000,000 values"),
    ],
)
def test_unsound_golden_files_are_refused(change: dict[str, Any], said: str) -> None:
    raw = msgspec.json.encode({"format": 1, "inputs": {"x": [1.0]}, "outputs": {"y": [2.0]}, **change})
    with pytest.raises(InvalidInputError, match=said):
        golden.decode(raw)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)


@given(
    st.binary() | nested.map(lambda x: msgspec.json.encode({"format": 1, "inputs": {"a": [x]}, "outputs": {"b": x}}))
)
def test_no_bytes_raise_anything_but_invalid_input(raw: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        golden.decode(raw)


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
