"""What `penstock predict` does: reads rows from a file, gets their predictions from a server, and shows them.

CSV holds only text, so the model's metadata say which columns are numbers. The client checks everything else, such as the
columns' names. It needs no library but the client's own, so that it runs where only the client is installed.
"""

import csv
import decimal
import io
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.names import ROLES, did_you_mean
from penstock_client import Attributions, Client, ModelMetadata, ModelNotFoundError, PenstockClientError, Prediction
from penstock_client.tensors import Extra
from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_tools.client_commands.connection import PLAIN, Encryption, connected
from penstock_tools.formatting import safe

SHOWN_ROWS: Final = 50
EXPLAINED_ROWS: Final = 5
EXPLAINED_OUTPUTS: Final = 5
EXPLAINED_COLUMNS: Final = 10
BAR: Final = 12
_LONGEST_NAME: Final = 40
_LONGEST_CELL: Final = 200

Datatypes = Callable[[str], str | None]
"""The datatype of a column, by its name; None for one that the model does not take."""


def predict(
    model: str,
    file: str,
    *,
    server: str,
    encryption: Encryption = PLAIN,
    version: str = "",
    key: str | None = None,
    extra: Extra = "ignore",
    explain: bool = False,
    timeout_s: float = 10.0,
) -> Prediction:
    """The model's prediction for the rows in a file.

    Args:
        model: its name.
        file: a .json or .csv file, or "-" for JSON from standard input.
        server: the server's address, as host:port.
        encryption: how the connection is encrypted.
        version: a version or an alias such as "@canary"; empty leaves it to the server.
        key: the routing key.
        extra: whether columns that the model does not take are left out or refused.
        explain: asks for attributions too.
        timeout_s: seconds until it gives up.

    Raises:
        InvalidInputError: the file holds no rows, or an option is out of its range.
        UnavailableError: nothing answers at that address.
        NotFoundError: the server has no such model or version; names the one that may be meant.
        PenstockClientError: the rows do not fit the model, or the server refuses them.
    """
    with connected(server, encryption, timeout_s=timeout_s) as client:
        try:
            declared = client.metadata(model, version)
        except ModelNotFoundError as error:
            raise _not_found(client, model, version, error) from error
        table = read_rows(file, _datatype_of(declared))
        return client.predict(model, table, version=version, routing_key=key, extra=extra, explain=explain)


def _not_found(client: Client, model: str, version: str, error: ModelNotFoundError) -> NotFoundError:
    """The server's own sentence, and the name that may be meant."""
    try:
        index = client.index()
    except PenstockClientError:
        return NotFoundError(str(error))
    versions = [f"@{role}" for role in ROLES] + [one.version for one in index if one.name == model]
    known = {one.name for one in index}
    if model in known:
        return NotFoundError(f"{error}{did_you_mean(version, versions)}")
    return NotFoundError(f"{error}{did_you_mean(model, known)}")


def as_json(prediction: Prediction) -> str:
    """The outputs by name as nested lists, and which version gave them, as one line; NaN is null."""
    outputs = {name: _plain(array) for name, array in prediction.items()}
    answer = {
        "model": prediction.model,
        "version": prediction.version,
        "role": prediction.role,
        "outputs": outputs,
    }
    if (found := prediction.attributions) is not None:
        answer["attributions"] = {
            "of": found.of,
            "method": found.method,
            "classes": found.classes,
            "base": _plain(found.base),
            "columns": found.columns,
            "values": _plain(found.values),
        }
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def show(prediction: Prediction) -> None:
    """Prints a table of the predictions, and a line on which version answered and how fast."""
    rows = min((len(array) for array in prediction.values() if array.ndim), default=0)
    table = [["row", *prediction]]
    table += [
        [str(row), *(safe(_cell(array[row]), _LONGEST_CELL) for array in prediction.values())]
        for row in range(min(rows, SHOWN_ROWS))
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
    if rows > SHOWN_ROWS:
        lines.append(f"... and {rows - SHOWN_ROWS} more rows; --json prints all")
    role = f" ({prediction.role})" if prediction.role else ""
    took_ms = prediction.timing.round_trip_s * 1e3
    lines.append(f"{prediction.model} version {prediction.version}{role}, {rows} rows in {took_ms:.1f} ms")
    if prediction.attributions is not None:
        lines += _explained(prediction.attributions)
    sys.stdout.write("\n".join(lines) + "\n")


def _explained(found: Attributions) -> list[str]:
    """For the first rows the columns that moved the answer most, each with a bar from the middle to its side."""
    lines: list[str] = []
    outputs = found.values.shape[2] if found.values.ndim == 3 else 1
    for row in range(min(len(found.values), EXPLAINED_ROWS)):
        for output in range(min(outputs, EXPLAINED_OUTPUTS)):
            label = f" of {safe(found.classes[output])}" if output < len(found.classes) else ""
            top = found.top(row, EXPLAINED_COLUMNS, output=output)
            total = float(
                found.base[output] + (found.values[row] if outputs == 1 else found.values[row, :, output]).sum()
            )
            moved = f"{total - found.base[output]:+.4g} from {found.base[output]:.4g}"
            lines += ["", f"row {row}: {safe(found.of)}{label} is {total:.4g}, {moved}"]
            width = max((len(safe(name, _LONGEST_NAME)) for name, _ in top), default=0)
            largest = max((abs(value) for _, value in top), default=0.0) or 1.0
            lines += [
                f"  {safe(name, _LONGEST_NAME):{width}}  {value:+11.4g}  {_bar(value / largest)}" for name, value in top
            ]
            if len(found.columns) > len(top):
                lines.append(f"  and {len(found.columns) - len(top)} more columns; --json prints all")
    if len(found.values) > EXPLAINED_ROWS:
        lines.append(f"... and {len(found.values) - EXPLAINED_ROWS} more rows are explained; --json prints all")
    return [*lines, f"({safe(found.method)})"]


def _bar(share: float) -> str:
    """A bar to the left of the middle for what pulls down, to its right for what pushes up.

    >>> _bar(1.0), _bar(-0.5)
    ('            |############', '      ######|')
    """
    size = math.ceil(abs(share) * BAR)
    return f"{'#' * size:>{BAR}}|" if share < 0 else f"{'':{BAR}}|{'#' * size}"


def _datatype_of(declared: ModelMetadata) -> Datatypes:
    """The datatype of each column that the model declares; None for one that it does not take."""
    known = {spec.name: spec.datatype for spec in declared.inputs}
    if len(declared.inputs) == 1:
        (spec,) = declared.inputs
        known |= dict.fromkeys(spec.columns, spec.datatype)
        if not spec.columns and not spec.is_column:
            # A matrix without names: every column is one of it.
            return lambda _: spec.datatype
    # A server that declares nothing takes what comes.
    return known.get if known else lambda _: "FP64"


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
_DELIMITERS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,400}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,5})?|[+-]?inf(inity)?", re.IGNORECASE)
_MOST_FIELD: Final = 64 * 1024 * 1024

