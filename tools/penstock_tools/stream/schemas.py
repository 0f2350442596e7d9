"""Avro schemas, by the files that people name or by a Schema Registry.

A message of a registry's client begins with a zero and the four bytes of its schema's number; without a registry it is
bare.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa

from penstock_server.errors import InvalidInputError, UnavailableError, first_line

MAGIC: Final = b"\x00"
HEAD_BYTES: Final = 5
Schema = Any
"""A schema as fastavro has parsed it."""


class Unreadable(Exception):  # noqa: N818 - a reason, not an error of ours
    """Why a message has no schema."""


class Schemas(Protocol):
    """Where schemas come from and go to."""

    def schema_of(self, value: bytes) -> tuple[Schema, int]:
        """The schema that a message was written with, and where its body begins; `Unreadable` if it has none."""
        ...

    def head_for(self, schema: Mapping[str, Any]) -> bytes:
        """What goes before the body of messages that are written with a schema."""
        ...


class SchemaFile:
    """One schema for all messages that are read, which are bare, and so are those that are written.

    Raises:
        InvalidInputError: the file cannot be read, or is no Avro schema.
    """

    def __init__(self, file: Path) -> None:
        try:
            self._schema = parsed(json.loads(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise InvalidInputError(f"{file} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise InvalidInputError(f"{file} is no Avro schema: {first_line(error)}") from None

    def schema_of(self, value: bytes) -> tuple[Schema, int]:  # noqa: ARG002 - one for all
        return self._schema, 0

    def head_for(self, schema: Mapping[str, Any]) -> bytes:  # noqa: ARG002 - whoever reads them has it by other ways
        return b""


class RegisteredSchemas:
    """The schemas of a Schema Registry: those of messages by their numbers, and answers' under the subject of their topic.

    Args:
        client: `confluent_kafka.schema_registry.SchemaRegistryClient`, which keeps what it has asked for.
        topic: of the answers.
    """

    def __init__(self, client: Any, topic: str) -> None:
        self._client = client
        self._subject = f"{topic}-value"
        self._known: dict[int, Schema] = {}

    def schema_of(self, value: bytes) -> tuple[Schema, int]:
        if len(value) < HEAD_BYTES or value[:1] != MAGIC:
            raise Unreadable(
                "it does not begin with a schema's number, as messages do that a Schema Registry is used for"
            )
        number = int.from_bytes(value[1:HEAD_BYTES], "big")
        if number not in self._known:
            self._known[number] = self._asked(number)
        return self._known[number], HEAD_BYTES

    def head_for(self, schema: Mapping[str, Any]) -> bytes:
        from confluent_kafka.schema_registry import Schema as RegisteredSchema
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            number = self._client.register_schema(self._subject, RegisteredSchema(json.dumps(schema), "AVRO"))
        except SchemaRegistryError as error:
            raise InvalidInputError(
                f"the Schema Registry refuses the answers' schema as {self._subject}: {first_line(error)}"
            ) from error
        except Exception as error:
            raise UnavailableError(f"the Schema Registry does not answer: {first_line(error)}") from error
        return MAGIC + int(number).to_bytes(4, "big")

    def _asked(self, number: int) -> Schema:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            found = self._client.get_schema(number)
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                raise Unreadable(f"its schema's number is {number}, which the Schema Registry does not know") from None
            raise UnavailableError(f"the Schema Registry does not answer: {first_line(error)}") from error
        except Exception as error:
            raise UnavailableError(f"the Schema Registry does not answer: {first_line(error)}") from error
        if found.schema_type != "AVRO":
            raise Unreadable(f"its schema {number} is one of {found.schema_type}, expected AVRO")
        return parsed(json.loads(found.schema_str))


def parsed(schema: Any) -> Schema:
    """A schema as fastavro takes it; `ValueError` if it is none."""
    import fastavro

    try:
        return fastavro.parse_schema(schema)
    except Exception as error:
        raise ValueError(first_line(error)) from error


def answer_schema(names: Sequence[str], types: Sequence[Any], model: str) -> dict[str, Any]:
    """The Avro schema of answers.

    Args:
        names: of the fields.
        types: Arrow types; or what Avro has already, for fields that are kept.
        model: the model's name.

    Raises:
        InvalidInputError: Avro has no such type, or no such name.
    """
    odd = next((name for name in names if not _NAME.fullmatch(name)), None)
    if odd is not None:
        raise InvalidInputError(f"an answer's field is {odd!r}, which is no name in Avro; take --format json or arrow")
    fields = [
        {"name": name, "type": _avro_type(name, kind) if isinstance(kind, pa.DataType) else kind}
        for name, kind in zip(names, types, strict=True)
    ]
    named = re.sub(r"\W", "_", model)
    return {"type": "record", "name": f"Answer_{named}", "namespace": "penstock", "fields": fields}


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPES: Final = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_float32, "float"),
    (pa.types.is_floating, "double"),
    (lambda kind: pa.types.is_integer(kind) and kind.bit_width < 32, "int"),
    (pa.types.is_int32, "int"),
    (pa.types.is_integer, "long"),
    (pa.types.is_string, "string"),
)


def _avro_type(name: str, kind: pa.DataType) -> Any:
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return {"type": "array", "items": _avro_type(name, kind.value_type)}
    found = next((avro for test, avro in _TYPES if test(kind)), None)
    if found is None:
        raise InvalidInputError(f"an answer {name!r} holds {kind}, which Avro has no type for; take --format arrow")
    return found
