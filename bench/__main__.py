"""`python -m bench`: reads the command line, shows progress, prints what was found, and holds the floors in CI.

Decides the exit status: 0, 1 when a floor does not hold, 2 when nothing could be measured.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import inference, report, session
from bench import memory as growth
from bench import thresholds as floors
from bench.load.generator import LoadError
from bench.promotions import PromotionError
from bench.scenarios import FULL, QUICK, SERVERS, SUITES, Scenario
from bench.servers.measured import BASELINE, CONTESTANTS
from bench.servers.roles import ServerError
from bench.session import Order, Run

_SCENARIOS = {scenario.name: scenario for suite in SUITES.values() for scenario in suite}
_IMPOSSIBLE = (LoadError, PromotionError, ServerError, TimeoutError, inference.WrongAnswerError, ValueError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench and returns the exit status."""
    options = _parser().parse_args(arguments)
    # Unhandled, it would leave the servers behind; as an interrupt it leaves through every context.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bounds = floors.read() if options.ci else []
    try:
        found = _memory(options) if options.memory else _run(order(options, bounds))
    except _IMPOSSIBLE as error:
        Console(stderr=True).print(f"bench: {error}", style="red", markup=False)
        return 2
    console = Console()
    report.show(console, found)
    if options.json:
        report.write(found, options.json)
    missed = floors.violations(bounds, found.summaries)
    if options.ci and found.promotions and found.promotions.load.failed:
        missed.append(f"{found.promotions.load.failed} requests failed during promotions")
    for sentence in missed:
        console.print(sentence, style="red", markup=False)
    return 1 if missed else 0


def order(options: argparse.Namespace, bounds: Sequence[floors.Floor]) -> Order:
    """What the options, and in CI the floors, ask for."""
    scenarios: tuple[Scenario, ...] = SUITES[options.suite]
    names = options.scenario or list(dict.fromkeys(bound.scenario for bound in bounds))
    if names:
        scenarios = tuple(_SCENARIOS[name] for name in dict.fromkeys(names))
    return Order(
        servers=tuple(dict.fromkeys(options.server or SERVERS.get(options.suite, (BASELINE, "penstock")))),
        scenarios=scenarios,
        effort=QUICK if options.quick or options.ci else FULL,
        is_ready_wanted=options.ready,
        are_promotions_wanted=options.promotions,
        load_processes=options.load_processes,
    )


def _memory(options: argparse.Namespace) -> Run:
    console = Console(stderr=True)
    names = dict.fromkeys(options.server or ("penstock",))
    sizes = {"requests": options.memory, "abandoned": options.abandoned}
    return Run(growth=[growth.run(name, **sizes, on_start=console.print) for name in names])


def _run(wanted: Order) -> Run:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=wanted.measurements)
        return session.run(
            wanted,
            on_start=lambda text: progress.update(task, description=text),
            on_measured=lambda: progress.advance(task),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures Penstock against servers that answer the same requests, in one run on this machine.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer and shorter rounds: below 90 seconds")
    add("--ci", action="store_true", help="quick, only loads with a floor; exit status 1 when a floor is missed")
    add("--suite", choices=sorted(SUITES), default="tabular", help="which loads (default: tabular)")
    add("--scenario", action="append", choices=_SCENARIOS, help="only this load; may be repeated")
    add(
        "--server",
        action="append",
        choices=CONTESTANTS,
        help=f"which servers, compared with the first (default: {BASELINE}, penstock); may be repeated",
    )
    add("--ready", action="store_true", help="also measure the time from start to first answer")
    add("--promotions", action="store_true", help="also promote versions under load; no request may fail")
    add(
        "--memory",
        nargs="?",
        type=_positive,
        const=2_000_000,
        metavar="N",
        help="instead of the loads: how memory grows over N requests (default: 2,000,000)",
    )
    add(
        "--abandoned",
        type=_positive,
        default=20_000,
        metavar="M",
        help="with --memory: then over M cancelled and killed calls (default: 20,000)",
    )
    add("--load-processes", type=_positive, default=1, metavar="N", help="processes that send the load (default: 1)")
    add(
        "--json",
        nargs="?",
        type=Path,
        const=report.default_file(datetime.now(tz=UTC)),
        metavar="FILE",
        help="write every round's numbers (default: bench/results/, named by the time)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
