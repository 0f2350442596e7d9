"""Rules of the encoders of categories: OneHotEncoder, OrdinalEncoder and TargetEncoder, of numbers and of text.

`known` says which category a text or number on the wire is, `probe` what the encoder makes of each. What the encoder
refuses, the server refuses too, row by row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock_server.features.spec import spec
from penstock_server.features.spec.step_base import Unseen
from penstock_server.features.spec.steps import Lookup, Match, OneHot, Step
from penstock_tools.sklearn_compiler import known, probe
from penstock_tools.sklearn_compiler.columns import InGraph, Numbers, Part, Parts, Strings, then
from penstock_tools.sklearn_compiler.refusals import NotCompiled


@dataclass(frozen=True, slots=True)
class _Column:
    """What is known of one column: its categories, and what a code becomes."""

    categories: Sequence[Any]
    outcome: Any


ToSteps = Callable[[Sequence[_Column], Sequence[Sequence[int]]], list[Step]]
"""Makes the steps of columns side by side, given which category each of their codes means."""


def one_hot(encoder: Any, parts: Parts) -> Parts:
    """OneHotEncoder: dropped, infrequent and unseen categories are all a matter of where the one goes, or that none does."""
    outcomes = [
        (places, _unseen_place(encoder, at, places), width)
        for at, (places, width) in enumerate(probe.one_hot_places(encoder))
    ]
    unseen: Unseen = "refuse" if encoder.handle_unknown == "error" else "code"
    return _encoded(encoder, parts, outcomes, unseen, _one_hot_steps)


def ordinal(encoder: Any, parts: Parts) -> Parts:
    """OrdinalEncoder."""
    is_refusing = encoder.handle_unknown == "error"
    of_unseen = (0.0 if is_refusing else float(encoder.unknown_value),)
    outcomes = [(numbers, of_unseen) for numbers in probe.numbers(encoder)]
    return _encoded(encoder, parts, outcomes, "refuse" if is_refusing else "code", _lookup_steps)


def target(encoder: Any, parts: Parts) -> Parts:
    """TargetEncoder, as it transforms new rows: what it never saw becomes the mean of the target."""
    of_unseen = tuple(np.atleast_1d(encoder.target_mean_).tolist())
    outcomes = [(numbers, of_unseen) for numbers in probe.numbers(encoder)]
    return _encoded(encoder, parts, outcomes, "code", _lookup_steps)


def _encoded(encoder: Any, parts: Parts, outcomes: Sequence[Any], unseen: Unseen, to_steps: ToSteps) -> Parts:
    columns = [_Column(*each) for each in zip(encoder.categories_, outcomes, strict=True)]
    made: list[Part] = []
    at = 0
    for part in parts:
        made.append(_encoded_part(part, columns[at : at + part.width], unseen, to_steps))
        at += part.width
    return tuple(made)


def _encoded_part(part: Part, columns: Sequence[_Column], unseen: Unseen, to_steps: ToSteps) -> Part:
    if isinstance(part, InGraph):
        raise NotCompiled("what comes before it is in the graph")
    if isinstance(part, Strings):
        encode, meant = known.texts(part, columns[0].categories, unseen)
        return Numbers(spec.Text(part.column, encode, tuple(to_steps(columns, [meant]))))
    names = [name.text for name in part.block.names]
    values = tuple(known.numbers(name, column.categories) for name, column in zip(names, columns, strict=True))
    meant_each = [range(len(column.categories)) for column in columns]
    return Numbers(then(part.block, Match(values, unseen), *to_steps(columns, meant_each)))


def _one_hot_steps(columns: Sequence[_Column], meant: Sequence[Sequence[int]]) -> list[Step]:
    maps, widths = [], []
    for column, categories in zip(columns, meant, strict=True):
        places, of_unseen, width = column.outcome
        maps.append((*(places[category] for category in categories), of_unseen))
        widths.append(width)
    return [OneHot(tuple(maps), tuple(widths))]


def _lookup_steps(columns: Sequence[_Column], meant: Sequence[Sequence[int]]) -> list[Step]:
    tables = []
    for column, categories in zip(columns, meant, strict=True):
        numbers, of_unseen = column.outcome
        tables.append((*(numbers[category] for category in categories), of_unseen))
    return [Lookup(tuple(tables))]


def _unseen_place(encoder: Any, column: int, places: Sequence[int]) -> int:
    """The place of the infrequent categories where the unseen count as such; none otherwise."""
    if encoder.handle_unknown not in ("infrequent_if_exist", "warn"):
        return -1
    infrequent = (getattr(encoder, "infrequent_categories_", None) or {column: None})[column]
    if infrequent is None:
        return -1
    return places[list(encoder.categories_[column]).index(infrequent[0])]
