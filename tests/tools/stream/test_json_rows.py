"""Rows of JSON, and answers as JSON."""

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_tools.stream.codec import Shape
from penstock_tools.stream.json_rows import JsonRows

COLUMNS = pa.schema(
    [
        ("age", pa.float64()),
        ("count", pa.int64()),
        ("city", pa.string()),
        ("at", pa.timestamp("ns", "UTC")),
        ("near", pa.list_(pa.float64(), 2)),
    ]
)
ANSWERS = pa.schema([("label", pa.int64()), ("score", pa.float64())])
ROW = {"id": 7, "age": 1.5, "count": 2, "city": "Oslo", "at": "2026-01-02T03:04:05Z", "near": [1, 2.5]}


def codec(*, keep=("id",), columns=COLUMNS, answers=ANSWERS):
    return JsonRows(Shape(columns, answers, keep, "churn", "3"))


def text(**changes):
    return json.dumps({**ROW, **changes}).encode()


def test_reads_what_columns_hold():
    rows = codec().read([text(), text(age=None, city=None, at=None), text(age=3, count=True)])
    assert not rows.unreadable
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert rows.batch.column("age").to_pylist() == [1.5, None, 3.0]
    assert rows.batch.column("count").to_pylist() == [2, 2, 1]
    assert rows.batch.column("city").to_pylist() == ["Oslo", None, "Oslo"]
    assert [None if each is None else each.timestamp() for each in rows.batch.column("at").to_pylist()] == [
        at.timestamp(),
        None,
        at.timestamp(),
    ]
    assert rows.batch.column("near").to_pylist() == [[1.0, 2.5]] * 3


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "no row in JSON"),
        (b"\xff", "no row in JSON"),
        (b"[1]", "Expected `object`, got `array`"),
        (b"{}{}", "no row in JSON"),
        (text()[:-1] + b',"age": 2', "no row in JSON"),
        (
            json.dumps({name: value for name, value in ROW.items() if name != "age"}).encode(),
            "missing required field `age`",
        ),
        (text(age="old"), r"got `str` - at `\$.age`"),
        (text(city=4), r"got `int` - at `\$.city`"),
        (text(at="yesterday"), "at `"),
        (text(near=[1]), "column 'near' is"),
        (text(count=2**70), "column 'count' is|Integer value out of range"),
    ],
)
def test_says_why_a_message_is_no_row_and_reads_the_others(value, reason):
    rows = codec().read([text(), value, text(age=4)])
    assert list(rows.places) == [0, 2]
    assert list(rows.unreadable) == [1]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(rows.unreadable[1])
    assert rows.batch.column("age").to_pylist() == [1.5, 4.0]


@given(
    st.lists(
        st.one_of(st.just(text()), st.binary(max_size=9), st.just(text(age="x")), st.just(text(near=[]))),
        max_size=12,
    )
)
def test_each_message_is_read_or_told_of(values):
    rows = codec().read(values)
    assert sorted([*rows.places, *rows.unreadable]) == list(range(len(values)))
    assert rows.batch.num_rows == len(rows.places)
    good = [at for at, value in enumerate(values) if value == text()]
    assert list(rows.places) == good


def test_writes_what_was_kept_the_version_and_its_answers():
    one = codec(keep=("id", "age", "what"))
    rows = one.read([text(id={"deep": [1]}, what=None), text(id="b"), text()])
    answers = pa.RecordBatch.from_arrays([pa.array([0, 1]), pa.array([0.25, 0.75])], schema=ANSWERS)
    first, second = one.write(rows, [0, 2], answers)
    own = {"age": 1.5, "what": None, "model_name": "churn", "model_version": "3"}
    assert json.loads(first) == {"id": {"deep": [1]}, **own, "label": 0, "score": 0.25}
    assert json.loads(second) == {"id": 7, **own, "label": 1, "score": 0.75}


def test_refuses_what_cannot_be_written():
    with pytest.raises(InvalidInputError, match="'score' twice"):
        codec(keep=("score",))
    with pytest.raises(InvalidInputError, match="column 'raw' holds binary"):
        codec(columns=pa.schema([("raw", pa.binary())]))
