"""What a file about features may ask for at most, and the checks that its parts share.

Everything here raises `ValueError` with half a sentence; msgspec adds the path when it decodes, and `failure` makes one
sentence of both. `steps`, `spec` and `baseline` call it.
"""

import re
from math import isfinite
from typing import Final

import msgspec

from penstock_server.errors import InvalidInputError

MAX_BYTES: Final = 16 << 20
MAX_COLUMNS: Final = 4096
MAX_STEPS: Final = 32
MAX_EDGES: Final = 4096
MAX_CATEGORIES: Final = 65536
MAX_WIDTH: Final = 65536
MAX_NAME: Final = 256
MAX_CATEGORY_BYTES: Final = 1024
MAX_COUNT: Final = 2**53

_PLACE = re.compile(r"`\$\.columns\[(\d+)\](?:\.steps\[(\d+)\])?")


def finite(struct: msgspec.Struct, field: str) -> float:
    """The number in `field`, set to a plain float there, so that equal structs encode alike."""
    value = float(getattr(struct, field)) + 0.0
    if not isfinite(value):
        raise ValueError(f"{field} is {value}, expected a finite number")
    msgspec.structs.force_setattr(struct, field, value)
    return value


def increasing(struct: msgspec.Struct, field: str) -> None:
    """Demands finite numbers that strictly increase, and sets them to plain floats."""
    values = tuple(float(value) + 0.0 for value in getattr(struct, field))
    at_most(f"{field}", len(values), MAX_EDGES)
    for at, value in enumerate(values):
        if not isfinite(value):
            raise ValueError(f"{field}[{at}] is {value}, expected a finite number")
        if at and value <= values[at - 1]:
            raise ValueError(f"{field}[{at}] is {value} after {values[at - 1]}, expected them to increase")
    msgspec.structs.force_setattr(struct, field, values)


def at_most(what: str, count: int, limit: int) -> None:
    """Demands that there are no more than `limit` of them."""
    if count > limit:
        raise ValueError(f"{count} {what}, expected at most {limit}")


def distinct(what: str, values: tuple[str, ...]) -> None:
    """Demands that no value is there twice."""
    if len(set(values)) < len(values):
        twice = next(value for at, value in enumerate(values) if value in values[:at])
        raise ValueError(f"{what} {twice!r} is there twice")


def name(value: str) -> None:
    """Demands a column's name that people and labels can carry."""
    if not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ValueError(f"name {value[:MAX_NAME]!r}, expected 1 to {MAX_NAME} printable characters")


def utf8(what: str, value: str, limit: int) -> bytes:
    """The text as UTF-8, no longer than `limit` bytes."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} {value!r} has no form in UTF-8") from None
    if len(data) > limit:
        raise ValueError(f"{what} {value[:40]!r}... takes {len(data)} bytes, expected at most {limit}")
    return data


def failure(what: str, error: Exception, data: bytes) -> InvalidInputError:
    """The error of decoding `data`, naming the column and the step that its path points into."""
    return InvalidInputError(f"the {what} is refused: {_place(error, data)}{error}")


def _place(error: Exception, data: bytes) -> str:
    found = _PLACE.search(str(error))
    if not found:
        return ""
    try:
        column = msgspec.json.decode(data)["columns"][int(found[1])]
        place = f"column {column['name']!r}, "
        return f"{place}step {found[2]} ({column['steps'][int(found[2])]['step']}), " if found[2] else place
    except (LookupError, TypeError, ValueError, RecursionError):
        # What does not decode may not have the form that the path speaks of either.
        return ""
