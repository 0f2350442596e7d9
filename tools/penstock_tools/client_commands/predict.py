"""What `penstock predict` does: reads rows from a file, gets their predictions from a server, and shows them.

CSV holds only text, so the model's metadata say which columns are numbers. The client checks everything else, such as the
columns' names.
"""

import csv
import io
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from penstock_client import Client, ModelMetadata, Prediction, ServerUnavailableError
from penstock_server.errors import InvalidInputError, UnavailableError

SHOWN_ROWS: Final = 50


def predict(
    model: str, file: str, *, server: str, version: str = "", key: str | None = None, timeout_s: float = 10.0
) -> Prediction:
    """The model's prediction for the rows in a file.

    Args:
        model: its name.
        file: a .json or .csv file, or "-" for JSON from standard input.
        server: the server's address, as host:port.
        version: a version or an alias such as "@canary"; empty leaves it to the server.
        key: the routing key.
        timeout_s: seconds until it gives up.

    Raises:
        InvalidInputError: the file holds no rows, or an option is out of its range.
        UnavailableError: nothing answers at that address.
        PenstockClientError: the rows do not fit the model, or the server refuses them.
    """
    try:
        client = Client(server, timeout_s=timeout_s)
    except ValueError as error:
        raise InvalidInputError(f"--server is {server!r}, --timeout {timeout_s:g}: {error}") from error
    with client:
        try:
            datatypes = _datatypes(client.metadata(model, version))
        except ServerUnavailableError as error:
            if client.is_live():
                # The server answers; its own sentence says what does not.
                raise
            raise UnavailableError(
                f"no server answers at {server}; start one with `penstock serve`, or name its address with --server"
            ) from error
        table = read_rows(file, datatypes)
        return client.predict(model, table, version=version, routing_key=key)


def as_json(prediction: Prediction) -> str:
    """The outputs by name as nested lists, and which version gave them, as one line; NaN is null."""
    outputs = {name: _plain(array) for name, array in prediction.items()}
    answer = {
        "model": prediction.model,
        "version": prediction.version,
        "role": prediction.role,
        "outputs": outputs,
    }
    return msgspec.json.encode(answer).decode()


def show(prediction: Prediction) -> None:
    """Prints a table of the predictions, and a line on which version answered and how fast."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    rows = min((len(array) for array in prediction.values() if array.ndim), default=0)
    table = Table("row", *prediction)
    for row in range(min(rows, SHOWN_ROWS)):
        table.add_row(str(row), *(Text(_cell(array[row])) for array in prediction.values()))
    console.print(table)
    if rows > SHOWN_ROWS:
        console.print(f"... and {rows - SHOWN_ROWS} more rows; --json prints all")
    role = f" ({prediction.role})" if prediction.role else ""
    took_ms = prediction.timing.round_trip_s * 1e3
    console.print(Text(f"{prediction.model} version {prediction.version}{role}, {rows} rows in {took_ms:.1f} ms"))


def _datatypes(metadata: ModelMetadata) -> dict[str, str]:
    return {spec.name: spec.datatype for spec in metadata.inputs}


def _cell(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return ", ".join(map(_cell, value.tolist()))
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _plain(array: Any) -> Any:
    """Nested lists. NaN and the infinities become null; bytes that are not UTF-8 become replacement characters."""
    if array.dtype.kind == "f":
        values = array.astype(object)
        values[~np.isfinite(array)] = None
        return values.tolist()
    if array.dtype.kind == "O":
        return [
            _plain(item)
            if isinstance(item, np.ndarray)
            else item.decode("utf-8", "replace")
            if isinstance(item, bytes)
            else item
            for item in array
        ]
    return array.tolist()


STDIN: Final = "-"
_SUFFIXES: Final = frozenset({".json", ".csv"})
_MISSING: Final = frozenset({"", "NA", "NaN", "nan", "null"})

Table = Any
"""A dict of columns, a list of dicts, or a list of lists."""


def read_rows(file: str, datatypes: Mapping[str, str]) -> Table:
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
