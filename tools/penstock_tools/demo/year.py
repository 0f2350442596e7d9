"""What became of the full loop's year: who answered what part of the stream, how well, and what the server did when. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

PARTS: Final = 60
"""The stream's parts, for the picture: about five days each."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the server did, and when, in seconds since the stream began."""

    at_s: float
    month: int
    text: str


@dataclass(slots=True)
class Year:
    """What became of the year.

    Attributes:
        right, rows: by part of the stream and version that answered.
        champions: the versions that were champion, in order.
        failures: the messages of requests that failed, each with its count.
    """

    parts: int
    right: Counter[tuple[int, str]] = field(default_factory=Counter)
    rows: Counter[tuple[int, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)
    champions: list[str] = field(default_factory=list)
    month: int = 0

    def accuracy(self, part: int) -> float | None:
        """The share of right answers in a part of the stream; None before its first."""
        rows = sum(count for (at, _), count in self.rows.items() if at == part)
        right = sum(count for (at, _), count in self.right.items() if at == part)
        return right / rows if rows else None
