"""What `penstock labels` does: shows what became of labels, and how good each version is by them."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_tools.client_commands import http
from penstock_tools.client_commands.connection import PLAIN, Encryption
from penstock_tools.formatting import safe

_PATH: Final = "/v1/labels"


def fetch(url: str, model: str = "", encryption: Encryption = PLAIN) -> Mapping[str, Any]:
    """What the server knows of labels, of one model or of all.

    Raises:
        InvalidInputError: another service answers there, or an older server.
        NotFoundError: the server takes no labels, or knows none of the model.
        UnavailableError: nothing answers there.
    """
    path = _PATH + (f"/{quote(model, safe='')}" if model else "")
    try:
        body = http.get(url.rstrip("/") + path, encryption)
    except http.StatusError as error:
        raise _not_found(error) or error from error
    try:
        answer: Mapping[str, Any] = msgspec.json.decode(body)
        answer["models"], answer["kept"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise InvalidInputError(f"the answer of {url} to {_PATH} is not that of a Penstock server") from error
    return answer


def _not_found(error: http.StatusError) -> NotFoundError | None:
    """What the server says that it does not know; None if it is not that."""
    if error.status != 404:
        return None
    try:
        return NotFoundError(msgspec.json.decode(error.body)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return None


def show(status: Mapping[str, Any]) -> None:
    """Prints each model: what became of its labels, and a line per version."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    kept = status["kept"]
    if not status["models"]:
        console.print(Text("no label of any model has come yet"))
    for model in status["models"]:
        console.print(Text(safe(model["name"]) or "models of which no answer is kept", style="bold"))
        console.print(Text(_states(model)))
        if model["versions"]:
            console.print(_versions(model["versions"]))
    console.print(
        Text(
            f"{kept['answers']:,} answers are kept in {kept['bytes'] / 1024**2:,.0f} MiB; {kept['waiting']:,} labels wait"
        )
    )
    if kept["lost"] or kept["early"]:
        text = f"{kept['lost']:,} answers found no room, {kept['early']:,} were deleted before they counted"
        console.print(Text(text, style="yellow"))


def _states(model: Mapping[str, Any]) -> str:
    states = {**model["labels"]}
    for state, count in model["labels_from_peers"].items():
        states[f"{state} of peers"] = count
    return ", ".join(f"{count:,} {state}" for state, count in states.items()) or "no labels yet"


def _versions(versions: list[Mapping[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = ("version", "rows", "accuracy", "expected", "AUC", "calibration error", "absolute error")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for version in versions:
        quality = version["quality"]
        expected, calibration = version["expected_accuracy"], quality.get("calibration_error")
        table.add_row(
            Text(safe(version["version"])),
            f"{quality['rows']:,}",
            _interval(quality.get("accuracy")),
            "" if expected is None else f"{expected:.3f}",
            _interval(quality.get("auc")),
            "" if calibration is None else f"{calibration:.3f}",
            _interval(quality.get("mean_absolute_error")),
        )
    return table


def _interval(interval: Mapping[str, float] | None) -> str:
    return "" if interval is None else f"{interval['value']:.4g} ({interval['low']:.4g} to {interval['high']:.4g})"
