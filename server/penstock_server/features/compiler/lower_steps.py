"""Turns one step into instructions over the columns that reach it.

Each function takes the columns that reach a step and gives those that leave it. `lower` calls `lower_step` for each step
in turn.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.compiler.columns import (
    CodedColumn,
    LookupColumns,
    MatrixColumn,
    OneHotColumns,
    codes_of,
    values_of,
)
from penstock_server.features.compiler.instructions import Draft, Entry, Value, bits
from penstock_server.features.spec import steps
from penstock_server.features.spec.step_base import StepBase, spread
from penstock_server.features.spec.steps_compute import CONSTANT, WHERE

Words = Iterable[tuple[int, ...]]


def lower_step(draft: Draft, step: Any, columns: list[MatrixColumn], about: str) -> list[MatrixColumn]:
    """Appends the step; `about` names the raw columns, for refusals."""
    if isinstance(step, steps.Compute):
        return _compute(draft, step, columns, about)
    if isinstance(step, steps.Match) and step.unseen == "refuse":
        return _refused_match(draft, step, columns, about)
    if isinstance(step, steps.Spline) and step.extrapolation == "refuse":
        _refuse_outside(draft, step, columns, about)
    if isinstance(step, steps.Refuse):
        return _refuse(draft, step, columns, about)
    return _LOWER[type(step)](draft, step, columns)


def _each(draft: Draft, operation: int, columns: Sequence[MatrixColumn], words: Words) -> list[MatrixColumn]:
    """One instruction, column by column, each with its words."""
    read = values_of(draft, columns)
    written = draft.new(len(read))
    pairs = zip(read, written, words, strict=True)
    draft.append(operation, [Entry((source,), (target,), each) for source, target, each in pairs])
    return list(written)


def _parameters(columns: Sequence[MatrixColumn], *fields: tuple[float | None, ...]) -> Words:
    """The parameters of each column as words, one after another."""
    spreads = [spread(field, len(columns)) for field in fields]
    return (tuple(map(bits, each)) for each in zip(*spreads, strict=True))


def _select(_draft: Draft, step: steps.Select, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    return [columns[at] for at in step.columns]


def _fill(draft: Draft, step: steps.Fill, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    if step.missing is None:
        return _each(draft, layout.FILL, columns, _parameters(columns, step.values))
    return _each(draft, layout.FILL_EQUAL, columns, _parameters(columns, step.values, (step.missing,)))


def _is_missing(draft: Draft, step: steps.IsMissing, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    if step.missing is None:
        return _each(draft, layout.IS_NAN, columns, [()] * len(columns))
    return _each(draft, layout.IS_EQUAL, columns, _parameters(columns, (step.missing,)))


def _refuse(draft: Draft, step: steps.Refuse, columns: list[MatrixColumn], about: str) -> list[MatrixColumn]:
    """The columns as they are. What comes from codes is known: most of it is nothing that is refused."""
    largest = np.inf if step.largest is None else step.largest
    for column in columns:
        if isinstance(column, CodedColumn):
            if not isinstance(column.group, LookupColumns):
                continue
            numbers = column.group.numbers[:, column.at]
            if not (step.missing and np.isnan(numbers).any()) and not (np.abs(numbers) > largest).any():
                continue
        (value,) = values_of(draft, [column])
        draft.refuse(value, about, missing=step.missing, largest=step.largest)
    return columns


def _clip(draft: Draft, step: steps.Clip, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    low = tuple(-np.inf if side is None else side for side in step.low or (None,))
    high = tuple(np.inf if side is None else side for side in step.high or (None,))
    return _each(draft, layout.CLIP, columns, _parameters(columns, low, high))


def _standardise(draft: Draft, step: steps.Standardise, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    # Subtracting 0 and dividing by 1 change no bit.
    parameters = _parameters(columns, step.mean or (0.0,), step.scale or (1.0,))
    return _each(draft, layout.STANDARDISE, columns, parameters)


def _linear(draft: Draft, step: steps.Linear, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    # Multiplying by 1 and adding -0 change no bit.
    parameters = _parameters(columns, step.scale or (1.0,), step.offset or (-0.0,))
    return _each(draft, layout.LINEAR, columns, parameters)


def _binarise(draft: Draft, step: steps.Binarise, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    return _each(draft, layout.BINARISE, columns, _parameters(columns, step.threshold))


def _apply(draft: Draft, step: steps.Apply, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    code = getattr(layout, step.function.upper())
    return _each(draft, layout.APPLY, columns, [(code,)] * len(columns))


def _cyclic(draft: Draft, step: steps.Cyclic, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    return _wider(draft, layout.CYCLIC, columns, 2, _parameters(columns, step.period))


def _wider(
    draft: Draft, operation: int, columns: Sequence[MatrixColumn], width: int, words: Words
) -> list[MatrixColumn]:
    """One instruction that makes `width` columns of each."""
    entries = [
        Entry((source,), draft.new(width), each) for source, each in zip(values_of(draft, columns), words, strict=True)
    ]
    draft.append(operation, entries)
    return [value for entry in entries for value in entry.writes]


def _power(draft: Draft, step: steps.Power, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    operation = layout.YEO_JOHNSON if step.method == "yeo-johnson" else layout.BOX_COX
    return _each(draft, operation, columns, _parameters(columns, step.lambdas))


def _quantiles(draft: Draft, step: steps.Quantiles, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    shares, is_normal = draft.put_reals(step.references), int(step.distribution == "normal")
    places = [(len(each), draft.put_reals(each), shares, is_normal) for each in step.quantiles]
    return _each(draft, layout.QUANTILES, columns, spread(tuple(places), len(columns)))


def _spline(draft: Draft, step: steps.Spline, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    kinds = {"constant": layout.CONSTANT, "linear": layout.SLOPE, "periodic": layout.PERIODIC}
    kind = kinds.get(step.extrapolation, layout.CONTINUE)
    places = []
    for knots in step.knots:
        head = [step.degree, len(knots), kind, step.functions, int(step.missing == "zeros")]
        ends = _spline_ends(knots, step.degree) if kind in {layout.CONSTANT, layout.SLOPE} else []
        places.append((draft.put([*head, *map(bits, knots), *map(bits, ends)]),))
    return _wider(draft, layout.SPLINE, columns, step.functions, spread(tuple(places), len(columns)))


def _spline_ends(knots: Sequence[float], degree: int) -> list[float]:
    """Values at the low end, slopes there, values at the high end, slopes there: one number per basis function."""
    last = len(knots) - degree - 1
    low, high = knots[degree], knots[last]
    sides = ((degree, low), (last - 1, high))
    return [number for interval, at in sides for row in _end_row(knots, degree, interval, at) for number in row]


def _end_row(knots: Sequence[float], degree: int, interval: int, at: float) -> tuple[list[float], list[float]]:
    functions = len(knots) - degree - 1
    values = _padded(functions, interval - degree, _basis(knots, degree, interval, at))
    if not degree:
        return values, [0.0] * functions
    lower = _padded(functions + 1, interval - degree + 1, _basis(knots, degree - 1, interval, at))
    shares = [
        lower[each] / span if (span := knots[each + degree] - knots[each]) else 0.0 for each in range(functions + 1)
    ]
    return values, [degree * (shares[each] - shares[each + 1]) for each in range(functions)]


def _basis(knots: Sequence[float], degree: int, interval: int, at: float) -> list[float]:
    """The degree + 1 functions that are not zero in an interval, by the recurrence of de Boor and Cox."""
    found = [1.0]
    for order in range(1, degree + 1):
        before, found = found, [0.0] * (order + 1)
        for each in range(1, order + 1):
            right, left = knots[interval + each], knots[interval + each - order]
            weight = before[each - 1] / (right - left)
            found[each - 1] += weight * (right - at)
            found[each] = weight * (at - left)
    return found


def _padded(count: int, first: int, found: list[float]) -> list[float]:
    row = [0.0] * count
    row[first : first + len(found)] = found
    return row


def _refuse_outside(draft: Draft, step: steps.Spline, columns: list[MatrixColumn], about: str) -> None:
    ends = tuple((knots[step.degree], knots[-step.degree - 1]) for knots in step.knots)
    refusal = draft.refusal(about)
    pairs = zip(values_of(draft, columns), spread(ends, len(columns)), strict=True)
    entries = [Entry((value,), (), (bits(low), bits(high), refusal)) for value, (low, high) in pairs]
    draft.append(layout.REFUSE_OUTSIDE, entries)


def _bucket(draft: Draft, step: steps.Bucket, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    places = tuple((len(edges), draft.put_reals(edges)) for edges in step.edges)
    return _each(draft, layout.BUCKET, columns, spread(places, len(columns)))


def _match(draft: Draft, step: steps.Match, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    places = []
    for values in step.values:
        known = [(value, code) for code, value in enumerate(values) if value is not None]
        known.sort()
        missing = float(values.index(None) if None in values else len(values))
        increasing = draft.put_reals([value for value, _ in known])
        codes = draft.put_reals([*(code for _, code in known), len(values)])
        places.append((len(known), increasing, codes, bits(missing)))
    return _each(draft, layout.MATCH, columns, spread(tuple(places), len(columns)))


def _refused_match(draft: Draft, step: steps.Match, columns: list[MatrixColumn], about: str) -> list[MatrixColumn]:
    found = _match(draft, step, columns)
    refusal = draft.refusal(about)
    unseen = spread(tuple(len(values) for values in step.values), len(columns))
    pairs = zip(values_of(draft, found), unseen, strict=True)
    draft.append(layout.REFUSE_CODE, [Entry((value,), (), (code, refusal)) for value, code in pairs])
    return found


def _one_hot(draft: Draft, step: steps.OneHot, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    given, widths = spread(step.columns, len(columns)), spread(step.widths, len(columns))
    made: list[MatrixColumn] = []
    for column, places, width in zip(columns, given, widths, strict=True):
        draft.take(len(places))
        source, codes = _codes(draft, column, len(places) - 1)
        group = OneHotColumns(source, np.asarray(places, np.int64)[codes], width)
        made += [CodedColumn(group, at) for at in range(width)]
    return made


def _lookup(draft: Draft, step: steps.Lookup, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    made: list[MatrixColumn] = []
    for column, rows in zip(columns, spread(step.values, len(columns)), strict=True):
        source, codes = _codes(draft, column, len(rows) - 1)
        draft.take((len(rows) if isinstance(codes, slice) else len(codes)) * len(rows[0]))
        group = LookupColumns(source, np.asarray(rows, np.float64)[codes])
        made += [CodedColumn(group, at) for at in range(len(rows[0]))]
    return made


def _codes(draft: Draft, column: MatrixColumn, unseen: int) -> tuple[Value, Any]:
    """The value that holds a column's codes, and the map from these to the codes 0 to `unseen`: as they are, or a table."""
    if isinstance(column, CodedColumn) and isinstance(column.group, LookupColumns):
        draft.take(len(column.group.numbers))
        return column.group.source, codes_of(column.group.numbers[:, column.at], unseen)
    return values_of(draft, [column])[0], slice(None)


