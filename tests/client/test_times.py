import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest

from penstock_client.errors import InvalidRequestError
from penstock_client.metadata import TensorSpec
from penstock_client.rows import table_of
from penstock_client.tensors import arrange
from penstock_client.times import MISSING, nanoseconds

NOON = 1772368215123456000
AT = dt.datetime(2026, 3, 1, 12, 30, 15, 123456)  # noqa: DTZ001 - a time without a zone is tested
INDIA = dt.timezone(dt.timedelta(hours=5, minutes=30))
SERIES = pd.Series(pd.to_datetime([AT, None]))

TIMES = {
    "numpy": np.array([AT, "NaT"], "M8[us]"),
    "datetimes": [AT, None],
    "of a zone": [AT.replace(tzinfo=dt.UTC).astimezone(INDIA), None],
    "ISO texts": ["2026-03-01T12:30:15.123456", None],
    "ISO texts of a zone": ["2026-03-01T18:00:15.123456+05:30", None],
    "nanoseconds": [NOON, None],
    "pandas": SERIES,
    "pandas, of a zone": SERIES.dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata"),
    "pandas, objects": SERIES.astype(object),
    "polars": pl.Series([AT, None]),
    "polars, of a zone": pl.Series([AT, None]).dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Kolkata"),
}


@pytest.mark.parametrize("column", TIMES.values(), ids=TIMES)
def test_times_are_sent_as_nanoseconds(column):
    (tensor,) = arrange(table_of({"at": column}), (TensorSpec("at", "INT64", (-1, 1), time="ns"),)).tensors
    assert (tensor.datatype, tensor.values.dtype) == ("INT64", np.int64)
    assert tensor.values.ravel().tolist() == [NOON, MISSING]


def test_nanoseconds_of_pandas_and_whole_days_are_kept():
    exact = pd.Timestamp("2026-03-01 12:30:15.123456789")
    assert nanoseconds([exact, exact.tz_localize("UTC"), dt.date(1970, 1, 2)], "it").tolist() == [
        1772368215123456789,
        1772368215123456789,
        86400 * 10**9,
    ]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["yesterday"], "got 'yesterday' at row 0"),
        ([AT, 1.5], "got 1.5 at row 1"),
        ([True], "got True at row 0"),
        ([dt.datetime(2300, 1, 1, tzinfo=dt.UTC)], "got datetime.datetime(2300, 1, 1, 0, 0"),
        (np.array(["1500-01-01"], "M8[D]"), "got np.datetime64('1500-01-01') at row 0"),
        ([np.datetime64("1500-01-01")], "at row 0"),
    ],
)
def test_what_is_no_time_is_refused_with_its_row(values, shown):
    with pytest.raises(InvalidRequestError) as refused:
        nanoseconds(values, "column 'at'")
    assert str(refused.value).startswith("column 'at' takes times between 1677 and 2262, as datetimes")
    assert shown in str(refused.value)
