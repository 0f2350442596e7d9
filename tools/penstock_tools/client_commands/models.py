"""What `penstock models` does: fetches what a server has loaded, and shows it: each version's wanted and served roles.

HTTP tells all of it. The index over gRPC names versions and states, for where only that port is open.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock_server.errors import InvalidInputError
from penstock_tools.client_commands import http
from penstock_tools.client_commands.connection import PLAIN, Encryption, connected
from penstock_tools.formatting import safe

_PATH: Final = "/v1/models"
_STYLES: Final = {"READY": "green", "STANDBY": "green", "LOADING": "yellow", "UNLOADING": "yellow"}

_ANY_WIDTH: Final = 10_000

Status = Mapping[str, Any]
_Versions = Mapping[tuple[str, str], list[Mapping[str, Any]]]
"""The records, of which there is one for each role, by model and version."""


def fetch(url: str, encryption: Encryption = PLAIN) -> Status:
    """The server's state: `models` and `sources`, each a list of records.

    Args:
        url: the server's HTTP address, such as http://127.0.0.1:8002.
        encryption: for https: whom to trust, and the client's certificate.

    Raises:
        InvalidInputError: it is no HTTP address, or another service answers there.
        UnavailableError: nothing answers there.
    """
    if not url.startswith(("http://", "https://")):
        raise InvalidInputError(f"--http is {url!r}; expected an address such as http://127.0.0.1:8002")
    return _decoded(http.get(url.rstrip("/") + _PATH, encryption), url)


def fetch_over_grpc(server: str, encryption: Encryption = PLAIN) -> Status:
    """The versions that the server's index names, which has no roles; raises as `connected` does."""
    with connected(server, encryption) as client:
        lines = client.index()
    return {
        "models": [
            {"name": one.name, "version": one.version, "state": one.state, "reason": one.reason} for one in lines
        ],
        "sources": [],
    }


def show(status: Status) -> None:
    """Prints a table of the versions, and a line for each that has something to say and each source that is away."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    versions = _versions(status["models"])
    if versions:
        console.print(_widest_table(versions, console))
    else:
        console.print("no models are loaded; a model is served once a version of it is champion (penstock promote)")
    for (name, version), records in versions.items():
        if reason := str(records[0].get("reason") or ""):
            console.print(Text(f"{name} {version}".rstrip() + f": {reason}", style=_style(records)))
    for source in status["sources"]:
        if source.get("reason"):
            console.print(Text(f"{source['name']} is {source['state']}: {source['reason']}", style="yellow"))


def _versions(records: list[Mapping[str, Any]]) -> _Versions:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        found.setdefault((str(record.get("name")), str(record.get("version") or "")), []).append(record)
    return found


def _widest_table(versions: _Versions, console: Any) -> Any:
    """The table with what runs each version, or without it where that leaves too little room for the rest."""
    records = [record for group in versions.values() for record in group]
    has_roles = any("role" in record for record in records)
    if any(record.get("engine") for record in records):
        table = _table(versions, has_roles=has_roles, has_engines=True)
        if console.measure(table, options=console.options.update(width=_ANY_WIDTH)).maximum <= console.width:
            return table
    return _table(versions, has_roles=has_roles, has_engines=False)


def _table(versions: _Versions, *, has_roles: bool, has_engines: bool) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    roles = ("wanted as", "serves as", "traffic") if has_roles else ()
    engines = ("engine",) if has_engines else ()
    table = Table("model", "version", *roles, "state", *engines, box=box.SIMPLE_HEAD, pad_edge=False)
    for (name, version), records in versions.items():
        serves = [str(record["role"]) for record in records if record.get("role")]
        wanted = list(map(str, records[0].get("wanted") or ()))
        is_settled = serves == wanted or "wanted" not in records[0]
        shown = (
            (
                Text(", ".join(wanted)),
                Text(", ".join(serves), style="" if is_settled else "yellow"),
                next((_share(record.get("weight")) for record in records if record.get("weight") is not None), ""),
            )
            if has_roles
            else ()
        )
        table.add_row(
            Text(safe(name)),
            Text(version),
            *shown,
            Text(str(records[0].get("state") or ""), style=_style(records)),
            *((Text(_engine(records[0])),) if has_engines else ()),
        )
    return table


def _engine(record: Mapping[str, Any]) -> str:
    """What runs the version, without why."""
    return safe(str(record.get("engine") or "").partition(":")[0])


def _style(records: list[Mapping[str, Any]]) -> str:
    return _STYLES.get(str(records[0].get("state") or ""), "red")


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