def _polynomial(draft: Draft, step: steps.Polynomial, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    return list(_Products(draft, values_of(draft, columns)).of(step.terms))


class _Products:
    """The products so far, each made once: a longer one is its first factor times the rest."""

    def __init__(self, draft: Draft, columns: Sequence[Value]) -> None:
        self._draft = draft
        self._made: dict[tuple[int, ...], Value] = {(at,): value for at, value in enumerate(columns)}

    def of(self, terms: Sequence[tuple[int, ...]]) -> list[Value]:
        # Shorter ones first, so that an instruction makes all products of one length.
        needed = {term[at:] for term in terms for at in range(len(term) or 1)} - self._made.keys()
        for length in sorted(set(map(len, needed))):
            self._make([term for term in sorted(needed) if len(term) == length])
        return [self._made[term] for term in terms]

    def _make(self, terms: list[tuple[int, ...]]) -> None:
        written = self._draft.new(len(terms))
        entries = []
        for term, value in zip(terms, written, strict=True):
            self._made[term] = value
            reads = (self._made[term[1:]], self._made[term[:1]]) if term else ()
            entries.append(Entry(reads, (value,), () if term else (bits(1.0),)))
        self._draft.append(layout.PRODUCT if terms[0] else layout.VALUE, entries)


def _compute(draft: Draft, step: steps.Compute, columns: list[MatrixColumn], about: str) -> list[MatrixColumn]:
    """The operations that an output or a requirement needs, one after another."""
    width = len(columns)
    needed = _needed(step, width)
    # Columns that no operation reads stay maps, and are written as such.
    read = sorted(
        {at for place in needed for at in step.operations[place].of if at < width} | _below(step.required, width)
    )
    values: dict[int, Value] = dict(zip(read, values_of(draft, [columns[at] for at in read]), strict=True))
    for place in needed:
        operation = step.operations[place]
        (values[width + place],) = written = draft.new()
        reads = tuple(values[at] for at in operation.of)
        draft.append(*_operation(operation, reads, written))
    if step.required:
        refusal = draft.refusal(about)
        entries = [Entry((values[at],), (), (bits(1.0), bits(np.inf), refusal)) for at in step.required]
        draft.append(layout.REFUSE_OUTSIDE, entries)
    return [columns[at] if at < width else values[at] for at in step.outputs]


def _operation(
    operation: steps.Operation, reads: tuple[Value, ...], written: tuple[Value, ...]
) -> tuple[int, list[Entry]]:
    if operation.function == CONSTANT:
        return layout.VALUE, [Entry((), written, (bits(operation.value),))]
    if operation.function == WHERE:
        return layout.CHOOSE, [Entry(reads, written)]
    code = getattr(layout, operation.function.upper())
    return layout.APPLY if len(reads) == 1 else layout.BINARY, [Entry(reads, written, (code,))]


def _needed(step: steps.Compute, width: int) -> list[int]:
    """The places of the operations that something needs, in their order."""
    wanted = {at - width for at in (*step.outputs, *step.required) if at >= width}
    for place in range(len(step.operations) - 1, -1, -1):
        if place in wanted:
            wanted |= {at - width for at in step.operations[place].of if at >= width}
    return sorted(wanted)


def _below(places: Iterable[int], width: int) -> set[int]:
    return {at for at in places if at < width}


def _normalise(draft: Draft, step: steps.Normalise, columns: list[MatrixColumn]) -> list[MatrixColumn]:
    kind = {"l1": layout.L1, "l2": layout.L2, "max": layout.MAX}[step.norm]
    return _each(draft, layout.NORMALISE, columns, [(kind,)] * len(columns))


_LOWER: Final[dict[type[StepBase], Callable[[Draft, Any, list[MatrixColumn]], list[MatrixColumn]]]] = {
    steps.Apply: _apply,
    steps.Binarise: _binarise,
    steps.Bucket: _bucket,
    steps.Clip: _clip,
    steps.Cyclic: _cyclic,
    steps.Fill: _fill,
    steps.IsMissing: _is_missing,
    steps.Linear: _linear,
    steps.Lookup: _lookup,
    steps.Match: _match,
    steps.Normalise: _normalise,
    steps.OneHot: _one_hot,
    steps.Polynomial: _polynomial,
    steps.Power: _power,
    steps.Quantiles: _quantiles,
    steps.Select: _select,
    steps.Spline: _spline,
    steps.Standardise: _standardise,
}
