"""Drift in a terminal: a table with one line per feature, or one feature in full.

Features with alarms come first, then others that drifted, those that matter most to the model before others; the rest come by
significance. A narrow terminal leaves out whole columns, and names them.

Histograms are blocks: one character per bin, or one line per bin. Both histograms of a pair have one scale.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Literal

from penstock_server.drift.report import ColumnDrift, VersionDrift, by_concern
from penstock_server.errors import NotFoundError
from penstock_tools import formatting
from penstock_tools.drift import sentences

if TYPE_CHECKING:
    from rich.text import Text

BAR_WIDTH: Final = 20
MOST_TOLD: Final = 5
"""Pairs and segments that are told of before the table."""
WIDTH: Final = 112
"""Columns of a terminal of which nothing is known."""
_ALARM: Final = "▲"
_DRIFTED: Final = "●"
_GAP: Final = 2
"""Between two columns of the table."""
_FEATURE: Final = "  feature"
_NAME: Final = 16
"""The width that marks and names of features have at least, where they need it."""
BLOCKS: Final = " ▁▂▃▄▅▆▇█"
PARTS: Final = " ▏▎▍▌▋▊▉█"
WIDTHS: Final = (24, 16, 8)
"""Of a small histogram: the first that leaves room for all columns, else the last."""
_HINT: Final = (
    "▲ alarm, ● drifted.  JS: Jensen-Shannon distance, from 0 (as in training) to 1 (nothing in common).  PSI: without what"
    " chance adds.  p: the probability of so large a PSI if the true one were the tolerated one.  new: values that training did"
    " not have.  detects: the smallest true PSI that four of five such windows show."
)
_EFFECTIVE: Final = "  effective: so many rows that do not hang together would say as much as the window's."

Shares = Sequence[float]


def overview(version: VersionDrift, width: int = WIDTH) -> Any:
    """A renderable of a version: its verdict, the table, and what the columns mean; `width` is the terminal's."""
    from rich.console import Group
    from rich.text import Text

    lines = [
        Text(sentences.title(version), style="bold"),
        Text(sentences.rows_line(version)),
        Text(
            sentences.verdict(version), style="red" if version.drifted else "" if version.drifted is None else "green"
        ),
        Text(sentences.predictions_line(version)),
    ]
    if expected := sentences.expected_line(version):
        lines.append(Text(expected))
    if joint := sentences.joint_line(version):
        told = sentences.joint_told(version)
        more = [f"and {len(told) - MOST_TOLD} more"] * (len(told) > MOST_TOLD)
        lines.append(Text(joint, style="red" if told else ""))
        lines += [Text(f"  {one}") for one in (*told[:MOST_TOLD], *more)]
    if alarms := sentences.alarms_line(version):
        lines.append(Text(alarms, style="bold red"))
    if order := sentences.order_line(version):
        lines.append(Text(order, style="yellow"))
    tried = [_fields(version, bins) for bins in WIDTHS]
    fields = next((fields for fields in tried if _width(fields) <= width), tried[-1])
    kept = fitting(fields, width)
    left_out = ", ".join(field.heading for field in fields if field not in kept)
    hint = f"{_HINT}{_EFFECTIVE if _hangs_together(version) else ''}  {sentences.importance_line(version)}".rstrip()
    hint = f"{hint}  {sentences.assumption(version)}".rstrip()
    if left_out:
        hint += f"  Not shown for want of width: {left_out}."
    return Group(*lines, _table(kept, width, answers=len(version.answered)), Text(hint, style="dim"))


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A column of the table.

    Attributes:
        heading: its own.
        cells: one for each feature, for the predictions, and for other answers.
        left_out: a narrow terminal leaves out the column with the largest first, and never those with 0.
        justify: the side that the cells are on.
    """

    heading: str
    cells: "Sequence[Text]"
    left_out: int = 0
    justify: Literal["left", "right"] = "right"

    @property
    def width(self) -> int:
        """As wide as the heading and the widest cell."""
        return max(len(self.heading), *(cell.cell_len for cell in self.cells), 0)


def fitting(fields: Sequence[Field], width: int) -> list[Field]:
    """The columns that a terminal of this width has room for, if names are cut to `_NAME`; the least telling are left out."""
    kept = list(fields)
    while _width(kept) > width and any(field.left_out for field in kept):
        kept.remove(max(kept, key=lambda field: field.left_out))
    return kept


def _width(fields: Sequence[Field]) -> int:
    own = sum(min(field.width, _NAME) if field.heading == _FEATURE else field.width for field in fields)
    return own + _GAP * (len(fields) - 1)


def _table(fields: Sequence[Field], width: int, *, answers: int) -> Any:
    from rich.table import Table

    room = max(width - _width(fields), 0)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for field in fields:
        widest = min(field.width, _NAME + room) if field.heading == _FEATURE else None
        table.add_column(field.heading, justify=field.justify, no_wrap=True, overflow="ellipsis", max_width=widest)
    lines = list(zip(*(field.cells for field in fields), strict=True))
    for at, line in enumerate(lines):
        if answers and at == len(lines) - answers:
            table.add_section()
        table.add_row(*line)
    return table


def _fields(version: VersionDrift, bins: int) -> list[Field]:
    """All columns of the table."""
    from rich.text import Text

    columns = [*by_concern(version), *version.answered]
    since = [sentences.moment(sentences.since(version, column), "%m-%d %H:%M") for column in columns]
    marks = [
        _ALARM if begun else _DRIFTED if column.drifted else "" for column, begun in zip(columns, since, strict=True)
    ]
    names = [f"{mark or ' '} {sentences.called(version, column)}" for mark, column in zip(marks, columns, strict=True)]
    styles = ["bold red" if mark else "" for mark in marks]
    histograms = [_histograms(column, bins) for column in columns]

    def numbers(heading: str, shown: Callable[[ColumnDrift], str], left_out: int = 0) -> Field:
        return Field(heading, [Text(shown(column)) for column in columns], left_out)

    return [
        Field(_FEATURE, list(map(Text, names, styles)), justify="left"),
        *([Field("since (UTC)", [Text(one, style="red") for one in since], justify="left")] if any(since) else []),
        Field("training", [known for known, _ in histograms], 2, "left"),
        Field("now", [now for _, now in histograms], justify="left"),
        numbers("JS", lambda column: sentences.decimals(column.jensen_shannon), 4),
        numbers("PSI", lambda column: sentences.decimals(column.psi_unbiased)),
        numbers("p", lambda column: sentences.probability(column.p_value), 1),
        numbers("detects", lambda column: sentences.decimals(column.detectable, 2), 5),
        numbers("missing", lambda column: sentences.share(column.missing_ratio)),
        # A string is unseen, a number out of range: no column has both.
        numbers("new", lambda column: sentences.share(column.unseen_ratio or column.out_of_range_ratio)),
        *([numbers("effective", lambda column: f"{column.effective_rows:,}", 6)] if _hangs_together(version) else []),
        *(
            [numbers("importance", lambda column: sentences.importance(column.importance), 3)]
            if version.importance_measure
            else []
        ),
    ]


def _hangs_together(version: VersionDrift) -> bool:
    """Whether rows of any column say less than as many independent ones."""
    return any(column.effective_rows < column.rows for column in version.columns)


def _histograms(column: ColumnDrift, bins: int) -> "tuple[Text, Text]":
    from rich.text import Text

    known, now = pair(column.reference, column.current, bins)
    if not column.enough_rows:
        needed = f"{column.rows:,} of {column.rows_needed:,}"
        return Text(known, style="dim"), Text(needed, style="dim")
    return Text(known, style="blue"), Text(now, style="red" if column.drifted else "green")


def feature(version: VersionDrift, name: str) -> Any:
    """A renderable of one feature: each bin with its share of the training rows and of the rows now.

    Raises:
        NotFoundError: the version watches no such feature; names those it watches.
    """
    from rich.console import Group
    from rich.text import Text

    column = named(version, name)
    numbers = {
        "Jensen-Shannon distance": sentences.decimals(column.jensen_shannon, 4),
        "PSI": sentences.decimals(column.psi, 4),
        "PSI without what chance adds": sentences.decimals(column.psi_unbiased, 4),
        "smallest true PSI that four of five such windows show": sentences.decimals(column.detectable, 4),
        "effective rows": f"{column.effective_rows:,}" if column.effective_rows < column.rows else "",
        "p, if the true PSI were " + f"{column.minimum_effect:g}": sentences.probability(column.p_value),
        "Kolmogorov-Smirnov distance, at least": sentences.decimals(column.ks, 4),
        "Wasserstein distance, deviations": sentences.decimals(column.wasserstein, 4),
        "missing": sentences.share(column.missing_ratio),
        "unseen": sentences.share(column.unseen_ratio),
        "infinite": sentences.share(column.infinite_ratio),
        "outside the range trained on": sentences.share(column.out_of_range_ratio),
        f"importance, {version.importance_measure}": sentences.importance(column.importance),
    }
    alarms = sentences.alarms_of(version, column)
    head = f"{formatting.safe(column.name)}, a {column.kind}: {sentences.state(column)}"
    lines = [Text(f"  {label}: {value}") for label, value in numbers.items() if value]
    return Group(
        Text(sentences.title(version)),
        Text(head, style="bold red" if column.drifted else "bold"),
        *[Text(sentences.alarm_told(alarm), style="bold red") for alarm in alarms],
        *lines,
        _cells(column),
        *[Text(one) for one in _together(version, column)],
    )


def _together(version: VersionDrift, column: ColumnDrift) -> list[str]:
    """How a column goes together with others, and the answers for its segments; those that drifted are marked."""
    if version.joint is None or column is version.predictions:
        return []
    pairs = [one for one in version.joint.pairs if column.name in (one.first, one.second)]
    segments = [one for one in version.joint.segments if one.column == column.name]
    told = [
        *((sentences.pair_told(pair), pair.drifted) for pair in pairs),
        *((sentences.segment_told(segment), segment.drifted) for segment in segments),
    ]
    return [f"{_DRIFTED if drifted else ' '} {one}" for one, drifted in told]


def named(version: VersionDrift, name: str) -> ColumnDrift:
    """A version's column of this name.

    Raises:
        NotFoundError: there is none; names those there are.
    """
    columns = [*version.columns, *version.answered]
    for column in columns:
        if column.name == name:
            return column
    known = ", ".join(formatting.safe(column.name) for column in columns[:20])
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    raise NotFoundError(f"{sentences.title(version)} watches no feature {name!r}; it watches {known or 'none'}{more}")


def _cells(column: ColumnDrift) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right", no_wrap=True, overflow="ellipsis", max_width=24)
    for heading, justify in (("trained on", "right"), ("", "left"), ("now", "right"), ("", "left")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    largest = max((*column.reference, *column.current), default=0.0)
    style = "red" if column.drifted else "green"
    for label, known, now in zip(column.labels, column.reference, column.current, strict=True):
        table.add_row(
            Text(formatting.safe(label)),
            f"{known:.1%}",
            Text(bar(known, largest, BAR_WIDTH), style="blue"),
            f"{now:.1%}",
            Text(bar(now, largest, BAR_WIDTH), style=style),
        )
    return table


def pair(reference: Shares, current: Shares, widest: int = WIDTHS[0]) -> tuple[str, str]:
    """Two small histograms of the same bins; neighbours are added up where there are more than `widest`.

    >>> pair([0.5, 0.5, 0.0], [0.25, 0.74, 0.01])
    ('▆▆ ', '▃█▁')
    >>> pair([0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], widest=2)
    ('▄▄', '█ ')
    """
    known, now = narrowed(reference, widest), narrowed(current, widest)
    largest = max(*known, *now, 1e-12)
    return _blocks(known, largest), _blocks(now, largest)


def narrowed(shares: Shares, widest: int) -> Shares:
    """The shares, or those of at most `widest` groups of neighbours."""
    size = ceil(len(shares) / widest)
    return shares if size <= 1 else [sum(shares[at : at + size]) for at in range(0, len(shares), size)]


def _blocks(shares: Shares, largest: float) -> str:
    # Rounded up, so that a bin with any rows shows.
    return "".join(BLOCKS[ceil(min(share / largest, 1.0) * (len(BLOCKS) - 1))] for share in shares)


def bar(share: float, largest: float, width: int) -> str:
    """One horizontal bar, to an eighth of a character.

    >>> bar(0.5, 1.0, 4), bar(0.28, 1.0, 4), bar(0.0, 1.0, 4)
    ('██', '█▏', '')
    """
    eighths = ceil(min(share / max(largest, 1e-12), 1.0) * width * 8)
    return "█" * (eighths // 8) + (PARTS[eighths % 8] if eighths % 8 else "")
