"""When each feature began to drift: keeps, of every look at the scores, the highest and the first that was high."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HIGH: Final = 0.2
"""A distance that is read as drift: training's own months stay below 0.1 but for the weather, whose last weeks reach 0.3."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A feature's drift over the stream.

    Attributes:
        highest: the highest score seen, 0 to 1.
        highest_month: the month in which it was seen.
        began: the first month in which the score was high; None if it never was.
    """

    feature: str
    highest: float
    highest_month: int
    began: int | None


class DriftLog:
    """Remembers the scores by feature."""

    def __init__(self) -> None:
        self._by_feature: dict[str, Drift] = {}

    def look(self, month: int, scores: Mapping[str, float]) -> None:
        """Takes the scores of a moment in this month."""
        for feature, score in scores.items():
            known = self._by_feature.get(feature) or Drift(feature, -1.0, month, None)
            is_higher = score > known.highest
            self._by_feature[feature] = Drift(
                feature,
                highest=score if is_higher else known.highest,
                highest_month=month if is_higher else known.highest_month,
                began=month if known.began is None and score >= HIGH else known.began,
            )

    def top(self, count: int) -> list[Drift]:
        """The features that drifted most, the highest score first."""
        return sorted(self._by_feature.values(), key=lambda each: (-each.highest, each.feature))[:count]


def highest(scores: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    """The highest scores of a moment, with their features."""
    return sorted(scores.items(), key=lambda each: (-each[1], each[0]))[:count]
