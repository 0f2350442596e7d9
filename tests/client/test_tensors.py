import datetime as dt
import decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tensors import NUMPY_TYPES
from penstock_client.errors import InvalidRequestError
from penstock_client.metadata import TensorSpec
from penstock_client.tensors import arrange, cast

MATRIX = (TensorSpec("X", "FP32", (-1, 2)),)
ANY_MATRIX = (TensorSpec("X", "FP32", (-1, -1)),)
TEXT_MATRIX = (TensorSpec("X", "BYTES", (-1, 2)),)
COLUMNS = (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "INT64", (-1, 1)))
MIXED = (TensorSpec("a", "FP64", (-1,)), TensorSpec("t", "BYTES", (-1,)))
IMAGE = (TensorSpec("pixels", "UINT8", (-1, 2, 2)),)
PAIR = (TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("mask", "BOOL", (-1, -1)))
LONE = (TensorSpec("a", "FP64", (-1, 1)),)
SILENT = (TensorSpec("x", "FP32", ()),)
# numpy has a type for strings of any length since 2.0; before that, an array of them holds objects.
STRINGS = np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else np.dtype(object)


def laid_out(table, inputs):
    return [(t.name, t.datatype, t.values.shape, t.values.ravel().tolist()) for t in arrange(table, inputs)]


@pytest.mark.parametrize(
    ("table", "inputs", "expected"),
    [
        (np.array([[1, 2]]), MATRIX, [("X", "FP32", (1, 2), [1, 2])]),
        ({"p": [1, 2], "q": [3, None]}, MATRIX, [("X", "FP32", (2, 2), [1, 3, 2, pytest.approx(np.nan, nan_ok=True)])]),
        ({"p": np.array([[1], [2]]), "q": [3, 4]}, MATRIX, [("X", "FP32", (2, 2), [1, 3, 2, 4])]),
        ({"X": [[1, 2], [3, 4]]}, MATRIX, [("X", "FP32", (2, 2), [1, 2, 3, 4])]),
        ({"p": [1], "q": [2], "r": [3]}, ANY_MATRIX, [("X", "FP32", (1, 3), [1, 2, 3])]),
        ({"p": ["x"], "q": [None]}, TEXT_MATRIX, [("X", "BYTES", (1, 2), [b"x", b""])]),
        ({"b": [3, 4], "a": [1, 2]}, COLUMNS, [("a", "FP64", (2,), [1, 2]), ("b", "INT64", (2, 1), [3, 4])]),
        ({"a": np.array([[1.0]]), "b": [2]}, COLUMNS, [("a", "FP64", (1,), [1]), ("b", "INT64", (1, 1), [2])]),
        ({"a": [], "b": []}, COLUMNS, [("a", "FP64", (0,), []), ("b", "INT64", (0, 1), [])]),
        (np.array([[1, 2]]), COLUMNS, [("features", "FP64", (1, 2), [1, 2])]),
        (np.array([[1, 2]], np.float32), COLUMNS, [("features", "FP32", (1, 2), [1, 2])]),
        (np.zeros((1, 2, 2)), IMAGE, [("pixels", "UINT8", (1, 2, 2), [0] * 4)]),
        ({"pixels": np.zeros((1, 2, 2))}, IMAGE, [("pixels", "UINT8", (1, 2, 2), [0] * 4)]),
        (
            {"ids": [[5, 6, 7]], "mask": [[1, 1, 0]]},
            PAIR,
            [("ids", "INT64", (1, 3), [5, 6, 7]), ("mask", "BOOL", (1, 3), [True, True, False])],
        ),
        ({"a": [1, 2]}, LONE, [("a", "FP64", (2, 1), [1, 2])]),
        (np.array([1, 2]), LONE, [("a", "FP64", (2, 1), [1, 2])]),
        (np.array([[1, 2], [3, 4]]), SILENT, [("x", "FP32", (2, 2), [1, 2, 3, 4])]),
        (
            {"z": [1, 2], "t": ["x", "y"]},
            (),
            [("z", "INT64", (2,), [1, 2]), ("t", "BYTES", (2,), [b"x", b"y"])],
        ),
    ],
)
def test_rows_are_laid_out_as_declared(table, inputs, expected):
    assert laid_out(table, inputs) == expected


