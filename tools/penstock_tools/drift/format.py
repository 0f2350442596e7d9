"""Names, numbers and verdicts of drift as people read them, in a terminal and in a page alike.

Names come from whoever published the model: they are shortened, and what cannot be seen or would steer a terminal is
replaced. What a verdict rests on is decided in the server.
"""

from collections.abc import Iterable
from typing import Final

from penstock_server.drift.report import ColumnDrift, VersionDrift

LONGEST_NAME: Final = 40
PREDICTIONS: Final = "(predictions)"


def safe(text: str, longest: int = LONGEST_NAME) -> str:
    r"""Text that shows what it is: no control or invisible characters, and no longer than `longest`.

    >>> safe("delay\x1b[2J"), safe("a" * 50, 8)
    ('delay\ufffd[2J', 'aaaaaaa…')
    """
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def ranked(columns: Iterable[ColumnDrift]) -> list[ColumnDrift]:
    """By evidence: the smallest p-value first, then the largest distance; what cannot be said comes last."""

    def rank(column: ColumnDrift) -> tuple[float, float, str]:
        p_value, distance = column.p_value, column.jensen_shannon
        return 2.0 if p_value is None else p_value, 1.0 if distance is None else -distance, column.name

    return sorted(columns, key=rank)


def decimals(value: float | None, digits: int = 3) -> str:
    """A figure; nothing for what cannot be said."""
    return "" if value is None else f"{value:.{digits}f}"


def probability(value: float | None) -> str:
    """A p-value: three decimals, and below that only how small it is.

    >>> [probability(value) for value in (0.0, 1e-9, 0.02, 1.0, None)]
    ['<0.001', '<0.001', '0.020', '1.000', '']
    """
    return "" if value is None else "<0.001" if value < 0.0005 else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share in percent; nothing for none and for what cannot be said.

    >>> [percent(value) for value in (0.0, 0.00001, 0.0123, 0.5, None)]
    ['', '<0.1%', '1.2%', '50%', '']
    """
    if not value:
        return ""
    return "<0.1%" if value < 0.001 else f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def title(version: VersionDrift) -> str:
    """Which version this is, and the parts that it plays."""
    roles = ", ".join(version.roles) or "no role"
    return f"{safe(version.model)} version {safe(version.version)} ({roles})"


def rows_line(version: VersionDrift) -> str:
    """How many rows were counted, and of how many."""
    if not version.rows:
        return "no rows were counted yet; ask for predictions, for example with `penstock predict`"
    return f"{version.rows:,} rows in the window, which holds about {version.window_rows:,} of each worker"


def verdict(version: VersionDrift) -> str:
    """How many features drifted, and what that rests on; or why nothing can be said."""
    if version.drifted is None:
        return "nothing can be said yet: no feature has enough rows"
    silent = len(version.columns) - version.tested
    waiting = f"; {silent} more have too few rows to say" if silent else ""
    rate = f"of those called drifted about {version.rate:.0%} may be wrong"
    return f"{version.drifted} of {version.tested} features drifted{waiting} ({rate})"


def predictions_line(version: VersionDrift) -> str:
    """How the answers changed."""
    column = version.predictions
    if column is None:
        return "the answers are not watched: the version was published without a reference for them"
    if not column.enough_rows:
        return f"the answers: {too_few(column)}"
    state = "drifted" if column.drifted else "as in training"
    return f"the answers: {state} (distance {decimals(column.jensen_shannon)}, p {probability(column.p_value)})"


def alarms_line(version: VersionDrift) -> str:
    """Which alarms are on; empty where none is."""
    names = [safe(name) if name else PREDICTIONS for name in version.alarmed or ()]
    return f"alarm, two windows in a row: {', '.join(names)}" if names else ""


def too_few(column: ColumnDrift) -> str:
    """Why nothing is said of a column."""
    return f"too few rows to say, {column.rows:,} of {column.rows_needed:,}"


def has_drifted(version: VersionDrift) -> bool:
    """Whether a feature or the answers drifted."""
    return bool(version.drifted) or (version.predictions is not None and bool(version.predictions.drifted))
