"""Turns the tree of a specification into instructions: every raw column once, every block in its turn.

Blocks at the top write their outputs as soon as they are made, so that their registers are free for the next.
`lowering_steps` knows the steps; `program` calls `lower` once a version.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from penstock_server.features.cells import Cells, NumberCells, StringCells
from penstock_server.features.compiler import layout, tables
from penstock_server.features.compiler.columns import Column, Place, Table, values_of, write_outputs
from penstock_server.features.compiler.instructions import Draft, Entry, Value
from penstock_server.features.compiler.lower_steps import lower_step
from penstock_server.features.counting import number_words, string_words
from penstock_server.features.spec.blocks import Block, Join, Take, Text
from penstock_server.features.spec.encoders import Categories, Hash
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, texts
from penstock_server.features.spec.steps import Step


def lower(spec: FeatureSpec, cells: Cells | None) -> Draft:
    """The instructions of a specification, which count in the cells if there are any.

    Raises:
        ValueError: its program would take too much.
    """
    return _Lowering(spec, cells).lower()


class _Lowering:
    """The values of the raw columns, and for each string column what its codes mean."""

    def __init__(self, spec: FeatureSpec, cells: Cells | None) -> None:
        self._spec = spec
        self._cells = cells
        self._draft = Draft()
        self._raw: dict[str, Value] = {}
        self._string_at: dict[str, int] = {}
        self._codes: dict[str, dict[str, int]] = {}
        self._output = 0

    def lower(self) -> Draft:
        self._load()
        self._find()
        self._top(self._spec.features)
        return self._draft

    def _load(self) -> None:
        """Brings in the number columns that are read or counted."""
        read = set(self._spec.features.raw_columns)
        numbers = [(at, c) for at, c in enumerate(self._spec.columns) if isinstance(c, NumberColumn)]
        entries = []
        for source, (at, column) in enumerate(numbers):
            if column.name not in read and self._cells is None:
                continue
            (self._raw[column.name],) = written = self._draft.new()
            entries.append(Entry((), written, (source, at, self._draft.put(self._number_words(at)))))
        self._draft.append(layout.LOAD, entries)

    def _number_words(self, at: int) -> list[int]:
        cells = self._cells.columns[at] if self._cells else None
        return number_words(cells) if isinstance(cells, NumberCells) else []

    def _find(self) -> None:
        """Brings in the codes of the string columns that are encoded as categories or counted."""
        known = _values_by_column(self._spec.features)
        strings = [(at, c) for at, c in enumerate(self._spec.columns) if not isinstance(c, NumberColumn)]
        entries = []
        for source, (at, column) in enumerate(strings):
            self._string_at[column.name] = source
            cells = self._cells.columns[at] if self._cells else None
            if column.name not in known and cells is None:
                continue
            values = known.get(column.name, {})
            if isinstance(cells, StringCells):
                values |= dict.fromkeys(cells.watched)
            # The empty string always has a code: it counts as missing.
            values[""] = None
            self._codes[column.name] = {value: code for code, value in enumerate(values)}
            (self._raw[column.name],) = written = self._draft.new()
            entries.append(
                Entry((), written, (source, at, self._string_words(cells, list(values)), self._table(values)))
            )
        self._draft.append(layout.FIND, entries)

    def _string_words(self, cells: object, values: list[str]) -> int:
        if self._cells is None or not isinstance(cells, StringCells):
            return 0
        return self._draft.put(string_words(cells, values, self._cells.bins))

    def _table(self, values: Iterable[str]) -> int:
        encoded = [value.encode() for value in values]
        self._draft.take(tables.size_words(encoded))
        return self._draft.put(tables.table_words(encoded, self._draft.size))

    def _top(self, block: Block) -> None:
        """Writes a block's outputs; a join without steps has none of its own."""
        if isinstance(block, Join) and not block.steps:
            for each in block.blocks:
                self._top(each)
            return
        columns = self._block(block)
        write_outputs(self._draft, columns, self._output)
        self._output += len(columns)

    def _block(self, block: Block) -> list[Column]:
        return self._steps(self._first(block), block.steps, block)

    def _first(self, block: Block) -> list[Column]:
        match block:
            case Take(columns):
                return [self._raw[column] for column in columns]
            case Text(column, Categories() as encode):
                return [self._categories(column, encode)]
            case Text(column, Hash() as encode):
                return self._hash(column, encode)
            case Join(blocks):
                return [column for each in blocks for column in self._block(each)]
        raise AssertionError(block)

    def _steps(self, columns: list[Column], steps: Sequence[Step], block: Block) -> list[Column]:
        about = " or ".join(repr(column) for column in list(dict.fromkeys(block.raw_columns))[:3])
        for step in steps:
            columns = lower_step(self._draft, step, columns, about)
        return columns

    def _categories(self, column: str, encode: Categories) -> Column:
        """The encoder's code for each code of the column's own table."""
        known = self._codes[column]
        unseen = len(encode.values)
        self._draft.take(len(known) + 1)
        codes = np.full((len(known) + 1, 1), float(unseen))
        if encode.missing is not None:
            codes[known[""]] = encode.missing
        for code, value in enumerate(encode.values):
            codes[known[value]] = code
        found = Place(Table(self._raw[column], codes), 0)
        if encode.unseen == "refuse":
            checked = tuple(values_of(self._draft, [found]))
            refusal = self._draft.refusal(f"{column!r}")
            self._draft.append(layout.REFUSE_CODE, [Entry(checked, (), (unseen, refusal))])
        return found

    def _hash(self, column: str, encode: Hash) -> list[Column]:
        prefix = encode.prefix.encode()
        written = self._draft.new(encode.width)
        at = self._draft.put(np.array(tables.words_of(prefix), np.uint64).view(np.int64))
        leaves_zeros = encode.missing == "zeros"
        words = (self._string_at[column], encode.width, int(encode.signed), int(leaves_zeros), at, len(prefix))
        self._draft.append(layout.HASH, [Entry((), written, words)])
        return list(written)


def _values_by_column(block: Block) -> dict[str, dict[str, None]]:
    """The categories that any encoder of a string column knows, in the order of the encoders."""
    found: dict[str, dict[str, None]] = {}
    for text in texts(block):
        if isinstance(text.encode, Categories):
            found.setdefault(text.column, {}).update(dict.fromkeys(text.encode.values))
    return found
