"""Decides what a specification accepts, from what the pipeline and the compiled version made of certain values.

`edges` asks both. Where the pipeline refuses or the compiled version answers otherwise, the columns refuse such values,
or a step in front of the model refuses what usual values become. A column that was not asked about, because there are
too many or the pipeline is slow, accepts no more than the strictest of those that were.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock_server.features.spec import steps
from penstock_server.features.spec.blocks import Block, Join
from penstock_server.features.spec.spec import Column, FeatureSpec, NumberColumn, StringColumn
from penstock_tools.sklearn_compiler.columns import then
from penstock_tools.sklearn_compiler.outcomes import Outcome
from penstock_tools.sklearn_compiler.sample import Missing, Sample

TOLERANCE: Final = 1e-5
"""How far an answer may be off, as a share of the row's largest value; that of `proof`."""
LARGEST_SINGLE: Final = float(np.finfo(np.float32).max)
LARGEST_DOUBLE: Final = float(np.finfo(np.float64).max)
HUGE: Final = (1e15, 3e38, 1e39, 1e300)
"""What is still exact to a unit, what float32 holds, what it does not, and what overflows when it is squared."""
_MODEST: Final = 1e12
"""What is accepted at most where the smallest of these is answered otherwise."""


@dataclass(frozen=True, slots=True)
class Question:
    """A value that may come in a column.

    Attributes:
        name: what people call it.
        column: where it is put.
        given: the value in the pipeline's rows.
        wire: the same in a request.
        size: the magnitude, for infinite and huge numbers; 0 for others.
    """

    name: str
    column: str
    given: Any
    wire: Any
    size: float = 0.0

    @property
    def is_missing(self) -> bool:
        """Whether it asks about a missing value."""
        return self.name == "missing"

    @property
    def is_number(self) -> bool:
        """Whether it asks about a number."""
        return not self.is_missing and isinstance(self.wire, float)

    @property
    def is_usual(self) -> bool:
        """Whether it asks about a value that any column may hold."""
        return not self.is_missing and not self.size


@dataclass(frozen=True, slots=True)
class Found:
    """What both sides make of a question on one row.

    Attributes:
        question: what was asked.
        expected: the pipeline's outcome.
        got: that of the compiled version.
        features: what reaches the graph, in float64 [width]; None where the specification refuses the row.
    """

    question: Question
    expected: Outcome
    got: Outcome
    features: NDArray[np.float64] | None

    @property
    def is_alike(self) -> bool:
        """Whether both refuse, or both answer alike."""
        if self.expected.is_refusal or self.got.is_refusal:
            return self.expected.is_refusal == self.got.is_refusal
        return self.got.is_like(self.expected, TOLERANCE)

    @property
    def is_to_be_refused(self) -> bool:
        """Whether the pipeline refuses it, or answers otherwise than the compiled version."""
        return self.expected.is_refusal or (not self.is_alike and not self.got.is_refusal)

    @property
    def is_answer_to_a_refusal(self) -> bool:
        """Whether the pipeline refuses what the compiled version answers."""
        return self.expected.is_refusal and not self.got.is_refusal


def guarded(features: FeatureSpec, found: Sequence[Found]) -> FeatureSpec:
    """The specification that refuses what usual values become and the model refuses: NaN, or what is too large for it.

    A block stays as it was where the pipeline takes such values in one of its columns.
    """
    refused = [
        each.features
        for each in found
        if each.is_answer_to_a_refusal and each.features is not None and each.question.is_usual
    ]
    if not refused:
        return features
    answered = [each.features for each in found if not each.expected.is_refusal and each.features is not None]
    # Infinities alone say nothing about float32.
    is_single = any(bool(_is_double_alone(row).any()) for row in refused)
    size = LARGEST_SINGLE if is_single else LARGEST_DOUBLE
    reached = _Reached(_seen(np.isnan, refused, answered), _seen(partial(_exceeds, size), refused, answered), size)
    return msgspec.structs.replace(features, features=_with_guards(features.features, reached))


@dataclass(frozen=True, slots=True)
class _Reached:
    """What reached the model, by the columns of a block.

    Attributes:
        missing: 1 where NaN did in rows that the pipeline refused alone, -1 where also in one that it answered, else 0.
        large: the same of magnitudes above `size`.
        size: what they are compared with.
    """

    missing: NDArray[np.int8]
    large: NDArray[np.int8]
    size: float

    def parted(self, width: int) -> tuple["_Reached", "_Reached"]:
        """What reached the first columns, and what the others."""
        first = _Reached(self.missing[:width], self.large[:width], self.size)
        return first, _Reached(self.missing[width:], self.large[width:], self.size)

    def guard(self) -> steps.Refuse | None:
        """The step that refuses it; None where there is nothing to refuse."""
        refuses_nan, refuses_large = _is_refused(self.missing), _is_refused(self.large)
        if not refuses_nan and not refuses_large:
            return None
        return steps.Refuse(refuses_nan, self.size if refuses_large else None)


