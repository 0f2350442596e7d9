"""How numbers, months and names are written for people, the same in every table, line and page.

An unknown value is a dash unless the caller names something else.
"""

from typing import Final

UNKNOWN: Final = "–"
LONGEST_NAME: Final = 40
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def month(number: int | None) -> str:
    """A month's short name; a dash for none.

    >>> month(4), month(0)
    ('Apr', '–')
    """
    return MONTHS[number - 1] if number else UNKNOWN


def milliseconds(seconds: float | None) -> str:
    """A duration in milliseconds.

    >>> milliseconds(0.00214), milliseconds(None)
    ('2.1 ms', '–')
    """
    return UNKNOWN if seconds is None else f"{seconds * 1e3:.1f} ms"


def percent(share: float | None, unknown: str = UNKNOWN) -> str:
    """A share in percent.

    >>> percent(0.1), percent(0.0), percent(0.00001), percent(None)
    ('10.0%', '0.0%', '<0.1%', '–')
    """
    if share is None:
        return unknown
    return "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def rate(per_second: float | None) -> str:
    """A count per second.

    >>> rate(5333.3), rate(None)
    ('5,333/s', '–')
    """
    return UNKNOWN if per_second is None else f"{per_second:,.0f}/s"


def number(value: float | None, digits: int = 2, unknown: str = UNKNOWN) -> str:
    """A number with this many digits after the point.

    >>> number(0.914), number(-0.001), number(None), number(None, unknown="")
    ('0.91', '0.00', '–', '')
    """
    return unknown if value is None else f"{value:z.{digits}f}"


def safe(text: str, longest: int = LONGEST_NAME) -> str:
    r"""Text from somebody else: cut to `longest` characters, control and invisible characters replaced.

    >>> safe("delay\x1b[2J"), safe("a" * 50, 8)
    ('delay\ufffd[2J', 'aaaaaaa…')
    """
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
