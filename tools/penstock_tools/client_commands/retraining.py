"""What `penstock retraining` does: shows what a server knows of its rules, and tries an action with an example event."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.retraining import actions
from penstock_server.retraining.event import Event, example
from penstock_server.retraining.requests import Secrets, request_of
from penstock_server.retraining.settings import ActionSettings
from penstock_server.settings import read_settings
from penstock_tools.client_commands import http
from penstock_tools.client_commands.connection import PLAIN, Encryption
from penstock_tools.formatting import safe

_PATH: Final = "/v1/retraining"
_MOST_CALLS: Final = 10
_LONGEST: Final = 200
_LOOK_S: Final = 0.1
_HIDDEN: Final = "***"
_EXAMPLE_SECRET: Final = "whsec_ZXhhbXBsZSwgbm90IHRoZSByZWFsIG9uZQ=="  # noqa: S105 - it signs what is only shown
_STYLES: Final = {"failed": "red", "sending": "yellow", "unknown": "yellow", "done": "green"}


def fetch(url: str, encryption: Encryption = PLAIN) -> Mapping[str, Any]:
    """What the server knows of retraining.

    Raises:
        InvalidInputError: another service answers there, or an older server.
        UnavailableError: nothing answers there.
    """
    body = http.get(url.rstrip("/") + _PATH, encryption)
    try:
        answer: Mapping[str, Any] = msgspec.json.decode(body)
        answer["models"], answer["enabled"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise InvalidInputError(f"the answer of {url} to {_PATH} is not that of a Penstock server") from error
    return answer


def show(status: Mapping[str, Any]) -> None:
    """Prints each rule with its reason, and the latest calls."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not status["models"]:
        console.print(Text("no rule of [retraining] is about a model that is served"))
        return
    if not status["enabled"]:
        console.print(Text("retraining.enabled is false: nothing is called for", style="yellow"))
    for model in status["models"]:
        console.print(Text(f"{safe(model['model'])} {safe(model['version'])}", style="bold"))
        console.print(_rules(model["rules"]))
        if model["calls"]:
            console.print(_calls(model["calls"][:_MOST_CALLS]))


def _rules(rules: list[Mapping[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("rule", "", "why", box=box.SIMPLE_HEAD, pad_edge=False)
    for rule in rules:
        state = "calls" if rule["calls"] else "held" if rule["met"] else ""
        why = safe(rule["reason"], _LONGEST) + (f"; {safe(rule['held'], _LONGEST)}" if rule["held"] else "")
        table.add_row(Text(safe(rule["rule"])), Text(state, style="yellow" if rule["met"] else ""), Text(why))
    return table


def _calls(calls: list[Mapping[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("called", "rule", "action", "version", "outcome", "", box=box.SIMPLE_HEAD, pad_edge=False)
    for call in calls:
        moment = datetime.fromtimestamp(call["at_s"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        texts = (Text(safe(call[name])) for name in ("rule", "action", "version"))
        outcome = Text(call["outcome"], style=_STYLES.get(call["outcome"], ""))
        table.add_row(moment, *texts, outcome, Text(safe(call["detail"], _LONGEST)))
    return table


@dataclass(frozen=True, slots=True)
class Trial:
    """An action that is tried with an example event.

    Attributes:
        name: the action's.
        action: its settings.
        event: says that it is an example.
    """

    name: str
    action: ActionSettings
    event: Event


def trial(settings: Path, name: str, model: str, version: str) -> Trial:
    """An action of a settings file with an example event.

    Raises:
        InvalidInputError: the file is not what it should be.
        NotFoundError: it has no action of this name.
    """
    known = read_settings(settings).retraining.actions
    if name not in known:
        raise NotFoundError(f"{settings} has no action {name!r}; it has {', '.join(sorted(known)) or 'none'}")
    return Trial(name, known[name], example(model, version, time.time()))


def described(tried: Trial) -> Iterator[str]:
    """What the action would do, line by line, with secrets hidden."""
    if tried.action.kind == "command":
        yield f"runs {' '.join(tried.action.command)}"
        yield f"standard input: {tried.event.to_json().decode()}"
        return
    has_token = tried.action.token_file is not None or bool(tried.action.token_env)
    shown = Secrets(_HIDDEN if has_token else "", _EXAMPLE_SECRET)
    call = request_of(tried.action, tried.event, shown, time.time())
    yield f"POST {call.url}"
    for name, value in call.headers.items():
        yield f"{name}: {f'v1,{_HIDDEN}' if name == 'webhook-signature' else value}"
    yield call.body.decode()


def run(tried: Trial) -> str:
    """Does it, and says what came of it.

    Raises:
        InvalidInputError: it was refused, a secret is missing, or a command failed.
        UnavailableError: nobody answers.
    """
    if tried.action.kind != "command":
        return f"it answers {actions.send(tried.action, tried.event, time.time())}"
    command = actions.Command(tried.action, tried.event)
    try:
        while (ended := command.poll()) is None:
            time.sleep(_LOOK_S)
    except BaseException:
        command.close()
        raise
    if not ended.is_good:
        raise InvalidInputError(f"the command of {tried.name}: {ended.detail}")
    return ended.detail
