import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.blocks import TIME_PARTS
from penstock_server.features.spec.spec import FeatureSpec, Join, NumberColumn, Take, Time, TimeColumn
from tests.examples import examples
from tests.server.features.meaning import time_part

SPEC = FeatureSpec((TimeColumn("u"),), Time("u", TIME_PARTS), "FP64")
DAY_NS = 86_400 * 10**9


def parts_of(nanoseconds: np.ndarray) -> np.ndarray:
    return Pipeline(SPEC).transform({"u": nanoseconds})


def assert_are_pandas(nanoseconds: np.ndarray) -> None:
    for part, found in zip(TIME_PARTS, parts_of(nanoseconds).T, strict=True):
        np.testing.assert_array_equal(found, time_part(nanoseconds, part), err_msg=part)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=300))
@examples(50)
def test_the_parts_of_any_time_are_those_of_pandas(times: list[int]) -> None:
    assert_are_pandas(np.array(times))


def test_every_day_of_three_centuries_begins_and_ends_as_in_pandas() -> None:
    days = np.arange(-130 * 365, 170 * 365) * DAY_NS
    assert_are_pandas(np.concatenate([days, days - 1]))


def test_times_stand_beside_numbers_and_are_counted_by_their_seconds() -> None:
    columns = (NumberColumn("a"), TimeColumn("u"), NumberColumn("b"), TimeColumn("v"))
    features = Join((Take(("b", "a")), Time("v", ("year",)), Time("u", ("hour",))))
    times = {
        "u": np.array(["2020-02-29T13:00", "1969-12-31T23:59:59"], "M8[s]"),
        "v": np.array(["2021", "NaT"], "M8[ns]"),
    }
    found = Pipeline(FeatureSpec(columns, features, "FP64")).transform({"a": [1, 2], "b": [3, 4], **times})
    np.testing.assert_array_equal(found, [[3, 1, 2021, 13], [4, 2, np.nan, 23]])


def test_bytes_that_are_no_times_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="the time column 'u' holds 15 bytes, expected 2 int64s"):
        Pipeline(SPEC).run(b"", [bytes(15)], 2, np.empty((2, len(TIME_PARTS))), None)
