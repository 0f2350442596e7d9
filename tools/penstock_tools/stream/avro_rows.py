"""One row per message in Avro, and the answer in Avro.

With a Schema Registry each message says by which schema it was written, and the answers' schema is registered; without one
a file has the schema. Fields that the version does not take are ignored, and null is a missing value.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from penstock_tools.stream.codec import Codec, Rows, Shape, batch_of, checked_names, values_of, without
from penstock_tools.stream.schemas import Schema, Schemas, Unreadable, answer_schema, parsed


class AvroRows(Codec):
    """Reads and writes Avro for one version.

    Raises:
        InvalidInputError: Avro has no type or no name for an answer, or the registry refuses its schema.
        UnavailableError: the registry does not answer.
    """

    def __init__(self, shape: Shape, schemas: Schemas) -> None:
        import fastavro

        self._shape = shape
        self._schemas = schemas
        self._names = checked_names(shape)
        self._read: Callable[[io.BytesIO, Schema], Any] = fastavro.schemaless_reader
        self._write: Callable[[io.BytesIO, Schema, Mapping[str, Any]], None] = fastavro.schemaless_writer
        # The answers' schema says what is kept, which only the schema of the first message tells.
        self._answers: tuple[bytes, Schema] | None = None

    def read(self, values: Sequence[bytes]) -> Rows:
        unreadable: dict[int, str] = {}
        records: list[Mapping[str, Any]] = []
        places: list[int] = []
        for place, value in enumerate(values):
            try:
                schema, start = self._schemas.schema_of(value)
                records.append(self._record(value[start:], schema))
                places.append(place)
            except Unreadable as error:
                unreadable[place] = str(error)
                continue
            if self._answers is None:
                self._answers = self._answer_schema(schema)
        columns = [[record[name] for record in records] for name in self._shape.columns.names]
        batch, faults = batch_of(columns, self._shape.columns)
        if faults:
            unreadable |= {places[row]: reason for row, reason in faults.items()}
            places, records = without(places, faults), without(records, faults)
        kept = [[record[name] for record in records] for name in self._shape.keep]
        return Rows(batch, places, None, unreadable, kept)

    def write(self, rows: Rows, answered: Sequence[int], answers: pa.RecordBatch) -> list[bytes]:
        if not answered:
            return []
        assert self._answers is not None
        head, schema = self._answers
        kept = [[column[at] for at in answered] for column in rows.kept]
        fixed = [[text] * len(answered) for text in (self._shape.model, self._shape.version)]
        columns = [*kept, *fixed, *(values_of(column) for column in answers.columns)]
        found = []
        for row in zip(*columns, strict=True):
            out = io.BytesIO()
            out.write(head)
            self._write(out, schema, dict(zip(self._names, row, strict=True)))
            found.append(out.getvalue())
        return found

    def _record(self, body: bytes, schema: Schema) -> Mapping[str, Any]:
        source = io.BytesIO(body)
        try:
            record = self._read(source, schema)
        except Exception as error:  # noqa: BLE001 - fastavro raises what its readers happen to raise
            raise Unreadable(f"it does not follow its Avro schema: {type(error).__name__} {error}"[:300]) from None
        if source.read(1):
            raise Unreadable("it does not follow its Avro schema: bytes are left over")
        if not isinstance(record, dict):
            raise Unreadable("its Avro schema is of no record, expected one with a field per column")
        lacking = [name for name in (*self._shape.columns.names, *self._shape.keep) if name not in record]
        if lacking:
            raise Unreadable(
                f"it lacks column {lacking[0]!r}; the version takes {', '.join(self._shape.columns.names)}"
            )
        return record

    def _answer_schema(self, given: Schema) -> tuple[bytes, Schema]:
        fields = {field["name"]: field["type"] for field in given["fields"]}
        kept = [fields[name] for name in self._shape.keep]
        types = [*kept, pa.string(), pa.string(), *self._shape.answers.types]
        schema = answer_schema(self._names, types, self._shape.model)
        return self._schemas.head_for(schema), parsed(schema)
