"""The committed floors, and which of them a run fell through. Pure but for reading the file; called by `__main__`."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.results import Summary

FILE: Final = Path(__file__).with_name("thresholds.toml")
_METRICS: Final = ("throughput_ratio", "cpu_ratio", "p99_ratio", "failed")


@dataclass(frozen=True, slots=True)
class Floor:
    """A bound on one metric of one server under one scenario; exactly one of the two bounds is given."""

    scenario: str
    server: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in _METRICS:
            raise ValueError(f"a floor's metric is one of {', '.join(_METRICS)}, got {self.metric!r}")
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"the floor for {self.scenario}, {self.server} needs at_least or at_most, and not both")


def read(file: Path = FILE) -> list[Floor]:
    """The floors of a file.

    Raises:
        ValueError: an entry is malformed.
    """
    try:
        return [Floor(**entry) for entry in tomllib.loads(file.read_text())["floor"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{file.name} is malformed: {error}") from error


def violations(floors: Iterable[Floor], summaries: Iterable[Summary]) -> list[str]:
    """One sentence a floor that does not hold; what was not measured does not hold."""
    known = {(summary.scenario, summary.server): summary for summary in summaries}
    return [sentence for floor in floors if (sentence := _violation(floor, known.get((floor.scenario, floor.server))))]


def _violation(floor: Floor, summary: Summary | None) -> str | None:
    what = f"{floor.server}, {floor.scenario}: {floor.metric}"
    value = None if summary is None else getattr(summary, floor.metric)
    if value is None:
        return f"{what} was not measured"
    if floor.at_least is not None and value < floor.at_least:
        return f"{what} is {value:.2f}, the floor is {floor.at_least:g}"
    if floor.at_most is not None and value > floor.at_most:
        return f"{what} is {value:g}, at most {floor.at_most:g} is allowed"
    return None
