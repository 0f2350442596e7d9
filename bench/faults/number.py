"""The numbers that scenarios find, and the targets that they are compared with."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.thresholds import FILE


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a scenario.

    Attributes:
        name: what was measured, with its unit.
        value: None if it never came about, such as the seconds until something that did not happen.
        note: what a reader should know beside it.
    """

    name: str
    value: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one number of a scenario: either a least or a greatest value.

    Attributes:
        in_ci: whether `--ci` checks it.
    """

    scenario: str
    number: str
    at_most: float | None = None
    at_least: float | None = None
    in_ci: bool = False

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"the target for {self.scenario}, {self.number} needs at_least or at_most, and not both")

    def holds(self, value: float | None) -> bool:
        """Whether a value is within the bound; what never came about is not."""
        if value is None:
            return False
        return value <= self.at_most if self.at_most is not None else value >= (self.at_least or 0.0)

    def __str__(self) -> str:
        return f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"


@dataclass(frozen=True, slots=True)
class Found:
    """What one scenario found.

    Attributes:
        numbers: in the order of the table.
        lasted_s: how long it took.
        details: lines for people, such as a table of its own.
        failure: why it could not be measured to its end; "" if it was.
    """

    scenario: str
    numbers: tuple[Number, ...]
    lasted_s: float
    details: tuple[str, ...] = ()
    failure: str = ""


def read(file: Path = FILE) -> list[Target]:
    """The targets of a thresholds file, its tables `fault`.

    Raises:
        ValueError: an entry is malformed.
    """
    try:
        return [Target(**entry) for entry in tomllib.loads(file.read_text())["fault"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{file.name} is malformed: {error}") from error


def missed(targets: Iterable[Target], found: Iterable[Found]) -> list[str]:
    """One sentence per target that does not hold, for the scenarios that ran; without a number it does not hold."""
    numbers = {one.scenario: {number.name: number for number in one.numbers} for one in found}
    sentences = []
    for target in targets:
        if target.scenario not in numbers:
            continue
        number = numbers[target.scenario].get(target.number)
        if number is None:
            sentences.append(f"{target.scenario}: {target.number} was not measured")
        elif not target.holds(number.value):
            sentences.append(f"{target.scenario}: {target.number} is {shown(number.value)}, expected {target}")
    return sentences


def shown(value: float | None) -> str:
    """A value for people.

    >>> shown(None), shown(1234.0), shown(1.234)
    ('never', '1,234', '1.23')
    """
    if value is None:
        return "never"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
