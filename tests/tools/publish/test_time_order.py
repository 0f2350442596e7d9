import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_tools.publish.time_order import time_order, without_column
from penstock_tools.sklearn_compiler.sample import spread

UTC = dt.UTC
TIMES = {
    "days": (["2024-03-01", "2023-12-31", "2024-02-29"], [1, 2, 0]),
    "moments": (["2024-01-01T10:00:00", "2024-01-01 09:59:59.5", "2024-01-01T10:00:00.001"], [1, 0, 2]),
    "moments with zones": (["2024-01-01T10:00:00+02:00", "2024-01-01T08:30:00Z", "2024-01-01T07:00:00Z"], [2, 0, 1]),
    "days beside moments": (["2024-01-01T10:00:00", "2024-01-01", "2023-12-31T23:00:00"], [2, 1, 0]),
    "dates of Python": ([dt.date(2024, 1, 2), dt.datetime(2024, 1, 1, 5),  # noqa: DTZ001 - one without a zone is what is tried
 dt.datetime(2024, 1, 2, 1, tzinfo=UTC)], [1, 0, 2]),
    "pandas' times": (pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-03"]), [1, 0, 2]),
    "pandas' times in a zone": (pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-03"]).tz_localize("CET"), [1, 0, 2]),
    "numpy's times": (np.array(["2024-01-02", "2024-01-01", "9999-01-03"], "M8[D]"), [1, 0, 2]),
    "seconds": ([1.7e9, 1.6e9, 1.8e9], [1, 0, 2]),
    "nanoseconds": (np.array([2**62 + 1, 2**62, 2**62 + 2]), [1, 0, 2]),
    "whole numbers that may be missing": (pd.array([3, 1, 2], "Int64"), [1, 2, 0]),
    "numbers as objects": (np.array([3, 1.5, 2], object), [1, 2, 0]),

    "equal times": ([5, 5, 1, 5, 1], [2, 4, 0, 1, 3]),
}  # fmt: skip


@pytest.mark.parametrize(("times", "places"), TIMES.values(), ids=TIMES)
def test_rows_are_ordered_by_every_kind_of_time(times, places) -> None:
    frame = pd.DataFrame({"x": np.zeros(len(places)), "at": times}, index=np.arange(len(places))[::-1] * 7)
    found = time_order(frame, "at")
    assert (found.column, found.places.tolist()) == ("at", places)
    given_alone = time_order(np.zeros((len(places), 2)), times)
    assert (given_alone.column, given_alone.places.tolist()) == ("time", places)


def test_tables_of_other_kinds_have_columns_too() -> None:
    pl = pytest.importorskip("polars")
    columns = {"at": ["2024-01-02", "2024-01-01"], "x": [1, 2]}
    rows = [{"at": "2024-01-02", "x": 1}, {"at": "2024-01-01", "x": 2}]
    for sample in (columns, rows, pl.DataFrame(columns), pd.DataFrame(columns)):
        assert time_order(sample, "at").places.tolist() == [1, 0]


REFUSED = {
    "another column": ("at", "the sample has no column 'at'; it has day"),
    "nearly the column": ("dayz", "did you mean 'day'"),
    "no times": (["x", "y"], "'time' holds 'x', which is no time; expected ISO 8601"),
    "days of another form": (["2024-01-05", "05/01/2024"], "'time' holds '05/01/2024', which is no time"),
    "hours": (["10:00", "11:00"], "'time' holds '10:00'"),
    "booleans": ([True, False], "'time' holds True"),
    "lists": ([[1], [2]], "'time' holds"),
    "gaps": (["2024-01-05", None], "1 of 2 rows have no time in 'time', the first of them row 1; leave them out"),
    "gaps among numbers": ([np.nan, 2.0], "1 of 2 rows have no time in 'time', the first of them row 0"),
    "infinite numbers": ([1.0, -np.inf], "1 of 2 rows have no time"),
    "empty texts": (["", ""], "2 of 2 rows have no time"),
    "too few": ([1], "there are 1 times for 2 rows"),
}


@pytest.mark.parametrize(("times", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_time_is_refused(times, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        time_order(pd.DataFrame({"day": [1, 2]}), times)


def test_a_name_needs_named_columns() -> None:
    with pytest.raises(InvalidInputError, match="give the times themselves"):
        time_order(np.zeros((2, 2)), "at")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 40))
def test_some_of_the_rows_are_in_the_same_order(times: list[int], some: int) -> None:
    order = time_order(np.zeros((len(times), 1)), times)
    chosen = spread(len(times), some)
    found = chosen[order.among(chosen)]
    assert sorted(found) == sorted(chosen)
    assert found.tolist() == sorted(chosen.tolist(), key=lambda at: (times[at], at))
    assert order.among(np.arange(len(times))).tolist() == order.places.tolist()


class Nameless:
    n_features_in_ = 2


class Named:
    n_features_in_ = 2
    feature_names_in_ = np.array(["a", "b"])


def test_a_pipeline_without_names_does_not_get_the_times() -> None:
    frame = pd.DataFrame({"a": [1], "at": [2], "b": [3]})
    assert list(without_column(Nameless, frame, "at").columns) == ["a", "b"]
    assert list(without_column(Nameless, frame[["a", "at"]], "at").columns) == ["a", "at"]
    assert without_column(Named, frame, "at") is frame
    array = np.zeros((1, 3))
    assert without_column(Nameless, array, "time") is array
