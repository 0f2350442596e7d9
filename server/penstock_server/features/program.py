"""Writes a specification, and the baseline if there is one, as the program that the kernels read.

It decides nothing about features: `spec` says what is meant, `layout` where it lies. `pipeline` calls it once a version.
"""

import numpy as np
from numpy.typing import NDArray

from penstock_server.features import layout
from penstock_server.features.baseline import Baseline
from penstock_server.features.baseline_columns import NumberBaseline, StringBaseline
from penstock_server.features.spec import FeatureSpec, NumberColumn, StringColumn
from penstock_server.features.steps import Bucket, Clip, Fill, Log1p, Standardise, Step

_MASK_64 = 2**64 - 1


def compile_program(spec: FeatureSpec, baseline: Baseline | None) -> NDArray[np.int64]:
    """The program as one block of words, to be kept as long as a kernel may read it."""
    return _Writer(spec, baseline).program()


def parameters(step: Step) -> tuple[int, tuple[float, ...]]:
    """A step's operation and parameters; an open side of a clip is an infinity."""
    match step:
        case Fill(value):
            return layout.FILL, (value,)
        case Clip(low, high):
            return layout.CLIP, (-np.inf if low is None else low, np.inf if high is None else high)
        case Log1p():
            return layout.LOG1P, ()
        case Standardise(mean, scale):
            return layout.STANDARDISE, (mean, scale)
        case Bucket(edges):
            return layout.BUCKET, edges


def first_slot(text: list[int], mask: int) -> int:
    """Where in a table of `mask` + 1 slots the search for a category begins, given as words."""
    mixed = layout.HASH_START
    for word in text:
        mixed = (mixed ^ word) * layout.HASH_PRIME & _MASK_64
        mixed ^= mixed >> 32
    return mixed & mask


class _Writer:
    """The words and the text written so far; positions are known once something is appended."""

    def __init__(self, spec: FeatureSpec, baseline: Baseline | None) -> None:
        self._spec = spec
        self._baseline = baseline
        self._words = [0] * (layout.HEADER_WORDS + len(spec.columns) * layout.COLUMN_WORDS)

    def program(self) -> NDArray[np.int64]:
        numbers = strings = target = 0
        for at, column in enumerate(self._spec.columns):
            if isinstance(column, NumberColumn):
                self._number(at, column, numbers, target)
                numbers += 1
            else:
                self._string(at, column, strings, target)
                strings += 1
            target += column.width
        cells = self._baseline.cells_shape[1] if self._baseline else 0
        self._words[: layout.HEADER_WORDS] = [len(self._words), at + 1, numbers, strings, target, cells]
        return np.array(self._words, np.int64)

    def _record(self, at: int, *values: int) -> None:
        start = layout.HEADER_WORDS + at * layout.COLUMN_WORDS
        self._words[start : start + layout.COLUMN_WORDS] = values

    def _append(self, words: list[int]) -> int:
        at = len(self._words)
        self._words += words
        return at

    def _number(self, at: int, column: NumberColumn, source: int, target: int) -> None:
        data = len(self._words)
        for step in column.steps:
            operation, values = parameters(step)
            self._append([operation, len(values), *_bits(values)])
        drift = self._baseline.columns[at] if self._baseline else None
        edges = drift.edges if isinstance(drift, NumberBaseline) else ()
        cells = self._append(_bits(edges))
        self._record(at, layout.NUMBER, source, target, data, len(column.steps), cells, len(edges))

    def _string(self, at: int, column: StringColumn, source: int, target: int) -> None:
        kind = layout.ONE_HOT if column.encoding == "one_hot" else layout.ORDINAL
        count = len(column.categories)
        table = self._table([category.encode() for category in column.categories])
        drift = self._baseline.columns[at] if self._baseline else None
        cells = self._append(drift.cell_of_code(count) if isinstance(drift, StringBaseline) else [])
        self._record(at, kind, source, target, table, count, cells, count)

    def _table(self, categories: list[bytes]) -> int:
        size = 2
        while size < 4 * len(categories):
            size *= 2
        slots = [[-1, 0, 0] for _ in range(size)]
        for code, category in enumerate(categories):
            text = _text(category)
            slot = first_slot(text, size - 1)
            while slots[slot][layout.SLOT_CODE] >= 0:
                slot = (slot + 1) & (size - 1)
            slots[slot] = [code, self._append(_signed(text)), len(category)]
        table = self._append([size - 1, max(map(len, categories), default=0)])
        self._append([word for slot in slots for word in slot])
        return table


def _text(category: bytes) -> list[int]:
    parts = (category[at : at + layout.WORD_BYTES] for at in range(0, len(category), layout.WORD_BYTES))
    return [int.from_bytes(part, "little") for part in parts]


def _signed(words: list[int]) -> list[int]:
    signed: list[int] = np.array(words, np.uint64).view(np.int64).tolist()
    return signed


def _bits(values: tuple[float, ...]) -> list[int]:
    words: list[int] = np.array(values, np.float64).view(np.int64).tolist()
    return words
