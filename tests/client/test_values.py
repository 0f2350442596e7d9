import datetime as dt
import decimal
import fractions
import math
import uuid

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.tensors import NUMPY_TYPES
from penstock_client.errors import InvalidRequestError
from penstock_client.values import cast

# numpy has a type for strings of any length since 2.0; before that, an array of them holds objects.
STRINGS = np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else np.dtype(object)
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
    assert cast(values, "BYTES", "column 'a'", missing="").tolist() == expected


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
        ([1j], "FP64", "takes numbers, got 1j at row 0"),
        (np.array(["2024-01-01"], "M8[D]"), "INT64", "got np.datetime64('2024-01-01') at row 0"),
        (np.array([], "M8[D]"), "INT64", "numpy type datetime64[D]"),
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
        ([1], "FP8", "declared with a datatype that cannot be sent"),
        (
            [256, 257],
            "BF16",
            "whole numbers up to 2**8; make the column one of floats to have it rounded, got 257 at row 1",
        ),
        (np.array([1, 1025]), "BF16", "got 1025 at row 1"),
        ([1.0, 3.4e38], "BF16", "got 3.4e+38 at row 1"),
        (["1"], "BF16", "got '1' at row 0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values, datatype, words):
    with pytest.raises(InvalidRequestError) as refused:
        cast(values, datatype, "column 'a'")
    assert words in str(refused.value)
    assert refused.value.details.startswith("column 'a' ")


def test_a_column_whose_texts_are_all_missing_may_come_as_floats():
    assert cast(np.array([np.nan, np.nan]), "BYTES", "column 'a'", missing="").tolist() == [b"", b""]
    with pytest.raises(InvalidRequestError, match="declares none for a missing value"):
        cast(np.array([np.nan]), "BYTES", "column 'a'")


@pytest.mark.parametrize("datatype", [name for name in NUMPY_TYPES if name != "BF16"])
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
    assert cast(values, "BYTES", "column 'a'", missing="").tolist() == encoded


D, F = decimal.Decimal, fractions.Fraction
MORE = 2**53 + 1
REFUSED = "refused"
OUTCOMES = [
    # Whole numbers are exact in every column, or refused.
    (2**53, "FP64", 2.0**53),
    (MORE, "FP64", REFUSED),
    (-MORE, "FP64", REFUSED),
    (2**60, "FP64", 2.0**60),
    (2**24, "FP32", 2.0**24),
    (2**24 + 1, "FP32", REFUSED),
    (2**24 + 2, "FP32", 2.0**24 + 2),
    (2049, "FP16", REFUSED),
    (65504, "FP16", 65504.0),
    (65536, "FP16", REFUSED),
    (2**64, "FP64", 2.0**64),
    (2**1023, "FP64", 2.0**1023),
    (2**1024, "FP64", REFUSED),
    (10**400, "FP64", REFUSED),
    (MORE, "INT64", MORE),
    (MORE, "UINT64", MORE),
    (2**63 - 1, "INT64", 2**63 - 1),
    (2**63, "INT64", REFUSED),
    (2**64 - 1, "UINT64", 2**64 - 1),
    (2**64, "UINT64", REFUSED),
    (-1, "UINT8", REFUSED),
    (256, "UINT8", REFUSED),
    (1, "BOOL", True),
    (2, "BOOL", REFUSED),
    (7, "BYTES", REFUSED),
    # Floats become the nearest float.
    (0.1, "FP32", float(np.float32(0.1))),
    (0.1, "FP16", float(np.float16(0.1))),
    (2.0**53 + 2, "FP32", 2.0**53),
    (1e-50, "FP32", 0.0),
    (1e39, "FP32", REFUSED),
    (-1e39, "FP32", REFUSED),
    (math.inf, "FP32", math.inf),
    (math.nan, "FP16", math.nan),
    (-0.0, "FP32", -0.0),
    (0.5, "INT64", REFUSED),
    (4.0, "INT64", 4),
    (2.0**63, "INT64", REFUSED),
    (2.0**63, "UINT64", 2**63),
    (math.nan, "INT64", REFUSED),
    (math.inf, "INT64", REFUSED),
    (math.nan, "BOOL", REFUSED),
    (1.0, "BOOL", True),
    (0.5, "BOOL", REFUSED),
    (1.5, "BYTES", REFUSED),
    # Decimals and fractions too.
    (D("0.1"), "FP64", 0.1),
    (D("1e400"), "FP64", REFUSED),
    (D("1e300"), "FP32", REFUSED),
    (D("Infinity"), "FP64", math.inf),
    (D("NaN"), "FP64", math.nan),
    (D("sNaN"), "FP64", REFUSED),
    (D(MORE), "INT64", MORE),
    (D("1.5"), "INT64", REFUSED),
    (D("NaN"), "INT64", REFUSED),
    (D("sNaN"), "INT64", REFUSED),
    (D("Infinity"), "INT64", REFUSED),
    (D("1.50"), "BYTES", REFUSED),
    (F(1, 3), "FP64", 1 / 3),
    (F(10**400, 3), "FP64", REFUSED),
    (F(6, 3), "INT8", 2),
    # Booleans are 0 and 1.
    (True, "FP64", 1.0),
    (True, "INT8", 1),
    (False, "BOOL", False),
    (True, "BYTES", REFUSED),
    # Text is no number.
    ("1", "FP64", REFUSED),
    ("1", "INT64", REFUSED),
    ("true", "BOOL", REFUSED),
    ("", "FP64", REFUSED),
    (b"1", "FP64", REFUSED),
    ("nan", "FP64", REFUSED),
    ("Łódź", "BYTES", "Łódź".encode()),
    ("a\0", "BYTES", b"a\0"),
    (b"a\0", "BYTES", b"a\0"),
    ("", "BYTES", b""),
    ("\ud800", "BYTES", REFUSED),
    # What is missing, only where that can be said.
    (None, "FP64", math.nan),
    (None, "INT64", REFUSED),
    (None, "BOOL", REFUSED),
    (None, "BYTES", REFUSED),
    (math.nan, "BYTES", REFUSED),
    (pd.NA, "FP64", REFUSED),
    (pd.NA, "INT64", REFUSED),
    (pd.NaT, "FP64", REFUSED),
    (pd.NaT, "BYTES", REFUSED),
    # Nobody knows which number a time is.
    (dt.date(2024, 1, 1), "FP64", REFUSED),
    (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "INT64", REFUSED),
    (dt.timedelta(1), "FP64", REFUSED),
    (np.datetime64(5, "ns"), "INT64", REFUSED),
    (np.timedelta64(5, "ns"), "INT64", REFUSED),
    (np.timedelta64(5, "ns"), "FP64", REFUSED),
    (pd.Timestamp(0), "INT64", REFUSED),
    (pd.Timedelta(5), "FP64", REFUSED),
    (dt.date(2024, 1, 1), "BYTES", REFUSED),
    # Other objects.
    (1j, "FP64", REFUSED),
    (uuid.UUID(int=5), "INT64", REFUSED),
    (uuid.UUID(int=5), "BYTES", REFUSED),
    (NotImplemented, "FP64", REFUSED),
]


def as_list(value):
    return [value]


def as_objects(value):
    array = np.empty(1, object)
    array[0] = value
    return array


def beside_a_float(value):
    return [value, 0.0]


@pytest.mark.long
@pytest.mark.parametrize("held", [as_list, as_objects, beside_a_float])
@pytest.mark.parametrize(("value", "datatype", "outcome"), OUTCOMES, ids=lambda value: f"{value!r:.30}")
def test_each_kind_of_value_is_kept_or_refused(value, datatype, outcome, held):
    if held is beside_a_float and datatype == "BYTES":
        return
    if outcome is REFUSED:
        with pytest.raises(InvalidRequestError, match=r"^column 'a' is .* at row 0"):
            cast(held(value), datatype, "column 'a'")
        return
    got = cast(held(value), datatype, "column 'a'")
    assert got.dtype == NUMPY_TYPES.get(datatype, np.dtype(object))
    np.testing.assert_equal(got.tolist()[0], outcome)


ARRAYS = [
    (np.array([MORE]), "FP64", REFUSED),
    (np.array([MORE], np.uint64), "FP64", REFUSED),
    (np.array([2**63], np.uint64), "FP64", [2.0**63]),
    (np.array([2**63], np.uint64), "INT64", REFUSED),
    (np.array([-(2**63)]), "FP64", [-(2.0**63)]),
    (np.array([-1, 2**24 + 1]), "FP32", REFUSED),
    (np.array([70000], np.int32), "FP16", REFUSED),
    (np.array([0.1]), "FP32", [float(np.float32(0.1))]),
    (np.array([1e300]), "FP32", REFUSED),
    (np.array([1e4], np.longdouble) ** 1000, "FP64", REFUSED),
    (np.array(["1"]), "FP64", REFUSED),
    (np.array(["1"], STRINGS), "INT64", REFUSED),
    (np.array([b"1"]), "INT64", REFUSED),
    (np.array([True]), "FP32", [1.0]),
    (np.array([3], np.int8), "UINT8", [3]),
    (np.array([-3], np.int8), "UINT8", REFUSED),
    (np.array([5], "m8[ns]"), "INT64", REFUSED),
    (np.array([5], "M8[ns]"), "BYTES", REFUSED),
    (np.array([2.0**53 + 2]), "INT64", [2**53 + 2]),
    (np.array([np.nan]), "BOOL", REFUSED),
]


@pytest.mark.parametrize(("values", "datatype", "outcome"), ARRAYS, ids=lambda value: f"{value!r:.40}")
def test_arrays_follow_the_same_rules(values, datatype, outcome):
    if outcome is REFUSED:
        with pytest.raises(InvalidRequestError, match=r"^column 'a' is .* at row"):
            cast(values, datatype, "column 'a'")
    else:
        assert cast(values, datatype, "column 'a'").tolist() == outcome


def test_a_whole_number_that_would_be_rounded_says_what_to_do():
    with pytest.raises(InvalidRequestError) as refused:
        cast(np.array([1, MORE]), "FP64", "column 'id'")
    assert refused.value.details == (
        "column 'id' is FP64 and takes numbers, which are exact for whole numbers up to 2**53; make the column one of "
        "floats to have it rounded, got 9007199254740993 at row 1"
    )


def test_a_missing_text_is_the_text_that_the_model_declares():
    assert cast(["a", None, math.nan], "BYTES", "column 'a'", missing="?").tolist() == [b"a", b"?", b"?"]
    with pytest.raises(InvalidRequestError, match="declares none for a missing value, got None at row 1"):
        cast(["a", None], "BYTES", "column 'a'")


def test_a_value_of_a_matrix_is_named_with_its_column():
    with pytest.raises(InvalidRequestError, match="got 'x' at row 1, column 2"):
        cast([[1, 2, 3], [4, 5, "x"]], "FP32", "input 'X'")


@given(value=st.integers(-(2**70), 2**70), datatype=st.sampled_from(["FP16", "FP32", "FP64"]))
@example(value=MORE, datatype="FP64")
def test_a_whole_number_in_a_float_column_is_kept_or_refused(value, datatype):
    for values in ([value], [value, 0.5], [value, None]):
        try:
            got = cast(values, datatype, "column 'a'")
        except InvalidRequestError:
            with np.errstate(over="ignore"):
                nearest = NUMPY_TYPES[datatype].type(float(value))
            assert np.isinf(nearest) or int(nearest) != value
        else:
            assert int(got[0]) == value
