"""Turns a specification into instructions: loads each raw column once, then lowers block after block.

A block at the top writes its outputs as soon as they are made, which frees its registers for the next. `lower_steps`
lowers the steps. `program` calls `lower` once per version.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np

from penstock_server.features.cells import Cells, NumberCells, StringCells
from penstock_server.features.compiler import layout, tables
from penstock_server.features.compiler.characters import Case
from penstock_server.features.compiler.columns import (
    CodedColumn,
    LookupColumns,
    MatrixColumn,
    values_of,
    write_outputs,
)
from penstock_server.features.compiler.instructions import MISSING, Draft, Entry, Value
from penstock_server.features.compiler.lower_grams import lower_grams, put_mapping
from penstock_server.features.compiler.lower_steps import lower_step
from penstock_server.features.counting import number_words, string_words
from penstock_server.features.spec.blocks import CASES, Block, Join, Take, Text, Time
from penstock_server.features.spec.encoders import Categories, Hash
from penstock_server.features.spec.grams import Grams
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, StringColumn, TimeColumn, texts


@dataclass(slots=True)
class _RawColumns:
    """The raw columns that a program has loaded.

    Attributes:
        values: for each column its numbers, or the codes of its strings.
        times: for each time column its days, its nanoseconds of the day, and its seconds.
        codes: for each string column the code of each string in its table.
        positions: for each string column its position among a request's string columns.
    """

    values: dict[str, Value] = field(default_factory=dict)
    times: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    codes: dict[str, dict[str, int]] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)


def lower(spec: FeatureSpec, cells: Cells | None) -> Draft:
    """The instructions of a specification, which count in the cells if there are any.

    Raises:
        ValueError: its program would take too much.
    """
    draft, raw = Draft(), _RawColumns()
    _load_numbers(draft, raw, spec, cells)
    _load_times(draft, raw, spec, cells)
    _find_strings(draft, raw, spec, cells)
    _refuse(draft, raw, spec)
    _write_block(draft, raw, spec.features, 0)
    return draft


def _load_numbers(draft: Draft, raw: _RawColumns, spec: FeatureSpec, cells: Cells | None) -> None:
    """Loads the number columns that are read, counted, or looked at for what they do not accept."""
    read = set(spec.features.raw_columns)
    numbers = [(at, column) for at, column in enumerate(spec.columns) if isinstance(column, NumberColumn)]
    entries = []
    for source, (at, column) in enumerate(numbers):
        if column.name not in read and cells is None and column.missing != "refuse" and column.largest is None:
            continue
        (raw.values[column.name],) = written = draft.new()
        counted = cells.columns[at] if cells else None
        words = draft.put(number_words(counted) if isinstance(counted, NumberCells) else [])
        entries.append(Entry((), written, (source, at, words)))
    draft.append(layout.LOAD, entries)


def _load_times(draft: Draft, raw: _RawColumns, spec: FeatureSpec, cells: Cells | None) -> None:
    """Loads the time columns that are read, counted, or looked at for what they do not accept."""
    read = set(spec.features.raw_columns)
    times = [(at, column) for at, column in enumerate(spec.columns) if isinstance(column, TimeColumn)]
    entries = []
    for source, (at, column) in enumerate(times):
        if column.name not in read and cells is None and column.missing != "refuse":
            continue
        raw.times[column.name] = written = draft.new(3)
        counted = cells.columns[at] if cells else None
        words = draft.put(number_words(counted) if isinstance(counted, NumberCells) else [])
        entries.append(Entry((), written, (source, at, words)))
    draft.append(layout.LOAD_TIME, entries)


def _find_strings(draft: Draft, raw: _RawColumns, spec: FeatureSpec, cells: Cells | None) -> None:
    """Finds the codes of the string columns that are encoded as categories or counted."""
    known = _categories_by_column(spec.features)
    strings = [(at, column) for at, column in enumerate(spec.columns) if isinstance(column, StringColumn)]
    entries = []
    for source, (at, column) in enumerate(strings):
        raw.positions[column.name] = source
        if column.name not in known and cells is None and column.missing != "refuse":
            continue
        values = known.get(column.name, {})
        counted = cells.columns[at] if cells else None
        if isinstance(counted, StringCells):
            values |= dict.fromkeys(counted.watched)
        # The empty string always has a code: it counts as missing.
        values[""] = None
        raw.codes[column.name] = {value: code for code, value in enumerate(values)}
        (raw.values[column.name],) = written = draft.new()
        words = 0
        if cells is not None and isinstance(counted, StringCells):
            words = draft.put(string_words(counted, list(values), cells.bins))
        entries.append(Entry((), written, (source, at, words, _put_table(draft, values))))
    draft.append(layout.FIND, entries)


def _categories_by_column(block: Block) -> dict[str, dict[str, None]]:
    """The categories that any encoder of a string column knows, in the order of the encoders."""
    found: dict[str, dict[str, None]] = {}
    for text in texts(block):
        if isinstance(text.encode, Categories) and not text.prepare:
            found.setdefault(text.column, {}).update(dict.fromkeys(text.encode.values))
    return found


def _put_table(draft: Draft, values: Iterable[str]) -> int:
    encoded = [value.encode() for value in values]
    draft.take(tables.size_words(encoded))
    return draft.put(tables.table_words(encoded, draft.size))


def _refuse(draft: Draft, raw: _RawColumns, spec: FeatureSpec) -> None:
    """Refuses the rows that hold what a raw column does not accept."""
    for column in spec.columns:
        # A time is missing where its days are NaN.
        value = raw.times[column.name][0] if column.name in raw.times else raw.values.get(column.name)
        if value is None:
            continue
        if isinstance(column, TimeColumn):
            draft.refuse(value, repr(column.name), missing=column.missing == "refuse", largest=None)
        if isinstance(column, NumberColumn):
            draft.refuse(value, repr(column.name), missing=column.missing == "refuse", largest=column.largest)
        elif isinstance(column, StringColumn) and column.missing == "refuse":
            _refuse_empty(draft, value, column.name, raw.codes[column.name])


def _refuse_empty(draft: Draft, value: Value, name: str, codes: Mapping[str, int]) -> None:
    is_empty = np.zeros((len(codes) + 1, 1))
    is_empty[codes[""]] = 1.0
    (found,) = values_of(draft, [CodedColumn(LookupColumns(value, is_empty), 0)])
    draft.append(layout.REFUSE_CODE, [Entry((found,), (), (1, draft.refusal(repr(name), MISSING)))])


def _write_block(draft: Draft, raw: _RawColumns, block: Block, output: int) -> int:
    """Writes a block to the outputs from `output` on, and returns the output after its last."""
    if isinstance(block, Join) and not block.steps:
        for each in block.blocks:
            output = _write_block(draft, raw, each, output)
        return output
    columns = _lower_block(draft, raw, block)
    write_outputs(draft, columns, output)
    return output + len(columns)


def _lower_block(draft: Draft, raw: _RawColumns, block: Block) -> list[MatrixColumn]:
    columns = _first_columns(draft, raw, block)
    about = " or ".join(repr(column) for column in list(dict.fromkeys(block.raw_columns))[:3])
    for step in block.steps:
        columns = lower_step(draft, step, columns, about)
    return columns


def _first_columns(draft: Draft, raw: _RawColumns, block: Block) -> list[MatrixColumn]:  # noqa: PLR0911 - one per block
    """The columns that reach a block's first step."""
    match block:
        case Take(columns):
            return [raw.values[column] for column in columns]
        case Time(column, parts):
            return [_time_part(draft, raw.times[column], part) for part in parts]
        case Text(column, Categories() as encode) if block.prepare:
            return [_encode_prepared(draft, raw.positions[column], block, encode)]
        case Text(column, Categories() as encode):
            return [_encode_categories(draft, raw.values[column], raw.codes[column], column, encode)]
        case Text(column, Hash() as encode):
            return list(_hash(draft, raw.positions[column], block, encode))
        case Text(column, Grams() as encode):
            return lower_grams(draft, raw.positions[column], encode)
        case Join(blocks):
            return [column for each in blocks for column in _lower_block(draft, raw, each)]
    raise AssertionError(block)


