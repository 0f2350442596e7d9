"""What a server knows of a model's rollout and experiment, in a terminal."""

from collections.abc import Mapping
from typing import Any

from penstock_tools.formatting import safe
from penstock_tools.rollout import words
from penstock_tools.rollout.fetch import Served

_LONGEST = 300


def show(served: Served) -> None:
    """Prints it."""
    from rich.console import Console

    Console().print(drawn(served))


def drawn(served: Served) -> Any:
    """The whole as rich shows it."""
    from rich.console import Group

    parts = [] if served.rollout is None else _rollout(served.rollout)
    return Group(*parts, *([] if served.experiment is None else _experiment(served.experiment)))


def _rollout(found: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    head = f"{found['model']} version {found['version']}: {found['status'].replace('_', ' ')}"
    stage = f"{' -> '.join(found['stages'])}; now at {found['stage']}" if found["stage"] else ""
    lines = [stage, found["reason"], found["problem"], *(gate["sentence"] for gate in found["gates"])]
    history = (f"{words.moment(event['at'])} {event['text']}" for event in found["history"][-10:])
    return [
        Text(safe(head, _LONGEST), style="bold"),
        *(Text(safe(line, _LONGEST)) for line in lines if line),
        *(Text(safe(line, _LONGEST), style="dim") for line in history),
    ]


def _experiment(found: Mapping[str, Any]) -> list[Any]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "version", "weight", "got", "requests", "metric", "its", "the champion's", "between", box=box.SIMPLE_HEAD
    )
    for arm in found["arms"]:
        name = f"{safe(arm['version'])} {arm['role']}"
        first = [name, words.share(arm["weight"]), words.share(arm["exposure"]), f"{arm['requests']:,}"]
        for each in arm["comparisons"] or [None]:
            if each is None:
                table.add_row(*first)
                continue
            values = [words.metric_value(each["metric"], each[of]) for of in ("version", "champion")]
            between = words.between(each["low"], each["high"])
            table.add_row(*first, each["metric"], *values, f"{each['kind']} {between}" if between else "")
            first = [""] * 4
    head = f"{found['model']}: shared since {words.moment(found['since_s'])} UTC; {words.mismatch(found)}"
    style = "red" if found["mismatch"] >= 1 else ""
    return [Text(safe(head, _LONGEST), style=style), table, Text(words.INTERVALS, style="dim")]