Table = Any
"""A dict of columns, a list of dicts, or a list of lists."""


def read_rows(file: str, datatype_of: Datatypes) -> Table:
    """The rows in a .json or .csv file, or JSON from standard input for "-".

    Args:
        file: the file's path.
        datatype_of: the protocol's datatype of a column, by its name, for CSV; None for one that the model does not take.

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
    return _from_json(content, file) if path.suffix == ".json" else _from_csv(content, file, datatype_of)


def _from_json(content: bytes, what: str) -> Table:
    try:
        rows = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unrepeated, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{what} is not UTF-8, at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what} is not JSON: {error}") from error
    if not isinstance(rows, list | dict) or not rows:
        raise InvalidInputError(f"{what} holds no rows; expected a list of them, or an object of columns")
    return rows


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        repeated = next(name for at, (name, _) in enumerate(pairs) if any(name == other for other, _ in pairs[:at]))
        raise ValueError(f"an object has {repeated!r} twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is beyond all floats")
    return value


def _from_csv(content: bytes, what: str, datatype_of: Datatypes) -> Table:
    try:
        # A spreadsheet's CSV begins with a byte order mark.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{what} is not UTF-8, at byte {error.start}") from error
    if "\0" in text:
        raise InvalidInputError(f"{what} is not CSV: there is a zero byte at character {text.index(chr(0))}")
    csv.field_size_limit(_MOST_FIELD)
    header: list[str] = []
    lines: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if not fields:
                continue
            if not header:
                header = fields
                _check_header(header, what)
            elif len(fields) != len(header):
                raise InvalidInputError(
                    f"{what}, line {reader.line_num} has {len(fields)} fields; the header has {len(header)}"
                )
            else:
                lines.append((reader.line_num, fields))
    except csv.Error as error:
        raise InvalidInputError(f"{what}, line {reader.line_num} is not CSV: {error}") from error
    if not lines:
        raise InvalidInputError(f"{what} has 0 rows below its header; expected one at least")
    return {
        name: _column(name, [(line, fields[at]) for line, fields in lines], datatype_of(name), what)
        for at, name in enumerate(header)
    }


def _check_header(header: list[str], what: str) -> None:
    if repeated := [name for at, name in enumerate(header) if name in header[:at]]:
        raise InvalidInputError(f"{what} has column {repeated[0]!r} twice; expected each name once")
    if len(header) == 1:
        for delimiter, word in _DELIMITERS.items():
            if delimiter in header[0]:
                raise InvalidInputError(f"{what} separates its fields by {word}; expected commas")


def _column(name: str, fields: list[tuple[int, str]], datatype: str | None, what: str) -> list[Any]:
    if datatype == "BYTES" or datatype is None:
        return [field for _, field in fields]
    values: list[Any] = []
    for line, field in fields:
        try:
            values.append(_number(field.strip(), datatype))
        except ValueError:
            raise InvalidInputError(
                f"{what}, line {line}: column {name!r} takes {datatype}, got {field[:40]!r}"
            ) from None
    return values


def _number(field: str, datatype: str) -> float | int | bool | None:
    """The number that the field is, exactly where it is a whole one; the client checks what the datatype holds."""
    if field in _MISSING:
        return None
    if datatype == "BOOL" and field.lower() in ("true", "false"):
        return field.lower() == "true"
    if _WHOLE.fullmatch(field):
        return int(field)
    if not _NUMBER.fullmatch(field):
        raise ValueError(field)
    value = float(field)
    is_infinity = field.lstrip("+-")[:1] in ("i", "I")
    if math.isinf(value) != is_infinity:
        raise ValueError(field)
    if datatype.startswith(("INT", "UINT")):
        # Spreadsheets write 1 as 1.0; a decimal keeps each digit.
        exact = decimal.Decimal(field)
        if not math.isfinite(value) or exact != int(exact):
            raise ValueError(field)
        return int(exact)
    return value
