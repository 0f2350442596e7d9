"""What a scenario is: a fault that is played against a server, and the numbers that it yields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.faults.number import Number


@dataclass(slots=True)
class Run:
    """One run of one scenario.

    Attributes:
        folder: an empty one of its own.
        is_quick: a smaller run, which shows the same faults with less certainty.
        seconds: how long it plays, if that was asked for; each scenario says what it means there.
        count: how often it plays, likewise.
        say: called with progress.
        details: lines for people, which the scenario adds.
    """

    folder: Path
    is_quick: bool = False
    seconds: float | None = None
    count: int | None = None
    say: Callable[[str], None] = lambda _: None
    details: list[str] = field(default_factory=list)

    def lasting_s(self, *, full: float, quick: float) -> float:
        """How long to play."""
        return self.seconds if self.seconds is not None else quick if self.is_quick else full

    def times(self, *, full: int, quick: int) -> int:
        """How often to play."""
        return self.count if self.count is not None else quick if self.is_quick else full


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault to play.

    Attributes:
        name: on the command line, and in the thresholds file.
        purpose: one line of help.
        play: yields the numbers as they are found, so that those before a failure are kept.
    """

    name: str
    purpose: str
    play: Callable[[Run], Iterator[Number]]
