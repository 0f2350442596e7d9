"""How numbers are written for people: one place, so that screen and summary agree; an unknown value is a dash."""

from typing import Final

UNKNOWN: Final = "–"
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def month(number: int | None) -> str:
    """A month's short name; a dash for none.

    >>> month(4), month(0)
    ('Apr', '–')
    """
    return _MONTHS[number - 1] if number else UNKNOWN


def milliseconds(seconds: float | None) -> str:
    """A duration in milliseconds.

    >>> milliseconds(0.00214), milliseconds(None)
    ('2.1 ms', '–')
    """
    return UNKNOWN if seconds is None else f"{seconds * 1e3:.1f} ms"


def percent(share: float | None) -> str:
    """A share in percent.

    >>> percent(0.1), percent(None)
    ('10.0%', '–')
    """
    return UNKNOWN if share is None else f"{share:.1%}"


def rate(per_second: float | None) -> str:
    """A count per second.

    >>> rate(5333.3), rate(None)
    ('5,333/s', '–')
    """
    return UNKNOWN if per_second is None else f"{per_second:,.0f}/s"


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many digits behind the point.

    >>> number(0.914), number(None)
    ('0.91', '–')
    """
    return UNKNOWN if value is None else f"{value:.{digits}f}"
