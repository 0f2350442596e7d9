"""When a drift alarm goes on and off: a pure step from one state to the next, a window at a time.

One window drifts by chance now and then, and an action on it would be an action on noise. So a column's alarm goes on when
it drifted in two windows in a row that share no row, and off when it did not in two. For a column whose true index is the
smallest that matters, at a rate q judged alone, that is once in about 1/q^2 windows, and without drift next to never.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

WINDOWS: Final = 2
"""The windows in a row that it takes, both ways."""


@dataclass(frozen=True, slots=True)
class AlarmState:
    """What is known of a version's alarms.

    Attributes:
        windows: that were looked at so far.
        streaks: for each column the windows in a row that drifted, or as a negative number those that did not.
        since_s: the columns whose alarm is on, and since when.
    """

    windows: int = 0
    streaks: Mapping[str, int] = field(default_factory=dict)
    since_s: Mapping[str, float] = field(default_factory=dict)


def after_window(state: AlarmState, drifted: Mapping[str, bool | None], now_s: float) -> AlarmState:
    """The state after one more window that shares no row with the last.

    Args:
        state: the state so far.
        drifted: for each column whether it drifted; None, too few rows, leaves it as it was.
        now_s: the time, of the clock that `since_s` is kept by.
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
    return AlarmState(state.windows + 1, streaks, since_s)


def _continued(streak: int, is_drifted: bool) -> int:
    if is_drifted:
        return max(streak, 0) + 1
    return min(streak, 0) - 1
