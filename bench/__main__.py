"""`python -m bench`: reads the command line, shows progress, prints what was found, and checks the thresholds in CI.

The exit status is 0, 1 if a threshold does not hold, or 2 if nothing could be measured.
"""

import argparse
import signal
import sys
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import inference, memory, models, report, session, thresholds
from bench.load.generator import LoadError
from bench.promotions import PromotionError
from bench.scenarios import FULL, QUICK, SUITE_SERVERS, SUITES, Scenario
from bench.servers.measured import BASELINE, SERVERS, ServerThere
from bench.session import RunResult, RunSpec
from penstock_server.errors import UnavailableError

_SCENARIOS: Final = {scenario.name: scenario for suite in SUITES.values() for scenario in suite}
_NOT_MEASURED: Final = (
    LoadError,
    PromotionError,
    UnavailableError,
    TimeoutError,
    inference.WrongAnswerError,
    ValueError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench and returns the exit status."""
    options = _parser().parse_args(arguments)
    # By default SIGTERM would end this process and leave the servers running; an interrupt leaves every context.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bounds = thresholds.read() if options.ci else []
    if options.write_models:
        names = {model for scenario in run_spec(options, bounds).scenarios for model in scenario.models}
        models.write(options.write_models, names)
        return 0
    try:
        found = _memory(options) if options.memory else _run(run_spec(options, bounds))
    except _NOT_MEASURED as error:
        Console(stderr=True).print(f"bench: {error}", style="red", markup=False)
        return 2
    console = Console()
    report.show(console, found)
    if options.json:
        report.write(found, options.json)
    missed = thresholds.violations(bounds, found.summaries)
    if options.ci and found.promotions and found.promotions.load.failed:
        missed.append(f"{found.promotions.load.failed} requests failed during promotions")
    for sentence in missed:
        console.print(sentence, style="red", markup=False)
    return 1 if missed else 0


def run_spec(options: argparse.Namespace, bounds: Sequence[thresholds.Threshold]) -> RunSpec:
    """What to measure, by the options and, in CI, the thresholds."""
    scenarios: tuple[Scenario, ...] = SUITES[options.suite]
    names = options.scenario or list(dict.fromkeys(bound.scenario for bound in bounds))
    if names:
        scenarios = tuple(_SCENARIOS[name] for name in dict.fromkeys(names))
    return RunSpec(
        servers=tuple(dict.fromkeys(options.server or SUITE_SERVERS.get(options.suite, (BASELINE, "penstock")))),
        scenarios=scenarios,
        rounds=QUICK if options.quick or options.ci else FULL,
        measures_startup=options.ready,
        measures_promotions=options.promotions,
        load_processes=options.load_processes,
        there=dict(options.there),
    )


def _memory(options: argparse.Namespace) -> RunResult:
    console = Console(stderr=True)
    names = dict.fromkeys(options.server or ("penstock",))
    sizes = {"requests": options.memory, "abandoned": options.abandoned}
    return RunResult(memory_growth=[memory.run(name, **sizes, on_start=console.print) for name in names])


def _run(spec: RunSpec) -> RunResult:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=spec.measurements)
        return session.run(
            spec,
            on_start=lambda text: progress.update(task, description=text),
            on_measured=lambda: progress.advance(task),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures Penstock and other servers under the same load, in one run.",
        epilog=_choices(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer and shorter rounds; takes under 90 seconds")
    add("--ci", action="store_true", help="quick, only loads with a threshold; exit status 1 if one does not hold")
    add(
        "--suite",
        choices=sorted(SUITES),
        metavar="SUITE",
        default="tabular",
        help="the loads to measure (default: tabular)",
    )
    add("--scenario", action="append", choices=_SCENARIOS, metavar="LOAD", help="only this load; may be repeated")
    add(
        "--server",
        action="append",
        choices=SERVERS,
        metavar="SERVER",
        help=f"a server to measure; the first is the one to compare with (default: {BASELINE}, penstock); "
        "may be repeated",
    )
    add(
        "--there",
        action="append",
        type=_there,
        default=[],
        metavar="NAME=HOST:PORT[@PID]",
        help="a server of the Open Inference Protocol that runs on this machine already, such as a Triton in its container, "
        "with the models of --write-models; with its process id CPU and memory are measured too; may be repeated",
    )
    add("--write-models", type=Path, metavar="FOLDER", help="only write the models of the loads, as NAME/1/model.onnx")
    add("--ready", action="store_true", help="also measure the time from start to first answer")
    add("--promotions", action="store_true", help="also promote versions under load; no request may fail")
    add(
        "--memory",
        nargs="?",
        type=_positive,
        const=2_000_000,
        metavar="N",
        help="measure how memory grows over N requests, and no loads (default: 2,000,000)",
    )
    add(
        "--abandoned",
        type=_positive,
        default=20_000,
        metavar="M",
        help="with --memory: then also over M cancelled or cut-off calls (default: 20,000)",
    )
    add("--load-processes", type=_positive, default=1, metavar="N", help="processes that send the load (default: 1)")
    add(
        "--json",
        nargs="?",
        type=Path,
        const=report.default_file(datetime.now(tz=UTC)),
        metavar="FILE",
        help="write the numbers of every round (default: bench/results/, named by the time)",
    )
    return parser


def _choices() -> str:
    """The names that the options take."""
    lines = ["servers:", *_wrapped(", ".join(SERVERS)), "", "suites and their loads:"]
    for suite, scenarios in SUITES.items():
        lines += _wrapped(f"{suite}: {', '.join(scenario.name for scenario in scenarios)}")
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _there(text: str) -> tuple[str, ServerThere]:
    name, _, place = text.partition("=")
    try:
        return name, ServerThere.read(place)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected NAME=HOST:PORT or NAME=HOST:PORT@PID ({error})") from error


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
