"""What the scenarios found: a table for people, a record for machines."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.faults.number import Found, Number, Target, shown


def show(console: Console, found: Iterable[Found], targets: Sequence[Target]) -> None:
    """Prints a table of every number beside its target, then the details of each scenario."""
    found = list(found)
    bounds = {(target.scenario, target.number): target for target in targets}
    table = Table(title="Faults", title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading in ("scenario", "number"):
        table.add_column(heading)
    for heading in ("value", "target", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for one in found:
        for at, number in enumerate(one.numbers):
            target = bounds.get((one.scenario, number.name))
            bound = "" if target is None else str(target)
            name = one.scenario if at == 0 else ""
            table.add_row(name, number.name, shown(number.value), bound, _verdict(number, target), number.note)
        if one.failure:
            table.add_row(
                "" if one.numbers else one.scenario, "not measured to its end", "", "", "[red]FAILS", one.failure
            )
        table.add_section()
    console.print(table)
    for one in found:
        if one.details:
            console.print(f"{one.scenario}, {one.lasted_s:.0f} s:")
            for line in one.details:
                console.print(f"  {line}", markup=False, highlight=False)


def record(found: Iterable[Found], targets: Sequence[Target]) -> list[dict[str, Any]]:
    """The numbers as JSON's types, each with its target and whether it holds."""
    bounds = {(target.scenario, target.number): target for target in targets}
    records = []
    for one in found:
        numbers = []
        for number in one.numbers:
            target = bounds.get((one.scenario, number.name))
            bound = None if target is None else {"is": str(target), "holds": target.holds(number.value)}
            numbers.append(asdict(number) | {"target": bound})
        records.append(asdict(one) | {"numbers": numbers})
    return records


def _verdict(number: Number, target: Target | None) -> str:
    if target is None:
        return ""
    return "[green]holds" if target.holds(number.value) else "[red]FAILS"