@pytest.mark.parametrize(
    ("table", "inputs", "words"),
    [
        ({"a": [1], "c": [1]}, COLUMNS, "missing 'b'; unexpected 'c'"),
        ({"a": [1]}, COLUMNS, "missing 'b'"),
        ({"a": [1], "b": [1], "d": [1], "c": [1]}, COLUMNS, "unexpected 'c', 'd'"),
        ({"wrong": [1]}, LONE, "missing 'a'; unexpected 'wrong'"),
        ({"X": [[1, 2]], "y": [1]}, MATRIX, "unexpected 'y'"),
        ({"a": [1, 2], "b": [1]}, COLUMNS, "'b' has 1 rows, 'a' has 2"),
        ({"p": [1, 2], "q": [1]}, MATRIX, "'q' has 1 rows, 'p' has 2"),
        ({"p": [1], "q": [2], "r": [3]}, MATRIX, "input 'X' takes 2 columns, got 3: ['p', 'q', 'r']"),
        ({}, ANY_MATRIX, "got 0"),
        ({"p": [1], "q": ["x"]}, MATRIX, "column 'q' is FP32 and takes numbers, got 'x' at row 0"),
        ({"p": [1], "q": [[1, 2]]}, MATRIX, "column 'q' takes shape [-1], got [1, 2]"),
        ({"a": ["x"], "b": [1]}, COLUMNS, "column 'a' is FP64"),
        ({"a": [[1, 2]], "b": [1]}, COLUMNS, "column 'a' takes shape [-1], got [1, 2]"),
        (np.zeros((1, 3)), MATRIX, "input 'X' takes shape [-1, 2], got [1, 3]"),
        (np.zeros(2), MATRIX, "got [2]; pass one row as rows.reshape(1, -1)"),
        (np.zeros((1, 3)), COLUMNS, "expected an array of shape [-1, 2], a column each for ['a', 'b'], got [1, 3]"),
        (np.zeros(2), COLUMNS, "got [2]"),
        (np.array([["x", "y"]]), COLUMNS, "the array is FP64 and takes numbers, got 'x' at row 0"),
        (np.zeros((1, 2)), MIXED, "inputs are ['a', 't']; pass a dict of columns"),
        (np.zeros((1, 2)), PAIR, "pass a dict of columns"),
        (np.zeros((1, 2)), (), "pass a dict of columns"),
        (np.zeros((1, 2, 3)), IMAGE, "takes shape [-1, 2, 2], got [1, 2, 3]"),
        ({"z": np.array([1j])}, (), "column 'z' cannot be sent"),
    ],
)
def test_rows_that_do_not_fit_are_refused(table, inputs, words):
    with pytest.raises(InvalidRequestError) as refused:
        arrange(table, inputs)
    assert words in str(refused.value)


INTEGERS = {name: dtype for name, dtype in NUMPY_TYPES.items() if dtype.kind in "iu"}


@pytest.mark.parametrize(
    ("values", "datatype", "expected"),
    [
        ([1, 2], "INT64", [1, 2]),
        ([1.0, 2.0], "INT32", [1, 2]),
        ([True, False], "UINT8", [1, 0]),
        ([1, 0, 1.0], "BOOL", [True, False, True]),
        ([True, 2, 2.5], "FP32", [1, 2, 2.5]),
        (np.array([1, 2], np.int8), "FP16", [1, 2]),
        ((3, 4), "FP64", [3, 4]),
        (range(3), "INT16", [0, 1, 2]),
        ([decimal.Decimal("1.5")], "FP64", [1.5]),
        ([2**64 - 1, 1], "UINT64", [2**64 - 1, 1]),
        ([2**63 - 1, -(2**63)], "INT64", [2**63 - 1, -(2**63)]),
        (np.array([1, 2], ">i4"), "INT32", [1, 2]),
        ([float("inf")], "FP16", [float("inf")]),
        ([], "INT64", []),
        ([[1, 2], [3, 4]], "FP32", [[1, 2], [3, 4]]),
    ],
)
def test_numbers_that_fit_are_cast(values, datatype, expected):
    array = cast(values, datatype, "column 'a'")
    assert array.dtype == NUMPY_TYPES[datatype]
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", b"\xff", None, "é"], [b"a", b"\xff", b"", "é".encode()]),
        (["a", float("nan")], [b"a", b""]),
        (np.array(["ab", "c"]), [b"ab", b"c"]),
        (np.array([b"ab", b"c"]), [b"ab", b"c"]),
        (np.array(["ab", "c"], STRINGS), [b"ab", b"c"]),
        ([], []),
        (np.array([]), []),
        ([["a"], ["b"]], [[b"a"], [b"b"]]),
    ],
)
def test_text_becomes_bytes(values, expected):
    assert cast(values, "BYTES", "column 'a'").tolist() == expected


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("values", [[None, 1.0], [None, 1], [None, True], np.array([None, 1], object)])
def test_none_is_nan_in_a_float_column(values, datatype):
    array = cast(values, datatype, "column 'a'")
    assert np.isnan(array[0])
    assert array[1] == 1


