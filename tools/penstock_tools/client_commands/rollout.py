"""Shows a rollout in a terminal."""

from math import isfinite
from typing import Any

from penstock_tools.formatting import safe

_STYLES = {"promoted": "green", "rolled_back": "red", "aborted": "red", "refused": "red", "paused": "yellow"}
_BAR = 20
_LONGEST = 300


def show(found: Any) -> None:
    """Prints a `publish.rollout.Rollout`."""
    from rich.console import Console

    Console().print(page(found))


def live() -> Any:
    """A part of the terminal that is written over."""
    from rich.live import Live

    return Live(refresh_per_second=2)


def page(found: Any) -> Any:
    """The whole as rich shows it."""
    from rich.console import Group
    from rich.text import Text

    progress = found.progress
    status = "declared; no server acts on it yet" if progress is None else progress.status.replace("_", " ")
    head = Text(f"{safe(found.name)} version {safe(found.version)}: ", style="bold")
    head.append(status, style=_STYLES.get(status.replace(" ", "_"), ""))
    parts: list[Any] = [head]
    if progress is not None:
        parts.append(Text(_stages(progress)))
        if progress.reason:
            parts.append(Text(safe(progress.reason, _LONGEST)))
    parts.append(_gates(found))
    if found.holder:
        parts.append(Text(f"the server that acts on it: {safe(found.holder)}", style="dim"))
    parts += [Text(safe(str(entry), _LONGEST), style="dim") for entry in found.history[-10:]]
    return Group(*parts)


def _stages(progress: Any) -> str:
    """The stages in a line, the present one in brackets."""
    names = [str(stage) for stage in progress.spec.stages]
    if not progress.has_ended and progress.status != "promoting":
        names[min(progress.stage, len(names) - 1)] = f"[{progress.present}]"
    return " -> ".join([*names, *(["champion"] if progress.spec.is_promoted_after else [])])


def _gates(found: Any) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("", "is worse", "is within", "with 95 %", "", box=box.SIMPLE_HEAD, pad_edge=False)
    for gate, (low, high) in found.gates:
        between = f"{low:.3g} to {high:.3g}" if isfinite(high) and isfinite(low) else ""
        what = gate.sentence.partition(": ")[2]
        table.add_row(
            gate.metric,
            Text(_bar(gate.worse), style="red" if gate.is_worse else ""),
            Text(_bar(gate.within), style="green" if gate.is_within else ""),
            between,
            Text(safe(what, _LONGEST)),
        )
    return table


def _bar(share: float) -> str:
    """How much of the evidence that is needed is there."""
    full = min(_BAR, int(share * _BAR))
    return "#" * full + "." * (_BAR - full)
