import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.models import strict_json
from penstock_server.python.description import DECODER, MAX_CATEGORIES, Column, Output, encode
from tests.server.python.conftest import described

NAMES = st.text(min_size=1, max_size=8)
COLUMNS = st.builds(
    Column,
    NAMES,
    st.sampled_from(["number", "text", "time"]),
    NAMES,
    categories=st.none() | st.tuples(NAMES, st.integers(0, 9)),
)
OUTPUTS = st.builds(
    Output, NAMES, st.sampled_from(["FP64", "BYTES"]), st.just("predict"), st.none() | st.integers(1, 9)
)


@given(st.lists(COLUMNS, min_size=1, max_size=4, unique_by=lambda each: each.name), OUTPUTS)
def test_what_is_written_is_read(columns, output):
    description = described(columns=tuple(columns), outputs=(output,))
    assert strict_json.decode(encode(description), DECODER) == description


def test_columns_are_told_apart_by_what_requests_send():
    columns = (Column("a"), Column("b", "text"), Column("c", "time"), Column("d"))
    description = described(columns=columns)
    assert (description.numbers, description.times, description.strings) == (("a", "d"), ("c",), ("b",))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"columns": ()}, "there are no columns"),
        ({"outputs": ()}, "there are no outputs"),
        ({"columns": (Column("x"), Column("x"))}, "a column is named twice"),
        ({"container": "series"}, "a series has one column; there are 2"),
        ({"trusted": ("a.B",) * 5000}, "5,000 trusted types"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, reason):
    with pytest.raises(InvalidInputError, match=reason):
        described(**changes)


def test_sizes_are_bounded():
    with pytest.raises(InvalidInputError, match="categories of column 'x'"):
        Column("x", categories=tuple(range(MAX_CATEGORIES + 1)))
    with pytest.raises(InvalidInputError, match="output 'y' is 0 wide"):
        Output("y", "FP64", "predict", 0)


def test_unknown_fields_and_other_formats_are_refused():
    fields = msgspec.json.decode(encode(described()))
    for changed in ({**fields, "code": "import os"}, {**fields, "format": 2}, {**fields, "file": "../../etc/passwd"}):
        with pytest.raises(InvalidInputError):
            strict_json.decode(msgspec.json.encode(changed), DECODER)
