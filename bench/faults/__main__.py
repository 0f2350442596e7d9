"""`python -m bench.faults`: plays the faults, prints each number beside its target, and says which do not hold.

The exit status is 0, 1 if a target does not hold, or 2 if a scenario could not be measured to its end.
"""

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.faults import number, table
from bench.faults.number import Found, Number
from bench.faults.scenario import Run, Scenario
from bench.faults.scenarios import candidates, fresh, giant, hostile, hung, memory, python, sigterm, standing

SCENARIOS: Final = {
    each.name: each
    for each in (
        Scenario(
            "candidates",
            "a champion under full load while hostile candidates are named canary (--seconds: the wait for each reason)",
            candidates.play,
        ),
        Scenario("hung", "one request hangs a worker of two (--seconds: the wait for a new worker)", hung.play),
        Scenario("mix", "the standing mix, every answer checked (--seconds: of both halves together)", standing.play),
        Scenario("sigterm", "SIGTERM under load (--count: how often)", sigterm.play),
        Scenario("giant", "a request of 1,000,000 rows beside others (--seconds: of each measurement)", giant.play),
        Scenario("hostile", "memory after hostile requests (--count: of each kind)", hostile.play),
        Scenario("python", "a pipeline in Python crashes, loops and takes 4 GB beside another model", python.play),
        Scenario("fresh", "from the start to live and to ready, without a cache", fresh.play),
        Scenario("memory", "memory of a server with one worker and a registry", memory.play),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays the scenarios and returns the exit status."""
    options = _parser().parse_args(arguments)
    # By default SIGTERM would end this process and leave the servers running; an interrupt leaves every context.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    targets = number.read()
    names = list(SCENARIOS)
    if options.ci:
        targets = [target for target in targets if target.in_ci]
        names = [name for name in names if name in {target.scenario for target in targets}]
    progress = Console(stderr=True)
    found = []
    for name in options.only or names:
        found.append(play(SCENARIOS[name], options, progress))
        if options.json:  # after each, since a run takes half an hour
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(table.record(found, targets), indent=1) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 160)
    table.show(console, found, targets)
    missed = number.missed(targets, found)
    for sentence in missed:
        console.print(sentence, style="red", markup=False)
    if any(one.failure for one in found):
        return 2
    return 1 if missed else 0


def play(scenario: Scenario, options: argparse.Namespace, progress: Console) -> Found:
    """Plays one scenario in a folder of its own; an error ends it, and the numbers so far are kept."""

    def say(text: str) -> None:
        progress.print(f"{scenario.name}: {text}", markup=False, highlight=False)

    numbers: list[Number] = []
    failure = ""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"penstock-{scenario.name}-", ignore_cleanup_errors=True) as folder:
        run = Run(Path(folder), options.quick, options.seconds, options.count, say)
        say("begins")
        try:
            for found in scenario.play(run):
                numbers.append(found)
                say(f"{found.name}: {number.shown(found.value)}")
        except Exception as error:  # noqa: BLE001 - the other scenarios are still played
            failure = f"{type(error).__name__}: {error}"
            say(failure)
    return Found(scenario.name, tuple(numbers), time.monotonic() - started, tuple(run.details), failure)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, SCENARIOS))
    scenarios = "\n".join(f"  {each.name:{width}}  {each.purpose}" for each in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="python -m bench.faults",
        description="Plays faults against a real server, and prints what everybody else felt beside its target.",
        epilog=f"scenarios:\n{scenarios}\n\ntargets are in bench/thresholds.toml; servers listen on loopback only.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", action="append", choices=SCENARIOS, metavar="NAME", help="only this scenario; may be repeated")
    add("--quick", action="store_true", help="smaller runs, about ten minutes in all")
    add("--seconds", type=float, metavar="S", help="how long a scenario plays, where it says so below")
    add("--count", type=int, metavar="N", help="how often a scenario plays, where it says so below")
    add("--ci", action="store_true", help="only the cheap scenarios with a target that cannot be noisy")
    add("--json", type=Path, metavar="FILE", help="write the numbers, after each scenario")
    return parser


if __name__ == "__main__":
    sys.exit(main())
