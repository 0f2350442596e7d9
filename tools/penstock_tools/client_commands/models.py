"""What `penstock models` does: fetches what a server has loaded over HTTP, and shows it."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock_server.errors import InvalidInputError
from penstock_tools.client_commands import http

_PATH: Final = "/v1/models"
_STYLES: Final = {"READY": "green", "LOADING": "yellow", "UNLOADING": "yellow"}

Status = Mapping[str, Any]


def fetch(url: str) -> Status:
    """The server's state: `models` and `sources`, each a list of records.

    Args:
        url: the server's HTTP address, such as http://127.0.0.1:8002.

    Raises:
        InvalidInputError: it is no HTTP address, or another service answers there.
        UnavailableError: nothing answers there.
    """
    if not url.startswith(("http://", "https://")):
        raise InvalidInputError(f"--http is {url!r}; expected an address such as http://127.0.0.1:8002")
    return _decoded(http.get(url.rstrip("/") + _PATH), url)


def as_json(status: Status) -> str:
    """The status, indented."""
    return msgspec.json.format(msgspec.json.encode(status), indent=2).decode()


def show(status: Status) -> None:
    """Prints a table of the versions, and one line per source of models that does not answer."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if status["models"]:
        console.print(_table(status["models"]))
    else:
        console.print("no models are loaded; a model is served once a version of it is champion (penstock promote)")
    for source in status["sources"]:
        if source.get("reason"):
            console.print(Text(f"{source['name']} is {source['state']}: {source['reason']}", style="yellow"))


def _table(models: list[Mapping[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("model", "version", "role", "traffic", "state", "why")
    for model in models:
        state = str(model.get("state") or "")
        table.add_row(
            *(Text(str(model.get(field) or "")) for field in ("name", "version", "role")),
            _share(model.get("weight")),
            Text(state, style=_STYLES.get(state, "red")),
            Text(str(model.get("reason") or "")),
        )
    return table


def _share(weight: float | None) -> str:
    return "" if weight is None else f"{weight:g}%"


def _decoded(body: bytes, url: str) -> Status:
    try:
        answer: Any = msgspec.json.decode(body)
        is_known = all(isinstance(record, dict) for part in ("models", "sources") for record in answer[part])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        is_known = False
    if not is_known:
        raise InvalidInputError(
            f"the answer of {url} to {_PATH} is not that of a Penstock server; is it the --http-port of penstock?"
        )
    known: Status = answer
    return known
