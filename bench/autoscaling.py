"""`python -m bench.autoscaling`: replicas under a load that becomes ten times as high, by the rule of Kubernetes' autoscaler.

The rule is HorizontalPodAutoscaler's, which KEDA uses too: every 15 s it wants as many replicas as would bring the mean of
`penstock_capacity_ratio` to the target, leaves differences of a tenth alone, and grows to three times as many at once at most,
as the chart says. It goes down only to the most that it wanted in the last 300 s. A replica tells the mean of some five
seconds, at most 2, and Prometheus asks it every 15 s. A new replica answers after `start_s`. It is arithmetic: nothing runs.
Source: kubernetes.io, "Horizontal Pod Autoscaling", algorithm details.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, exp
from typing import Final

from rich.console import Console
from rich.table import Table

from penstock_server.capacity.estimate import MOST_RATIO

LOOK_S: Final = 15
_RATE_S: Final = 5.0
_TOLERANCE: Final = 0.1
_DOWN_S: Final = 300
_STEP_S: Final = 60


@dataclass(frozen=True, slots=True)
class Rule:
    """What the chart's values set."""

    target: float = 0.6
    least: int = 2
    most: int = 20
    growth: float = 3.0
    start_s: int = 20


@dataclass(frozen=True, slots=True)
class Second:
    """One second: what was asked, in replicas' capacities; replicas that answer, and that are wanted; the share refused."""

    asked: float
    ready: int
    wanted: int
    refused: float


def wanted(rule: Rule, replicas: int, ready: int, ratio: float) -> int:
    """How many replicas the rule wants, when those that are ready tell this ratio in the mean."""
    off = ratio / rule.target
    if abs(off - 1) <= _TOLERANCE:
        return replicas
    most = min(rule.most, ceil(rule.growth * replicas))
    return max(rule.least, min(ceil(ready * off), most))


def simulate(rule: Rule, load: Callable[[int], float], seconds: int) -> Iterator[Second]:
    """The seconds of a run: `load` says what is asked, in units of one replica's capacity."""
    starts = [-rule.start_s] * rule.least
    told = scraped = load(0) / rule.least
    wishes: list[tuple[int, int]] = []
    for at in range(seconds):
        ready = sum(start + rule.start_s <= at for start in starts)
        asked = load(at)
        told += (1 - exp(-1 / _RATE_S)) * (min(asked / ready, MOST_RATIO) - told)
        if at % LOOK_S == 0:
            wish = wanted(rule, len(starts), ready, scraped)
            wishes = [(when, which) for when, which in wishes if when > at - _DOWN_S] + [(at, wish)]
            aim = max(wish, min(len(starts), max(which for _, which in wishes)))
            starts = sorted(starts)[:aim] + [at] * (aim - len(starts))
            scraped = told
        yield Second(asked, ready, len(starts), max(0.0, 1 - ready / asked) if asked else 0.0)


def ten_times(at: int) -> float:
    """1.2 replicas' capacity, which fills two to the target; ten times as much from the second to the tenth minute."""
    return 12.0 if _STEP_S <= at < 10 * _STEP_S else 1.2


def main() -> int:
    """Prints the table; returns the exit status."""
    for start_s in (5, 20, 60):
        run = list(simulate(Rule(start_s=start_s, most=30), ten_times, 20 * _STEP_S))
        shown = Table("second", "asked", "ready", "wanted", "refused", title=f"replicas that start within {start_s} s")
        last = None
        for at, second in enumerate(run):
            if (state := (second.asked, second.ready, second.wanted)) != last:
                shown.add_row(
                    str(at), f"{second.asked:g}", str(second.ready), str(second.wanted), f"{second.refused:.0%}"
                )
            last = state
        Console().print(shown)
        enough = next(at for at, second in enumerate(run) if at > _STEP_S and not second.refused) - _STEP_S
        Console().print(f"all is answered {enough} s after the step")
    return 0


if __name__ == "__main__":
    sys.exit(main())
