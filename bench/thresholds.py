"""The committed thresholds of `--ci`, and the sentences about those that a run misses."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.results import Summary

FILE: Final = Path(__file__).with_name("thresholds.toml")
_METRICS: Final = ("throughput_ratio", "cpu_ratio", "p99_ratio", "failed")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A bound on one metric of one server under one scenario: either a least or a greatest value."""

    scenario: str
    server: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in _METRICS:
            raise ValueError(f"a threshold's metric is one of {', '.join(_METRICS)}, got {self.metric!r}")
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(
                f"the threshold for {self.scenario}, {self.server} needs at_least or at_most, and not both"
            )


def read(file: Path = FILE) -> list[Threshold]:
    """The thresholds of a file.

    Raises:
        ValueError: an entry is malformed.
    """
    try:
        return [Threshold(**entry) for entry in tomllib.loads(file.read_text())["threshold"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{file.name} is malformed: {error}") from error


def violations(thresholds: Iterable[Threshold], summaries: Iterable[Summary]) -> list[str]:
    """One sentence per threshold that does not hold; without a measurement it does not hold."""
    known = {(summary.scenario, summary.server): summary for summary in summaries}
    return [
        sentence
        for threshold in thresholds
        if (sentence := _violation(threshold, known.get((threshold.scenario, threshold.server))))
    ]


def _violation(threshold: Threshold, summary: Summary | None) -> str | None:
    what = f"{threshold.server}, {threshold.scenario}: {threshold.metric}"
    value = None if summary is None else getattr(summary, threshold.metric)
    if value is None:
        return f"{what} was not measured"
    if threshold.at_least is not None and value < threshold.at_least:
        return f"{what} is {value:.2f}, expected at least {threshold.at_least:g}"
    if threshold.at_most is not None and value > threshold.at_most:
        return f"{what} is {value:g}, expected at most {threshold.at_most:g}"
    return None
