"""`python -m bench.judges [--quick] [--write]`: simulates hours of canaries, good ones and faulty ones, and lets judges
look on.

Penstock's rules stand beside those of Argo Rollouts, Flagger, Kayenta, SageMaker and a z-test that is repeated, each
written anew from its documents. For each kind of hour: how often a good version is rolled back, whether and how soon a
faulty one is, and how many requests met the fault. The exit status is 1 if Penstock rolls back more good versions than it
promises.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.judges import picture, table
from bench.judges.table import Found, Outcome
from bench.judges.worlds import WORLDS

_ROOM: Final = Path(__file__).parent
README: Final = _ROOM / "README.md"
PICTURE: Final = _ROOM.parent.parent / ".github" / "images" / "judges.svg"
_BEGIN: Final = "<!-- generated: python -m bench.judges --write -->"
_END: Final = "<!-- end -->"
_PROMISES: Final = ("Penstock, every error", "Penstock")
"""The second counts what the router draws, so that its promise holds in every world; the first where nothing repeats."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulates and prints; returns 1 if a promise does not hold."""
    options = _parser().parse_args(arguments)
    worlds = [world for world in WORLDS if options.world in (None, world.name)]
    runs = 200 if options.quick else options.runs
    found = _simulated(worlds, runs, options.seed)
    text = table.markdown(found) if len(worlds) > 1 else _one(found[0])
    console = Console()
    console.print(Markdown(text)) if console.is_terminal else print(text)
    if options.write:
        README.write_text(with_tables(README.read_text(), text))
        picture.draw(found, PICTURE)
    broken = broken_promises(found)
    for one in broken:
        print(f"{one.world}: {one.judge} rolls back {one.false:.1%} of good versions", file=sys.stderr)
    return 1 if broken else 0


def broken_promises(found: Sequence[Outcome]) -> list[Found]:
    """What rolls back more good versions than it may."""
    return [
        one
        for each in found
        for one in each.judges
        if one.judge in _PROMISES[each.world.is_repeating :] and not one.is_within_alpha
    ]


def with_tables(page: str, text: str) -> str:
    """The page with new tables between its marks."""
    before, rest = page.split(_BEGIN)
    return f"{before}{_BEGIN}\n\n{text}\n{_END}{rest.split(_END)[1]}"


def _simulated(worlds: Sequence[table.World], runs: int, seed: int) -> list[Outcome]:
    columns = (TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(worlds) * -(-runs // table.PART))
        return list(
            table.outcomes(worlds, runs, seed, on_part=lambda name: progress.update(task, advance=1, description=name))
        )


def _one(outcome: Outcome) -> str:
    lines = [f"{outcome.world.name}: {outcome.world.text}", ""]
    for each in outcome.judges:
        seen = (
            ""
            if each.seen is None
            else f", seen {each.seen:.1%} after {each.minutes:g} min, met by {each.met or 0:.2%}"
        )
        lines.append(f"- {each.judge}: rolled back without a fault {each.false:.1%}{seen}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.judges",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["worlds:", *(f"  {world.name:22}{world.text}" for world in WORLDS)]),
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="200 hours of each kind instead of 2,000; takes half a minute")
    add("--runs", type=int, default=2000, metavar="N", help="hours of each kind (default: 2,000; about five minutes)")
    add("--seed", type=int, default=0, metavar="N", help="of the simulation; the same seed gives the same tables")
    add("--world", choices=[world.name for world in WORLDS], metavar="WORLD", help="only this kind of hour")
    add("--write", action="store_true", help=f"write the tables into {README.name} and draw {PICTURE.name}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
