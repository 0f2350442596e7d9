"""`python -m tests.simulation`: plays seeds for so many simulated hours on all cores, and says what came of it.

--replicas has many servers live on one registry, and says how soon they follow it and what they ask of it.

--rollouts has three servers on one registry roll a version out, so many times, through faults.
--seed plays one seed alone and prints its trace; equal seeds give equal traces. The exit status is 1 if anything was wrong.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count

from tests.simulation.replicas import converge, told
from tests.simulation.rollouts import roll
from tests.simulation.simulation import FAULTS, Result, play

MOST_FAILING = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays, and returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.replicas:
        found = converge(options.seed or "1", options.replicas)
        print(told(found))
        return bool(found.violations)
    if options.seed is not None:
        result = play(options.seed, options.each, echo=print)
        lived = f"{result.hours:.2f} hours, {result.lived_hours:.2f} of them event by event"
        print(f"{result.events:,} events, {lived}; digest {result.digest}")
        print(*result.violations, sep="\n")
        return bool(result.violations)
    if options.rollouts:
        return _roll(options)
    results = list(_until(options))
    print(_told(results))
    return any(result.violations for result in results)


def _roll(options: argparse.Namespace) -> int:
    """Plays rollouts on all cores, and returns the exit status."""
    seeds = [f"{options.first + number}" for number in range(options.rollouts)]
    ends, faults, hours, failing = Counter[str](), Counter[str](), 0.0, []
    with multiprocessing.Pool(options.jobs, initializer=_begin, initargs=(options.nice,)) as pool:
        for result in pool.imap_unordered(roll, seeds):
            ends[f"{result.kind}, {result.outcome}"] += 1
            faults.update(result.faults)
            hours += result.hours
            failing += [f"  {result.seed}: {found[:500]}" for found in result.violations[:1]]
    print(f"{len(seeds):,} rollouts, {hours:,.1f} simulated hours")
    print("versions:", *(f"  {many:>9,}  {name}" for name, many in ends.most_common()), sep="\n")
    print("faults:", *(f"  {many:>9,}  {name}" for name, many in faults.most_common()), sep="\n")
    print(f"{len(failing)} failing seeds", *failing, sep="\n")
    return bool(failing)


def _until(options: argparse.Namespace) -> Iterator[Result]:
    """The results of seed after seed, until the hours or the seconds are over, with a line of progress."""
    began_s, hours = time.monotonic(), 0.0
    seeds = (f"{options.first + number}" for number in count())
    with multiprocessing.Pool(options.jobs, initializer=_begin, initargs=(options.nice,)) as pool:
        failing = 0
        for done, result in enumerate(pool.imap_unordered(_Played(options.each), seeds_of(seeds, options)), 1):
            hours += result.hours
            failing += bool(result.violations)
            yield result
            if sys.stderr.isatty():
                share = min(1.0, hours / options.hours)
                bar = "#" * int(30 * share)
                print(f"\r[{bar:<30}] {hours:,.1f} hours, {done:,} seeds, {failing} failing", end="", file=sys.stderr)
            if hours >= options.hours or time.monotonic() - began_s > options.seconds or failing >= MOST_FAILING:
                pool.terminate()
                break
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _begin(niceness: int) -> None:
    os.nice(niceness)
    gc.freeze()  # what is imported needs no look at the end of each seed


def seeds_of(seeds: Iterator[str], options: argparse.Namespace) -> Iterator[str]:
    """As many seeds as can be needed: each takes `each` hours at least."""
    return (seed for seed, _ in zip(seeds, range(int(options.hours / options.each) + 1), strict=False))


class _Played:
    """Plays a seed; an object, since a process gets it by pickle."""

    def __init__(self, hours: float) -> None:
        self._hours = hours

    def __call__(self, seed: str) -> Result:
        return play(seed, self._hours, keep_lines=0)


def _told(results: Sequence[Result]) -> str:
    """What came of the seeds, as text."""
    faults, seen = Counter[str](), Counter[str]()
    for result in results:
        faults.update(result.faults)
        seen.update(result.seen)
    lived = sum(result.lived_hours for result in results)
    hours, events = sum(result.hours for result in results), sum(result.events for result in results)
    steps, requests = sum(result.steps for result in results), sum(result.requests for result in results)
    lines = [
        f"{hours:,.1f} simulated hours, {len(results):,} seeds, {events:,} events, {steps:,} steps, {requests:,} requests;",
        f"{lived:,.1f} hours of them event by event; in the others the machine slept, or nothing happened, which was skipped",
        "",
        "faults:",
        *(f"  {many:>9,}  {name}" for name, many in faults.most_common()),
        *(f"          0  {name}" for name in FAULTS if not faults[name]),
        "",
        "what the server said of it:",
        *(f"  {many:>9,}  {name}" for name, many in seen.most_common()),
    ]
    failing = [result for result in results if result.violations]
    lines += ["", f"{len(failing)} failing seeds" + (":" if failing else "")]
    for result in failing:
        lines += [f"  {result.seed}: {result.violations[0][:500]}"]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--hours", type=float, default=10.0, help="simulated hours in all (default: %(default)s)")
    parser.add_argument(
        "--each",
        type=float,
        default=0.25,
        help="at least so many hours of each seed, without those that are skipped (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so many seconds")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--nice", type=int, default=10, help="their niceness (default: %(default)s)")
    parser.add_argument(
        "--replicas", type=int, help="have so many servers live on one registry, and tell how they follow it"
    )
    parser.add_argument("--rollouts", type=int, help="play so many rollouts of three servers instead")
    parser.add_argument("--seed", help="play this seed alone, and print its trace")
    return parser


if __name__ == "__main__":
    sys.exit(main())