def _seen(
    holds: Callable[[NDArray[np.float64]], Any],
    refused: Sequence[NDArray[np.float64]],
    answered: Sequence[NDArray[np.float64]],
) -> NDArray[np.int8]:
    in_refused = np.any([holds(row) for row in refused], axis=0)
    in_answered = np.any([holds(row) for row in answered], axis=0) if answered else np.zeros_like(in_refused)
    return np.where(in_answered, -1, in_refused).astype(np.int8)


def _is_refused(seen: NDArray[np.int8]) -> bool:
    return bool((seen > 0).any()) and not bool((seen < 0).any())


def _is_double_alone(row: NDArray[np.float64]) -> Any:
    return np.isfinite(row) & (np.abs(row) > LARGEST_SINGLE)


def _exceeds(size: float, row: NDArray[np.float64]) -> Any:
    return np.abs(row) > size


def _with_guards(block: Block, reached: _Reached) -> Block:
    """The block with a guard at its end; blocks that stand side by side have each their own, as they are written one by one."""
    if isinstance(block, Join) and not block.steps:
        made = []
        for each in block.blocks:
            own, reached = reached.parted(each.width)
            made.append(_with_guards(each, own))
        return msgspec.structs.replace(block, blocks=tuple(made))
    guard = reached.guard()
    return block if guard is None else then(block, guard)


def accepting(
    columns: Sequence[Column], sample: Sample, found: Sequence[Found]
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The columns that say what they accept, and what people should know of it.

    Those that were not asked about accept no more than the strictest of their kind, and missing values that the sample
    holds, since the proof has seen them answered alike.
    """
    by_column = {column.name: [each for each in found if each.question.column == column.name] for column in columns}
    refuses = {
        name: any(each.is_to_be_refused for each in own)
        for name, own in _asked(by_column, lambda each: each.is_missing)
    }
    sizes = {
        name: _largest([each for each in own if each.question.size])
        for name, own in _asked(by_column, lambda each: each.is_number)
    }
    strict = {type(column) for column in columns if refuses.get(column.name)}
    smallest = min((size for size in sizes.values() if size is not None), default=None)
    texts = {column.name for column in sample.columns if column.missing == frozenset({Missing.EMPTY})}
    unasked = [
        column.name
        for column in columns
        if column.name not in refuses and type(column) in strict and not _lacks_some(sample, column.name)
    ]
    made: list[Column] = []
    for column in columns:
        refused = "text" if isinstance(column, StringColumn) and column.name in texts else "refuse"
        is_refused = refuses.get(column.name, column.name in unasked)
        changed = msgspec.structs.replace(column, missing=refused if is_refused else "accept")
        if isinstance(changed, NumberColumn):
            changed = msgspec.structs.replace(changed, largest=sizes.get(column.name, smallest))
        made.append(changed)
    told = [
        f"{what} in {listed(names)} are refused, since the compiled version would answer them otherwise than the pipeline"
        for what, names in _refused_alone(by_column).items()
    ]
    if unasked:
        told.append(
            f"missing values in {listed(unasked)} are refused as in others, since the pipeline takes too long to be asked "
            "about each column"
        )
    return tuple(made), tuple(told)


def _asked(
    by_column: Mapping[str, Sequence[Found]], which: Callable[[Question], bool]
) -> Iterator[tuple[str, list[Found]]]:
    """The columns that were asked questions of this kind, and what was found."""
    for name, found in by_column.items():
        own = [each for each in found if which(each.question)]
        if own:
            yield name, own


def _refused_alone(by_column: Mapping[str, Sequence[Found]]) -> dict[str, list[str]]:
    """The columns by what is refused in them although the pipeline answers it."""
    told: dict[str, list[str]] = {}
    for name, found in by_column.items():
        wrong = [each.question for each in found if not each.is_alike and not each.expected.is_refusal]
        if any(each.is_missing for each in wrong):
            told.setdefault("missing values", []).append(name)
        if any(not each.is_missing and isinstance(each.wire, str) for each in wrong):
            told.setdefault("texts that training never saw", []).append(name)
        if any(each.size for each in wrong):
            told.setdefault("huge numbers", []).append(name)
    return told


def _lacks_some(sample: Sample, name: str) -> bool:
    values = sample.table[name]
    return bool(pd.isna(values).any()) or (
        values.dtype.kind == "O" and any(isinstance(each, str) and not each for each in values)
    )


def _largest(sized: Sequence[Found]) -> float | None:
    """The largest magnitude up to which both sides agree; None where they do at all sizes."""
    wrong = [each.question.size for each in sized if each.is_to_be_refused and not each.got.is_refusal]
    if not wrong:
        return None
    smaller = [size for size in HUGE if size < min(wrong)]
    if min(wrong) == np.inf:
        return LARGEST_DOUBLE
    # Between what float32 holds and what it does not, it is float32 that decides.
    return LARGEST_SINGLE if smaller and smaller[-1] == HUGE[1] else (smaller[-1] if smaller else _MODEST)


def listed(names: Sequence[str]) -> str:
    """The first few names, for people."""
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
