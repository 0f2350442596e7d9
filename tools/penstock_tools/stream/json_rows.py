"""One row per message as a JSON object, and the answer as one.

    {"id": 7, "age": 41, "country": "DE"}  ->  {"id":7,"model_name":"churn","model_version":"3","probability":0.82}

The object has each column of the version; null is a missing value, and fields that the version does not take are ignored.
Times are texts as RFC 3339 writes them, and one without a zone is of UTC.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import pyarrow as pa

from penstock_server.errors import InvalidInputError
from penstock_tools.stream.codec import Codec, Rows, Shape, batch_of, checked_names, values_of, without

_NULL: Final = msgspec.Raw(b"null")


class JsonRows(Codec):
    """Reads and writes JSON for one version.

    Raises:
        InvalidInputError: it takes columns that JSON has no values for, or a field is kept that an answer's name hides.
    """

    def __init__(self, shape: Shape) -> None:
        self._columns = shape.columns
        self._names = [f"c{at}" for at in range(len(shape.columns))]
        self._kept = [f"k{at}" for at in range(len(shape.keep))]
        fields: list[Any] = [
            (short, _json_type(field)) for short, field in zip(self._names, shape.columns, strict=True)
        ]
        # A field that is a column too is kept by the column's value.
        at = {field.name: short for short, field in zip(self._names, shape.columns, strict=True)}
        self._kept = [at.get(name, short) for short, name in zip(self._kept, shape.keep, strict=True)]
        rename = {short: field.name for short, field in zip(self._names, shape.columns, strict=True)}
        for short, name in zip(self._kept, shape.keep, strict=True):
            if short not in rename:
                fields.append((short, msgspec.Raw, _NULL))
                rename[short] = name
        row = msgspec.defstruct("Row", fields, rename=rename, gc=False)
        self._decode = msgspec.json.Decoder(row).decode
        names = checked_names(shape)
        written = [f"f{at}" for at in range(len(names))]
        self._answer = msgspec.defstruct(
            "Answer",
            [(short, Any) for short in written],
            rename=dict(zip(written, names, strict=True)),
            gc=False,
        )
        self._encode = msgspec.json.Encoder().encode
        self._fixed = (shape.model, shape.version)

    def read(self, values: Sequence[bytes]) -> Rows:
        decode = self._decode
        unreadable: dict[int, str] = {}
        places: Sequence[int] = range(len(values))
        try:
            rows = [decode(value) for value in values]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            rows, kept_places = [], []
            for place, value in enumerate(values):
                try:
                    rows.append(decode(value))
                    kept_places.append(place)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    unreadable[place] = f"it is no row in JSON: {error}"
            places = kept_places
        batch, faults = batch_of([[getattr(row, short) for row in rows] for short in self._names], self._columns)
        if faults:
            unreadable |= {places[row]: reason for row, reason in faults.items()}
            places, rows = without(places, faults), without(rows, faults)
        kept = [[getattr(row, short) for row in rows] for short in self._kept]
        return Rows(batch, places, None, unreadable, kept)

    def write(self, rows: Rows, answered: Sequence[int], answers: pa.RecordBatch) -> list[bytes]:
        answer, encode = self._answer, self._encode
        model, version = self._fixed
        is_whole = len(answered) == len(rows.places)
        kept = rows.kept if is_whole else [[column[at] for at in answered] for column in rows.kept]
        models, versions = [model] * len(answered), [version] * len(answered)
        columns = [values_of(column) for column in answers.columns]
        return [encode(answer(*row)) for row in zip(*kept, models, versions, *columns, strict=True)]


def _json_type(field: pa.Field) -> Any:
    """The values in JSON that may become a column's."""
    kind = field.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _json_type(pa.field(field.name, kind.value_type))
        return list[inner]  # type: ignore[valid-type]  # made at run time
    if pa.types.is_floating(kind):
        return float | bool | None
    if pa.types.is_integer(kind):
        return int | bool | None
    if pa.types.is_boolean(kind):
        return bool | None
    if pa.types.is_timestamp(kind):
        return datetime | None
    if pa.types.is_string(kind):
        return str | None
    raise InvalidInputError(f"column {field.name!r} holds {kind}, which JSON has no values for; take --format arrow")