def _time_part(draft: Draft, time: tuple[Value, ...], part: str) -> Value:
    if part in _LOADED_PARTS:
        return time[_LOADED_PARTS.index(part)]
    (written,) = draft.new()
    draft.append(layout.CALENDAR, [Entry(time[:2], (written,), (getattr(layout, part.upper()),))])
    return written


_LOADED_PARTS: Final = ("days", "nanoseconds_of_day", "seconds")
"""The parts that are loaded, in the order of their registers."""


def _encode_categories(
    draft: Draft, source: Value, known: dict[str, int], column: str, encode: Categories
) -> MatrixColumn:
    """The encoder's code for each code of a table that has its categories."""
    unseen = len(encode.values)
    draft.take(len(known) + 1)
    codes = np.full((len(known) + 1, 1), float(unseen))
    if encode.missing is not None:
        codes[known[""]] = encode.missing
    for code, value in enumerate(encode.values):
        codes[known[value]] = code
    found = CodedColumn(LookupColumns(source, codes), 0)
    if encode.unseen == "refuse":
        checked = tuple(values_of(draft, [found]))
        refusal = draft.refusal(f"{column!r}")
        draft.append(layout.REFUSE_CODE, [Entry(checked, (), (unseen, refusal))])
    return found


def _encode_prepared(draft: Draft, position: int, block: Text, encode: Categories) -> MatrixColumn:
    """As `_encode_categories`, of a text that is prepared before; a text that becomes empty is not the missing one."""
    known = {value: code for code, value in enumerate(dict.fromkeys((*encode.values, "")))}
    blank = known[""] if "" in encode.values else len(known)
    mapping, sides = _put_prepare(draft, block)
    (source,) = written = draft.new()
    words = (position, _put_table(draft, known), mapping, sides, blank)
    draft.append(layout.FIND_PREPARED, [Entry((), written, words)])
    return _encode_categories(draft, source, known, block.column, encode)


def _put_prepare(draft: Draft, block: Text) -> tuple[int, int]:
    """The position of the mapping of a block's texts, and the sides that are stripped."""
    case = next((each for each in block.prepare if each in CASES), "keep")
    sides = 0
    for each in block.prepare:
        sides |= _SIDES.get(each, 0)
    return put_mapping(draft, cast("Case", case), "keep"), sides


_SIDES: Final = {"strip": layout.LEFT | layout.RIGHT, "lstrip": layout.LEFT, "rstrip": layout.RIGHT}


def _hash(draft: Draft, position: int, block: Text, encode: Hash) -> tuple[Value, ...]:
    prefix = encode.prefix.encode()
    written = draft.new(encode.width)
    at = draft.put(np.array(tables.words_of(prefix), np.uint64).view(np.int64))
    leaves_zeros = encode.missing == "zeros"
    mapping, sides = _put_prepare(draft, block) if block.prepare else (0, 0)
    words = (position, encode.width, int(encode.signed), int(leaves_zeros), at, len(prefix), mapping, sides)
    draft.append(layout.HASH, [Entry((), written, words)])
    return written
