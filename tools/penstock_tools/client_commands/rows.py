"""Rows from a file, in a form that the client takes.

Decides how a file's rows become columns. CSV holds nothing but text, so the model's declaration says which columns are
numbers; everything else, such as a column too many, is left to the client to refuse. `asking` calls it.
"""

import csv
import io
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock_server.errors import InvalidInputError

STDIN: Final = "-"
_SUFFIXES: Final = frozenset({".json", ".csv"})
_MISSING: Final = frozenset({"", "NA", "NaN", "nan", "null"})

Table = Any
"""A dict of columns, a list of dicts, or a list of lists."""


def read(file: str, datatypes: Mapping[str, str]) -> Table:
    """The rows in a .json or .csv file, or JSON from standard input for "-".

    Args:
        file: the file's path.
        datatypes: the protocol's datatype of each column that the model declares, for CSV.

    Raises:
        InvalidInputError: no such file, another kind of file, or contents that are no rows; names the line.
    """
    if file == STDIN:
        return _from_json(sys.stdin.buffer.read(), "standard input")
    path = Path(file)
    if path.suffix not in _SUFFIXES:
        raise InvalidInputError(
            f"{file} is neither .json nor .csv; expected one of them, or - for JSON from standard input"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}") from error
    return _from_json(content, file) if path.suffix == ".json" else _from_csv(content, file, datatypes)


def _from_json(content: bytes, what: str) -> Table:
    try:
        rows = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{what} is not JSON: {error}") from error
    if not isinstance(rows, list | dict) or not rows:
        raise InvalidInputError(f"{what} holds no rows; expected a list of them, or an object of columns")
    return rows


def _from_csv(content: bytes, what: str, datatypes: Mapping[str, str]) -> Table:
    try:
        # A spreadsheet's CSV begins with a byte order mark.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{what} is not UTF-8, at byte {error.start}") from error
    header, *lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line] or [[]]
    if not header or not lines:
        raise InvalidInputError(f"{what} has {len(lines)} rows below its header; expected one at least")
    if repeated := [name for at, name in enumerate(header) if name in header[:at]]:
        raise InvalidInputError(f"{what} has column {repeated[0]!r} twice; expected each name once")
    for at, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise InvalidInputError(f"{what}, line {at} has {len(line)} fields; the header has {len(header)}")
    return {
        name: _column(name, [line[at] for line in lines], datatypes.get(name, "FP64"), what)
        for at, name in enumerate(header)
    }


def _column(name: str, fields: list[str], datatype: str, what: str) -> list[Any]:
    if datatype == "BYTES":
        return fields
    values: list[Any] = []
    for at, field in enumerate(fields, start=2):
        try:
            values.append(_number(field.strip(), datatype))
        except ValueError:
            raise InvalidInputError(
                f"{what}, line {at}: column {name!r} takes {datatype}, got {field[:40]!r}"
            ) from None
    return values


def _number(field: str, datatype: str) -> float | int | bool | None:
    if field in _MISSING:
        return None
    if datatype == "BOOL" and field.lower() in ("true", "false"):
        return field.lower() == "true"
    if datatype.startswith(("INT", "UINT")):
        return int(field)
    value = float(field)
    return int(value) if datatype == "BOOL" and math.isfinite(value) and value == int(value) else value
