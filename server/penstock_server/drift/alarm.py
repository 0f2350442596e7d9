"""Decides when a drift alarm goes on and off: a pure step from one state to the next, one window at a time.

Now and then a single window drifts by chance, which should cause no action. So a column's alarm goes on after it
drifted in two successive windows that share no row, and off after it did not drift in two. At a rate q, a column whose
true index is exactly the smallest that matters raises a false alarm about once in 1/q^2 windows, and a column without
drift almost never.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

WINDOWS: Final = 2
"""The number of successive windows after which an alarm goes on, or off."""


@dataclass(frozen=True, slots=True)
class AlarmState:
    """A version's alarms.

    Attributes:
        streaks: for each column the number of its last windows in a row that drifted; negative for windows that did not.
        since_s: the columns whose alarm is on, and since when.
    """

    streaks: Mapping[str, int] = field(default_factory=dict)
    since_s: Mapping[str, float] = field(default_factory=dict)


def after_window(state: AlarmState, drifted: Mapping[str, bool | None], now_s: float) -> AlarmState:
    """The state after one more window that shares no row with the last.

    Args:
        state: the state so far.
        drifted: for each column whether it drifted; None, too few rows, leaves it as it was.
        now_s: the time, by the clock of `since_s`.
    """
    streaks = {
        name: state.streaks.get(name, 0) if is_drifted is None else _continued(state.streaks.get(name, 0), is_drifted)
        for name, is_drifted in drifted.items()
    }
    since_s = {
        name: state.since_s.get(name, now_s)
        for name, streak in streaks.items()
        if streak >= WINDOWS or (name in state.since_s and streak > -WINDOWS)
    }
    return AlarmState(streaks, since_s)


def _continued(streak: int, is_drifted: bool) -> int:
    if is_drifted:
        return max(streak, 0) + 1
    return min(streak, 0) - 1
