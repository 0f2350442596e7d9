from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.features.table import numbers_of, row_count, seconds_of, strings_of, times_of

NAN = float("nan")


@pytest.mark.parametrize(
    "column",
    [
        [1, None, 3.5],
        [1.0, NAN, 3.5],
        np.array([1, NAN, 3.5], np.float32),
        np.array([1, None, 3.5], object),
        pd.Series([1, None, 3.5]),
        pd.Series([1, pd.NA, 3.5], dtype="Float64"),
        pl.Series([1.0, None, 3.5]),
    ],
    ids=lambda column: type(column).__module__ + str(getattr(column, "dtype", "")),
)
def test_numbers_become_float64_with_nan_where_they_are_missing(column: object) -> None:
    found = numbers_of({"x": column}, "x")  # type: ignore[dict-item]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [1, NAN, 3.5])


@pytest.mark.parametrize(
    "column",
    [
        ["a", None, "é"],
        ["a", NAN, "é"],
        [b"a", b"", "é".encode()],
        np.array(["a", "", "é"]),
        pd.Series(["a", None, "é"]),
        pd.Series(["a", None, "é"], dtype=object),
        pd.Series(["a", pd.NA, "é"], dtype="string"),
        pd.Series(["a", None, "é"], dtype="category"),
        pl.Series(["a", None, "é"]),
    ],
    ids=lambda column: type(column).__module__ + str(getattr(column, "dtype", "")),
)
def test_strings_become_utf8_and_empty_where_they_are_missing(column: object) -> None:
    assert strings_of({"x": column}, "x") == [b"a", b"", "é".encode()]  # type: ignore[dict-item]


def test_integers_booleans_and_whole_frames_are_taken() -> None:
    np.testing.assert_array_equal(numbers_of({"x": [True, False]}, "x"), [1, 0])
    np.testing.assert_array_equal(numbers_of({"x": np.array([1, 2], np.int64)}, "x"), [1, 2])
    for frame in (pd.DataFrame({"x": [1, 2], "s": ["a", None]}), pl.DataFrame({"x": [1, 2], "s": ["a", None]})):
        assert row_count(frame, ["x", "s"]) == 2  # type: ignore[arg-type]
        assert strings_of(frame, "s") == [b"a", b""]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reader", "column", "said"),
    [
        (numbers_of, ["1"], "column 'x' holds '1', expected a number"),
        (numbers_of, np.array(["1"]), "expected numbers"),
        (numbers_of, np.array(["2020-01-01"], "M8[D]"), "expected numbers"),
        (numbers_of, [[1.0]], "shape"),
        (strings_of, [1], "column 'x' holds 1, expected text"),
        (strings_of, np.array([1.5]), "expected strings"),
        (strings_of, ["\ud800"], "UTF-8"),
        (strings_of, "word", "shape"),
    ],
)
def test_what_is_not_of_the_kind_is_named(reader: object, column: object, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        reader({"x": column}, "x")  # type: ignore[operator]


def test_a_column_that_is_not_there_or_too_short_is_named() -> None:
    with pytest.raises(InvalidInputError, match="no column 'y'; it has x, z"):
        numbers_of({"x": [1], "z": [1]}, "y")
    with pytest.raises(InvalidInputError, match="column 'z' has 1 rows, expected 2 as 'x' has"):
        row_count({"x": [1, 2], "z": [1]}, ["x", "z"])


@pytest.mark.parametrize(
    "column",
    [
        np.array(["2020-02-29T13:00", "NaT"], "M8[s]"),
        pd.Series(pd.to_datetime(["2020-02-29T13:00", None])),
        pd.Series(pd.to_datetime(["2020-02-29T14:00", None])).dt.tz_localize("Europe/Berlin"),
        [datetime(2020, 2, 29, 13), None],  # noqa: DTZ001 - as people have them
        [datetime(2020, 2, 29, 14, tzinfo=timezone(timedelta(hours=1))), None],
        pl.Series([datetime(2020, 2, 29, 13), None]),  # noqa: DTZ001
        np.array([1582981200 * 10**9, -(2**63)]),
    ],
)
def test_times_become_nanoseconds_in_utc(column: object) -> None:
    found = times_of({"x": column}, "x")  # type: ignore[dict-item]
    assert found.tolist() == [1582981200 * 10**9, -(2**63)]
    np.testing.assert_array_equal(seconds_of(found), [1582981200, NAN])


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (["2020"], "column 'x' holds '2020', expected a time"),
        ([1.5, 2.5], "holds 1.5, expected a time"),
        (np.array([1.5]), "holds float64, expected times"),
        (np.array(["1600-01-01"], "M8[s]"), "holds 1600-01-01T00:00:00, expected times from 1677-09-22 to 2262-04-11"),
    ],
)
def test_what_is_no_time_is_refused(column: object, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        times_of({"x": column}, "x")  # type: ignore[dict-item]
