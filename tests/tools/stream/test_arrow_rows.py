"""Any number of rows per message in Arrow."""

import pyarrow as pa
import pytest

from penstock_server.rollout.plan import TrafficPlan
from penstock_tools.stream.answering import Topics, answered
from penstock_tools.stream.arrow_rows import ArrowRows
from penstock_tools.stream.codec import Shape
from penstock_tools.stream.message import Message
from tests.tools.stream.toy import ANSWERS, COLUMNS, Toy

SHAPE = Shape(COLUMNS, ANSWERS, ("id",), "toy", "1")


def stream_of(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def message(*x, **columns):
    return stream_of(pa.table({"x": pa.array(x, pa.float32()), "id": list(range(len(x))), **columns}))


def answers_of(value):
    with pa.ipc.open_stream(value) as stream:
        return stream.read_all().to_pydict()


def test_each_message_gets_as_many_answers_as_it_has_rows():
    codec = ArrowRows(SHAPE)
    rows = codec.read([message(1, 2), message(), message(3)])
    assert rows.batch.to_pydict() == {"x": [1.0, 2.0, 3.0]}
    assert [rows.message_of(row) for row in range(3)] == [0, 0, 2]
    answers = pa.RecordBatch.from_arrays([pa.array([2.0, 4.0, 6.0])], schema=ANSWERS)
    found = [answers_of(value) for value in codec.write(rows, [0, 1, 2], answers)]
    assert found[0] == {"id": [0, 1], "model_name": ["toy"] * 2, "model_version": ["1"] * 2, "double": [2.0, 4.0]}
    assert [each["double"] for each in found] == [[2.0, 4.0], [], [6.0]]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "no Arrow stream"),
        (b"\xff" * 40, "no Arrow stream"),
        (stream_of(pa.table({"x": ["a"], "id": [1]})), "of another type"),
        (stream_of(pa.table({"y": [1.0], "id": [1]})), "lacks column 'x'"),
        (stream_of(pa.table({"x": [1.0]})), "lacks column 'id'"),
    ],
)
def test_says_why_a_message_has_no_rows(value, reason):
    rows = ArrowRows(SHAPE).read([value, message(5)])
    assert reason in rows.unreadable[0]
    assert rows.places == [1]
    assert rows.batch.to_pydict() == {"x": [5.0]}


def test_a_message_with_a_bad_row_is_a_dead_letter_whole():
    values = [message(1, 2), message(3, -4, 5), message(6)]
    found = answered(
        [Message(0, at, None, value) for at, value in enumerate(values)],
        TrafficPlan("1"),
        {"1": Toy(codec=ArrowRows(SHAPE))},
        model="toy",
        topics=Topics("rows", "answers", "dead"),
        most_bytes=1 << 20,
    )
    first, second, third = found.outgoing
    assert answers_of(first.value)["double"] == [2.0, 4.0]
    assert (second.topic, second.value) == ("dead", values[1])
    assert b"row 1" in dict(second.headers)["penstock.error"]
    assert answers_of(third.value)["double"] == [12.0]
