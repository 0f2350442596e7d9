"""Servers side by side that get the same load in turn, and what a call costs each: what `bench.access` and others share."""

import argparse
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Final, TypeVar

from bench.load.generator import LoadError
from bench.load.plan import LoadPlan
from bench.load.process import LoadPool
from penstock_server.errors import UnavailableError
from penstock_tools.server_process import ServerProcess

READY_S: Final = 60.0
Name = TypeVar("Name", bound=Hashable)
Found = TypeVar("Found")


class NotAnsweredError(Exception):
    """Calls that should be answered were not."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one server gets in a round."""

    process: ServerProcess
    plan: LoadPlan

    def cost_us(self, pool: LoadPool) -> float:
        """CPU of the server's processes per answered call, in microseconds.

        Raises:
            NotAnsweredError: a call was not answered.
        """
        result = pool.run(self.plan, server_pid=self.process.pid)
        if result.failed or not result.latencies_s.size or result.probed is None:
            raise NotAnsweredError(f"{result.succeeded} calls were answered, others not: {result.failures}")
        return result.probed / result.latencies_s.size * 1e6

    def wait(self, pool: LoadPool) -> None:
        """Waits until calls are answered; raises as `cost_us` if they are not within a minute."""
        give_up_s = time.monotonic() + READY_S
        while True:
            try:
                self.cost_us(pool)
            except NotAnsweredError:
                if time.monotonic() > give_up_s:
                    raise
            else:
                return


def costs_of(loads: Mapping[Name, Load], rounds: int) -> dict[Name, list[float]]:
    """CPU per answered call in microseconds in each round, by the load's name; every other round goes the other way.

    Raises:
        NotAnsweredError: a call was not answered.
        LoadError: there is no load.
    """
    found: dict[Name, list[float]] = {name: [] for name in loads}
    with LoadPool() as pool:
        for load in loads.values():
            load.wait(pool)
        for turn in range(rounds):
            for name in reversed(loads) if turn % 2 else loads:
                found[name].append(loads[name].cost_us(pool))
    return found


def best(costs: Sequence[float]) -> float:
    """The mean of the best third of the rounds: what others do on the machine only adds to a cost."""
    return mean(sorted(costs)[: max(1, len(costs) // 3)])


def measured(
    program: str, description: str, rounds: int, measure: Callable[[int, float], Found], arguments: Sequence[str] | None
) -> Found | None:
    """Measures as the command line says; None, and that is told, if nothing could be measured.

    Args:
        program: the module's name.
        description: for its help.
        rounds: if nobody says how many.
        measure: gets the rounds, and the seconds of each measurement.
        arguments: of the command line; None takes those of the process.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how many (default: {rounds})")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (default: 1)")
    options = parser.parse_args(arguments)
    try:
        return measure(max(1, options.rounds), options.seconds)
    except (NotAnsweredError, LoadError, UnavailableError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return None
