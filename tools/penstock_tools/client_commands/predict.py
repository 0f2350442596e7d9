"""One prediction from the command line: rows from a file, a server asked, the answer laid out.

Decides what is shown of a prediction. Reading rows is `rows`'s, the call is the client library's. `penstock predict`
calls it.
"""

from typing import Any, Final

import msgspec
import numpy as np

from penstock_client import Client, ModelMetadata, Prediction, ServerUnavailableError
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.client_commands import rows as rows_of_file

SHOWN_ROWS: Final = 50


def ask(
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
        raise InvalidInputError(f"the server cannot be asked: {error}") from error
    with client:
        try:
            datatypes = _datatypes(client.metadata(model, version))
        except ServerUnavailableError as error:
            if client.is_live():
                raise  # the server is there, and says itself what is not
            raise UnavailableError(
                f"no server answers at {server}; start one with `penstock serve`, or name its address with --server"
            ) from error
        table = rows_of_file.read(file, datatypes)
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
    """Prints a table with a row for each row asked, and a line on who answered and how fast."""
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
    """Nested lists; what JSON cannot hold becomes null, and bytes that are no text lose what is not UTF-8."""
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
