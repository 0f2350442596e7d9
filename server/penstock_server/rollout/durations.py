"""Durations as people write them: `90s`, `10m`, `2h`, `1d`, or several together, such as `1h30m`."""

import re
from typing import Final

from penstock_server.errors import InvalidInputError

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
LONGEST_S: Final = 366 * 86400.0


def parse_duration(value: object, what: str) -> float:
    """The seconds of a duration: a number of seconds, or a text such as `"10m"`.

    >>> parse_duration("1h30m", "hold"), parse_duration(5, "hold")
    (5400.0, 5.0)

    Raises:
        InvalidInputError: it is none, or longer than a year; names `what`.
    """
    seconds = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        text = value.strip()
        parts = _PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
        elif re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
            seconds = float(text)
    # Written so that NaN is refused as well.
    if seconds is None or not 0 <= seconds <= LONGEST_S:
        shown = value if isinstance(value, int | float) else repr(str(value)[:40])
        raise InvalidInputError(
            f"{what} is {shown}, expected a duration such as 90s, 10m, 1h30m or 2d, of a year at most"
        )
    return seconds


def duration_in_words(seconds: float) -> str:
    """A duration in the largest unit that gives a whole number.

    >>> duration_in_words(5400), duration_in_words(600), duration_in_words(86400)
    ('90 minutes', '10 minutes', '1 day')
    """
    for unit_s, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit_s and seconds % unit_s == 0:
            return _counted(round(seconds / unit_s), unit)
    return _counted(round(seconds, 3), "second")


def _counted(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
