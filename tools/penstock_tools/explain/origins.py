"""Which raw columns each feature is made of, read from the names that a specification gives its features.

A block's steps name what they make after what they took: a one-hot column after its column, a product after its factors.
So each column gets a mark in place of its name, and the marks in a feature's name are its raw columns. A feature without a
mark is made of all columns of its block. Scaling by the norm of a row is the one exception to what names tell: it leaves
each feature to its own column, though all columns share in the norm.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from penstock_server.explain.explanation import Origins
from penstock_server.features.spec.blocks import Block, Join
from penstock_server.features.spec.spec import FeatureSpec
from penstock_server.features.spec.steps import Name

_FIRST_MARK: Final = 0xF0000
"""Marks are characters of the planes for private use, which no name and no category has."""
_LAST_MARK: Final = 0x10FFFF

Columns = frozenset[int]


def origins_of(spec: FeatureSpec) -> Origins:
    """The raw columns of each feature, by their places in the specification."""
    at = {column.name: place for place, column in enumerate(spec.columns)}
    return grouped(_of_block(spec.features, at))


def grouped(columns: Sequence[Columns]) -> Origins:
    """The record of what each feature is made of."""
    groups: dict[tuple[int, ...], int] = {}
    group_of = [groups.setdefault(tuple(sorted(each)), len(groups)) for each in columns]
    return Origins(np.array(group_of, "<i4").tobytes(), tuple(groups))


def _of_block(block: Block, at: dict[str, int]) -> list[Columns]:
    if isinstance(block, Join):
        first = [columns for inner in block.blocks for columns in _of_block(inner, at)]
    else:
        own = [frozenset({at[name]}) for name in block.raw_columns]
        first = own if len(own) == block.first_width else [frozenset().union(*own)] * block.first_width
    names = tuple(Name(chr(_FIRST_MARK + place), name.codes) for place, name in enumerate(block.first_names))
    every: Columns = frozenset().union(*first)
    if len(every) == 1:
        return [every] * block.width
    for step in block.all_steps:
        names = step.names(names)
    return [frozenset().union(*(first[mark] for mark in _marks(name.text))) or every for name in names]


def _marks(text: str) -> Iterator[int]:
    return (ord(letter) - _FIRST_MARK for letter in text if _FIRST_MARK <= ord(letter) <= _LAST_MARK)
