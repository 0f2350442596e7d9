"""Shows a specification, and what a published pipeline became: tables on standard output, and HTML for notebooks."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.importance import Importance
from penstock_server.explain.explanation import AnyExplanation, Unexplained
from penstock_server.features.spec.spec import Column, FeatureSpec, NumberColumn, StringColumn, TimeColumn
from penstock_tools import output

if TYPE_CHECKING:
    from jinja2 import Template

    from penstock_tools.publish.prepared import Prepared
    from penstock_tools.publish.python.version import PreparedPython

SHOWN: Final = 40
"""The output columns that are shown one by one."""
MATTERING: Final = 5
"""The columns of the largest importance that are named."""
Lines = Sequence[tuple[str, str]]
"""A label and a text each."""


def show(prepared: "Prepared | PreparedPython", scores: Mapping[str, float], more: Lines = ()) -> None:
    """Prints what a pipeline became: columns in, features out, what is compiled, what is in the graph, how far both differ.

    Args:
        prepared: what it became.
        scores: on the sample, by name.
        more: further lines, as `explained` gives them.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for label, text in (*_lines_of(prepared, scores), *more):
        table.add_row(Text(label, style="dim"), Text(text))
    Console(highlight=False).print(table)


def html(
    title: str,
    prepared: "Prepared | PreparedPython",
    scores: Mapping[str, float],
    decisions: Sequence[str],
    more: Lines = (),
) -> str:
    """What was registered, as a piece of a page: what it became, its raw columns, its features; arguments as `show`'s."""
    features = prepared.features
    return _template().render(
        title=title,
        lines=[*_lines_of(prepared, scores), *more],
        decisions=decisions,
        columns=[(column.name, _KIND_NAMES[type(column)]) for column in features.columns],
        features=features.output_names[:SHOWN],
        more=max(0, features.width - SHOWN),
    )


def explained(explanation: AnyExplanation | None, importance: Importance | None) -> list[tuple[str, str]]:
    """How a version explains its answers, and which columns matter most, as lines for `show`."""
    lines = []
    if isinstance(explanation, Unexplained):
        lines.append(("attributions", f"none: {explanation.reason}"))
    elif explanation is not None:
        lines.append(("attributions", f"{explanation.method}, of {explanation.meaning.of}"))
    if importance is not None:
        first = sorted(importance.values.items(), key=lambda each: -each[1])[:MATTERING]
        listed = ", ".join(f"{name} {max(value, 0.0):.3f}" for name, value in first)
        lines.append((f"importance ({importance.measure})", listed))
    return lines


@cache
def _template() -> "Template":
    return output.template("publish", "summary.html.j2", {})


def show_columns(features: FeatureSpec, matrix: NDArray[Any] | None) -> None:
    """Prints the raw columns of requests and the columns that the model gets.

    Args:
        features: the specification.
        matrix: what it makes of a sample [rows, width], for statistics of each column; None without a sample.
    """
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_columns_in(features))
    console.print(_columns_out(features, matrix))


def _lines_of(prepared: "Prepared | PreparedPython", scores: Mapping[str, float]) -> list[tuple[str, str]]:
    from penstock_tools.publish.prepared import Prepared

    lines = _lines(prepared) if isinstance(prepared, Prepared) else _python_lines(prepared)
    return [*lines, *((name.replace("_", " "), f"{value:.4f}") for name, value in scores.items())]


def _python_lines(prepared: "PreparedPython") -> list[tuple[str, str]]:
    from penstock_tools.publish.python.version import BATCH_ROWS

    row_ms, batch_ms = prepared.row_s * 1e3, prepared.batch_s * 1e3
    texts = sum(column.kind == "text" for column in prepared.description.columns)
    lines = [
        ("runs in", "Python, in a process of its own; servers need allow = true under [python]"),
        ("because", prepared.reason),
        (
            "costs",
            f"{row_ms:.1f} ms for a row, {batch_ms:.1f} ms for {BATCH_ROWS}; compiled ones take some tens of us for a row",
        ),
        ("columns in", f"{len(prepared.description.columns)} ({texts} of text)"),
        ("gives", ", ".join(f"{output.name} ({output.datatype})" for output in prepared.description.outputs)),
        ("kept as", prepared.kept.file + (f": {prepared.kept.why_pickle}" if prepared.kept.why_pickle else "")),
        ("needs", ", ".join(f"{name} {release}" for name, release in prepared.kept.requirements.items())),
    ]
    if prepared.kept.by_value:
        lines.append(("code in the file", ", ".join(prepared.kept.by_value)))
    return [*lines, *(("note", note) for note in prepared.sample.notes)]


def _lines(prepared: "Prepared") -> list[tuple[str, str]]:
    from penstock_tools.sklearn_compiler.proof import MAX_ROWS

    compiled = prepared.compiled
    kinds = [_KIND_NAMES[type(column)] for column in prepared.features.columns]
    columns = f"{kinds.count('number')} of numbers, {kinds.count('text')} of text"
    columns += f", {kinds.count('time')} of times" if "time" in kinds else ""
    compiled_stages = [stage for stage in compiled.stages if not stage.is_in_graph]
    lines = [
        ("columns in", f"{len(prepared.features.columns)} ({columns})"),
        ("features out", f"{prepared.features.width}, {prepared.features.datatype}"),
        ("compiled", _count(len(compiled_stages), "transformer")),
        ("in the graph", ", ".join((*compiled.in_graph, compiled.estimator_name))),
        ("rows compared", f"{min(compiled.sample.rows, MAX_ROWS):,}"),
        ("transformers differ by", f"{prepared.step_difference:.2g} of a column's largest value"),
        ("answers differ by", f"{prepared.difference:.2g}"),
    ]
    if compiled.unused:
        lines.insert(1, ("not read", ", ".join(compiled.unused)))
    if prepared.refused is not None:
        lines.append(("why not FP32", prepared.refused))
    return [*lines, *(("note", note) for note in prepared.notes)]


_KIND_NAMES: Final[dict[type[Column], str]] = {NumberColumn: "number", StringColumn: "text", TimeColumn: "time"}


def _columns_in(features: FeatureSpec) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("raw column", "kind", title=f"{len(features.columns)} columns in", title_justify="left")
    for column in features.columns:
        table.add_row(Text(column.name), _KIND_NAMES[type(column)])
    return table


def _columns_out(features: FeatureSpec, matrix: NDArray[Any] | None) -> Any:
    from rich.table import Table
    from rich.text import Text

    heads = ("#", "feature", *(() if matrix is None else ("first row", "mean", "smallest", "largest", "missing")))
    title = f"{features.width} features out, {features.datatype}"
    table = Table(*heads, title=title, title_justify="left")
    for at, name in enumerate(features.output_names[:SHOWN]):
        table.add_row(str(at), Text(name), *(() if matrix is None else _statistics(matrix[:, at].astype(np.float64))))
    if features.width > SHOWN:
        table.caption = f"and {features.width - SHOWN} more"
    return table


def _statistics(values: NDArray[np.float64]) -> tuple[str, ...]:
    there = values[~np.isnan(values)]
    first = f"{values[0]:.6g}"
    if not len(there):
        return first, "", "", "", str(len(values))
    return first, f"{there.mean():.6g}", f"{there.min():.6g}", f"{there.max():.6g}", str(len(values) - len(there))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
