"""Rows of Avro, by a file's schema and by those of a registry."""

import io
import json
from types import SimpleNamespace

import fastavro
import pyarrow as pa
import pytest
from confluent_kafka.schema_registry.error import SchemaRegistryError

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.stream.avro_rows import AvroRows
from penstock_tools.stream.codec import Shape
from penstock_tools.stream.schemas import RegisteredSchemas, SchemaFile, answer_schema

COLUMNS = pa.schema([("age", pa.float64()), ("city", pa.string())])
ANSWERS = pa.schema([("label", pa.int64()), ("p", pa.list_(pa.float32()))])
SCHEMA = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "age", "type": ["null", "double", "string"]},
        {"name": "city", "type": ["null", "string"]},
        {"name": "more", "type": "int", "default": 0},
    ],
}
SHAPE = Shape(COLUMNS, ANSWERS, ("id",), "churn-2", "3")


def encoded(row, head=b"", schema=SCHEMA):
    out = io.BytesIO(head)
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return out.getvalue()


def answers(rows):
    return pa.RecordBatch.from_arrays(
        [pa.array(range(rows)), pa.array([[0.5, 0.25]] * rows, pa.list_(pa.float32()))], schema=ANSWERS
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "row.avsc"
    path.write_text(json.dumps(SCHEMA))
    return path


class Registry:
    """What `SchemaRegistryClient` does, with schemas in memory."""

    def __init__(self):
        self.schemas = {5: ("AVRO", json.dumps(SCHEMA)), 6: ("JSON", "{}")}
        self.subjects = {}
        self.error = None

    def get_schema(self, number):
        if self.error is not None:
            raise self.error
        if number not in self.schemas:
            raise SchemaRegistryError(404, 40403, "Schema not found")
        kind, text = self.schemas[number]
        return SimpleNamespace(schema_type=kind, schema_str=text)

    def register_schema(self, subject, schema):
        if self.error is not None:
            raise self.error
        self.subjects[subject] = json.loads(schema.schema_str)
        return 77


def test_reads_bare_records_by_a_file_and_writes_bare_answers(file):
    codec = AvroRows(SHAPE, SchemaFile(file))
    rows = codec.read([encoded({"id": 1, "age": 40.5, "city": "Oslo"}), encoded({"id": 2, "age": None, "city": None})])
    assert rows.batch.to_pydict() == {"age": [40.5, None], "city": ["Oslo", None]}
    found = codec.write(rows, [0, 1], answers(2))
    types = ["long", pa.string(), pa.string(), *ANSWERS.types]
    schema = answer_schema(["id", "model_name", "model_version", "label", "p"], types, "churn-2")
    read = [fastavro.schemaless_reader(io.BytesIO(value), fastavro.parse_schema(schema)) for value in found]
    assert read[1] == {"id": 2, "model_name": "churn-2", "model_version": "3", "label": 1, "p": [0.5, 0.25]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "does not follow its Avro schema"),
        (encoded({"id": 1, "age": 1.0, "city": None}) + b"x", "bytes are left over"),
        (encoded({"id": 1, "age": "old", "city": None}), "column 'age' is old"),
    ],
)
def test_says_why_a_message_is_no_row(file, value, reason):
    rows = AvroRows(SHAPE, SchemaFile(file)).read([value, encoded({"id": 3, "age": 2.0, "city": "Rome"})])
    assert reason in rows.unreadable[0]
    assert rows.batch.to_pydict() == {"age": [2.0], "city": ["Rome"]}
    assert (list(rows.places), rows.kept) == ([1], [[3]])


def test_takes_schemas_from_a_registry_and_registers_the_answers():
    registry = Registry()
    codec = AvroRows(SHAPE, RegisteredSchemas(registry, "answers"))
    head = b"\0" + (5).to_bytes(4, "big")
    row = {"id": 9, "age": 1.0, "city": "Bern"}
    values = [encoded(row, head), encoded(row), encoded(row, b"\0\0\0\0\4"), encoded(row, b"\0\0\0\0\6")]
    rows = codec.read(values)
    assert list(rows.places) == [0]
    assert "schema's number" in rows.unreadable[1]
    assert "does not know" in rows.unreadable[2]
    assert "expected AVRO" in rows.unreadable[3]
    (found,) = codec.write(rows, [0], answers(1))
    assert found[:5] == b"\0" + (77).to_bytes(4, "big")
    schema = registry.subjects["answers-value"]
    assert schema["name"] == "Answer_churn_2"
    assert fastavro.schemaless_reader(io.BytesIO(found[5:]), fastavro.parse_schema(schema))["id"] == 9


def test_a_registry_that_is_away_is_no_fault_of_the_message():
    registry = Registry()
    registry.error = OSError("connection refused")
    codec = AvroRows(SHAPE, RegisteredSchemas(registry, "answers"))
    with pytest.raises(UnavailableError, match="Schema Registry does not answer"):
        codec.read([encoded({"id": 9, "age": 1.0, "city": "Bern"}, b"\0\0\0\0\5")])


def test_says_what_a_schema_cannot_be(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot be read"):
        SchemaFile(tmp_path / "none.avsc")
    (tmp_path / "odd.avsc").write_text('{"type": "nothing"}')
    with pytest.raises(InvalidInputError, match="no Avro schema"):
        SchemaFile(tmp_path / "odd.avsc")
    with pytest.raises(InvalidInputError, match="no name in Avro"):
        answer_schema(["a b"], [pa.string()], "m")
    with pytest.raises(InvalidInputError, match="no type for"):
        answer_schema(["a"], [pa.binary()], "m")
