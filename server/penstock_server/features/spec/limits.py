"""The limits of a specification or baseline file, and the checks that their parts share.

The checks raise a `ValueError`. When msgspec decodes a file it adds the path, and `failure` turns both into one
sentence. The steps, blocks and encoders, `spec` and `drift.baseline` use the checks.
"""

import re
from collections import Counter
from collections.abc import Sequence
from math import isfinite, isnan
from typing import Any, Final

import msgspec

from penstock_server.errors import InvalidInputError

MAX_BYTES: Final = 64 << 20
"""Of a file: a vocabulary of 200,000 grams with the coefficients of twenty classes takes 40 MiB."""
MAX_YAML_BYTES: Final = 1 << 20
"""The parser takes seconds for a megabyte, and hand-written files are small."""
MAX_COLUMNS: Final = 4096
MAX_STEPS: Final = 32
MAX_EDGES: Final = 4096
MAX_CATEGORIES: Final = 65536
MAX_WIDTH: Final = 65536
MAX_DEPTH: Final = 8
MAX_DEGREE: Final = 16
MAX_SPLINE_DEGREE: Final = 7
MAX_NAME: Final = 256
MAX_CATEGORY_BYTES: Final = 1024
MAX_TERMS: Final = 1 << 20
MAX_TERM_BYTES: Final = (1 << 16) - 1
MAX_TERMS_BYTES: Final = 32 << 20
MAX_GRAM: Final = 32
MAX_COUNT: Final = 2**53

Real = float | None
"""A number that may be NaN, written as None since JSON has no NaN."""

_PATH = re.compile(r"`\$\.([^`]+)`")
_PART = re.compile(r"(\w+)(?:\[(\d+)\])?")


def finite(struct: msgspec.Struct, field: str) -> float:
    """The number in `field`, set to a plain float there, so that equal structs encode alike."""
    value = _finite(field, getattr(struct, field))
    msgspec.structs.force_setattr(struct, field, value)
    return value


def finite_each(struct: msgspec.Struct, field: str) -> tuple[float, ...]:
    """The numbers in `field`, at least one, set to plain floats there."""
    values = tuple(_finite(f"{field}[{at}]", value) for at, value in enumerate(some(struct, field)))
    msgspec.structs.force_setattr(struct, field, values)
    return values


def real(struct: msgspec.Struct, field: str) -> Real:
    """The number in `field`, finite or NaN, which becomes None there."""
    value = real_of(field, getattr(struct, field))
    msgspec.structs.force_setattr(struct, field, value)
    return value


def real_each(struct: msgspec.Struct, field: str) -> tuple[Real, ...]:
    """The numbers in `field`, at least one, finite or NaN, which becomes None there."""
    values = tuple(real_of(f"{field}[{at}]", value) for at, value in enumerate(some(struct, field)))
    msgspec.structs.force_setattr(struct, field, values)
    return values


def real_of(what: str, value: Real) -> Real:
    """A finite number as a plain float, NaN as None."""
    return None if value is None or isnan(value) else _finite(what, value)


def some(struct: msgspec.Struct, field: str) -> tuple[Any, ...]:
    """What is in `field`, a tuple that is not empty."""
    values = tuple(getattr(struct, field))
    if not values:
        raise ValueError(f"{field} is empty, expected one for each column, or one for all")
    return values


def _finite(what: str, value: float) -> float:
    plain = float(value) + 0.0
    if not isfinite(plain):
        raise ValueError(f"{what} is {plain}, expected a finite number")
    return plain


def increasing(struct: msgspec.Struct, field: str) -> None:
    """Checks that the numbers are finite and strictly increase, and sets them to plain floats."""
    msgspec.structs.force_setattr(struct, field, increasing_of(field, getattr(struct, field)))


def increasing_of(what: str, given: Sequence[float], *, strictly: bool = True) -> tuple[float, ...]:
    """Finite numbers that increase, as plain floats; not `strictly` allows equal neighbours."""
    at_most(what, len(given), MAX_EDGES)
    values = tuple(_finite(f"{what}[{at}]", value) for at, value in enumerate(given))
    for at in range(1, len(values)):
        if values[at] < values[at - 1] or (strictly and values[at] == values[at - 1]):
            raise ValueError(f"{what}[{at}] is {values[at]} after {values[at - 1]}, expected them to increase")
    return values


def at_most(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise ValueError(f"{count} {what}, expected at most {limit}")


def between(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{what} is {value}, expected {low} to {high}")


def distinct(what: str, values: tuple[str, ...]) -> None:
    if len(set(values)) < len(values):
        twice = Counter(values).most_common(1)[0][0]
        raise ValueError(f"{what} {twice!r} appears twice, expected it once")


def name(value: str) -> None:
    """Checks that a column's name is printable and short enough for labels."""
    if not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ValueError(f"name {value[:MAX_NAME]!r}, expected 1 to {MAX_NAME} printable characters")


def utf8(what: str, value: str, limit: int) -> bytes:
    """The text as UTF-8, no longer than `limit` bytes."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} {value!r} cannot be written as UTF-8") from None
    if len(data) > limit:
        raise ValueError(f"{what} {value[:40]!r}... takes {len(data)} bytes, expected at most {limit}")
    return data


def failure(what: str, error: Exception, data: object) -> InvalidInputError:
    """The error of decoding `data`, JSON bytes or a tree from YAML; it names the column, block and step at msgspec's path."""
    return InvalidInputError(f"the {what} is refused: {_place(error, data)}{error}")


def _place(error: Exception, data: object) -> str:
    found = _PATH.search(str(error))
    if not found:
        return ""
    try:
        node: Any = msgspec.json.decode(data) if isinstance(data, bytes) else data
        parts: list[str] = []
        pending: list[str] = []
        for field, index in _PART.findall(found[1]):
            node = node[field][int(index)] if index else node[field]
            # A block is named only in errors of its parts: an error of the whole block names it already.
            parts += pending
            pending = _block(node)
            parts += _column_or_step(index, node)
    except (LookupError, TypeError, ValueError, RecursionError):
        # Data that does not decode may not have the structure that the path assumes.
        return ""
    return "".join(f"{part}, " for part in parts)


def _column_or_step(index: str, node: Any) -> list[str]:
    """The name of a column or a step, for an error; nothing for other nodes."""
    if isinstance(node, dict) and "name" in node:
        return [f"column {node['name']!r}"]
    if isinstance(node, dict) and "step" in node:
        return [f"step {index} ({node['step']})"]
    return []


def _block(node: Any) -> list[str]:
    """The name of a block with columns of its own, for an error."""
    if not isinstance(node, dict) or "block" not in node:
        return []
    columns = [node["column"]] if "column" in node else node.get("columns", [])
    return [f"the block of {listed(columns)}"] if columns else []


def listed(names: Sequence[object]) -> str:
    """Names for an error: the first three, and how many there are."""
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{shown}, ... ({len(names)} columns)" if len(names) > 3 else shown