@pytest.mark.parametrize(
    ("values", "datatype", "words"),
    [
        ([1, "two"], "FP64", "column 'a' is FP64 and takes numbers, got 'two' at row 1"),
        (["1"], "FP32", "got '1' at row 0"),
        ([b"1"], "FP32", "got b'1' at row 0"),
        ([1, None], "INT64", "takes whole numbers, got None at row 1"),
        ([1.0, float("nan")], "INT64", "got nan at row 1"),
        ([1, 2.5], "INT8", "takes whole numbers, got 2.5 at row 1"),
        ([float("inf")], "INT64", "got inf at row 0"),
        ([1, 128], "INT8", "whole numbers from -128 to 127, got 128 at row 1"),
        ([-1], "UINT64", "got -1 at row 0"),
        ([2**63], "INT64", "from -9223372036854775808 to 9223372036854775807"),
        ([2.0**63], "INT64", "from -9223372036854775808"),
        ([2**64], "UINT64", "takes whole numbers from 0"),
        ([2**70, None], "INT64", "got None at row 1"),
        ([True, 2], "BOOL", "takes booleans, got 2 at row 1"),
        ([None], "BOOL", "takes booleans, got None"),
        ([1.0, 1e39], "FP32", "takes numbers, got 1e+39 at row 1"),
        ([70000], "FP16", "got 70000 at row 0"),
        ([1j], "FP64", "numpy type complex128"),
        (np.array(["2024-01-01"], "M8[D]"), "INT64", "numpy type datetime64[D]"),
        ([dt.date(2024, 1, 1)], "INT64", "got datetime.date(2024, 1, 1) at row 0"),
        ([[1, 2], [3]], "FP64", "lists of unlike lengths"),
        ([[1, 2], [3, "x"]], "FP64", "got 'x' at row 1"),
        (3.5, "FP64", "expected as a list or an array, got float"),
        ({1}, "FP64", "expected as a list or an array, got set"),
        (["a", 7], "BYTES", "is BYTES and takes text, got 7 at row 1"),
        ([1.5], "BYTES", "got 1.5 at row 0"),
        (np.array([7]), "BYTES", "got 7 at row 0"),
        (["\ud800"], "BYTES", "takes text, got '\\ud800' at row 0"),
        (["x" * 100], "FP64", "x... at row 0"),
        ([1], "BF16", "declared with a datatype that cannot be sent"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values, datatype, words):
    with pytest.raises(InvalidRequestError) as refused:
        cast(values, datatype, "column 'a'")
    assert words in str(refused.value)
    assert refused.value.details.startswith("column 'a' ")


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
def test_an_array_of_the_datatype_is_not_copied(datatype):
    array = np.zeros(3, NUMPY_TYPES[datatype])
    assert cast(array, datatype, "column 'a'") is array


@given(value=st.integers(-(2**65), 2**65), datatype=st.sampled_from(sorted(INTEGERS)))
def test_an_integer_is_kept_or_refused(value, datatype):
    limits = np.iinfo(INTEGERS[datatype])
    if limits.min <= value <= limits.max:
        assert cast([value], datatype, "column 'a'").tolist() == [value]
    else:
        with pytest.raises(InvalidRequestError):
            cast([value], datatype, "column 'a'")


@given(values=st.lists(st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-(2**53), 2**53))))
def test_a_float_column_keeps_every_value(values):
    array = cast(values, "FP64", "column 'a'")
    kept = [None if np.isnan(value) else value for value in array.tolist()]
    assert kept == values


@given(values=st.lists(st.one_of(st.none(), st.binary(), st.text(st.characters(exclude_categories=["Cs"])))))
def test_a_text_column_keeps_every_value(values):
    encoded = [b"" if v is None else v.encode() if isinstance(v, str) else v for v in values]
    assert cast(values, "BYTES", "column 'a'").tolist() == encoded
