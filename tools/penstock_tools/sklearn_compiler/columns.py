"""The columns between the transformers of a pipeline: numbers, text, and what the graph computes.

A transformer takes parts, side by side as scikit-learn stacks them, and gives parts. This module picks parts and joins
them; the rules decide what a transformer does to them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
import spox.opset.ai.onnx.v18 as op
from spox import Var

from penstock_server.features.spec.blocks import Block, Join, Take
from penstock_server.features.spec.steps import Select, Step
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused
from penstock_tools.sklearn_compiler.sample import Missing


@dataclass(frozen=True, slots=True)
class Numbers:
    """Columns of numbers that a block of the specification gives."""

    block: Block

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.block.width


Meaning = str | frozenset[Missing]
"""What a text on the wire stands for: a text, or a missing value of any of these kinds."""


@dataclass(frozen=True, slots=True)
class Strings:
    """One raw column of text, not yet turned into numbers.

    Attributes:
        column: its name.
        becomes: what texts on the wire stand for by now, where that is not the text itself. At first "" alone: it stands
            for any of these kinds of missing value, and for another text once an imputer has replaced them.
        otherwise: what all texts that are not in `becomes` stand for; None where each stands for itself.
    """

    column: str
    becomes: Mapping[str, Meaning]
    otherwise: Meaning | None = None

    @property
    def width(self) -> int:
        """The number of columns."""
        return 1

    def texts(self, known: Iterable[str]) -> dict[str, Meaning]:
        """The texts on the wire that are told apart by who knows these texts, with their meanings.

        Any other text means `otherwise`, or a text that is not known.
        """
        own = known if self.otherwise is None else ()
        return {**{text: text for text in own if text not in self.becomes}, **self.becomes}


Emitter = Callable[[Var, Context], Var]
"""Writes what the graph computes: from a block's columns [rows, width], of the graph's datatype, to others [rows, ...]."""


@dataclass(frozen=True, slots=True)
class InGraph:
    """Columns that the ONNX graph computes from a block's.

    Attributes:
        block: what goes in.
        emit: writes what the graph computes from it.
        width: how many columns come out.
    """

    block: Block
    emit: Emitter
    width: int


Part = Numbers | Strings | InGraph
Parts = tuple[Part, ...]


def numbers(parts: Sequence[Part]) -> Block:
    """The block of parts that are all numbers.

    Raises:
        Refused: one is text.
        NotCompiled: one is made by the graph, or there are none.
    """
    for part in parts:
        if isinstance(part, Strings):
            raise Refused(f"column {part.column!r} is text when it gets there; make numbers of it first")
        if isinstance(part, InGraph):
            raise NotCompiled("what comes before it is in the graph")
    if not parts:
        raise NotCompiled("no columns reach it")
    return join([part.block for part in parts if isinstance(part, Numbers)])


def then(block: Block, *steps: Step) -> Block:
    """The block with further steps."""
    return msgspec.structs.replace(block, steps=(*block.steps, *steps))


def join(blocks: Sequence[Block]) -> Block:
    """The blocks side by side; adjacent raw columns become one block."""
    merged: list[Block] = []
    for block in (inner for one in blocks for inner in _flattened(one)):
        last = merged[-1] if merged else None
        if isinstance(last, Take) and isinstance(block, Take) and not last.steps and not block.steps:
            merged[-1] = Take((*last.columns, *block.columns))
        else:
            merged.append(block)
    return merged[0] if len(merged) == 1 else Join(tuple(merged))


def together(parts: Iterable[Part]) -> Parts:
    """The parts with adjacent parts of numbers made one, so that one step serves all their columns."""
    made: list[Part] = []
    for is_numbers, run in groupby(parts, key=lambda part: isinstance(part, Numbers)):
        members = list(run)
        made += [Numbers(numbers(members))] if is_numbers else members
    return tuple(made)


def pick(parts: Sequence[Part], columns: Sequence[int]) -> Parts:
    """These columns of the parts, in this order; runs within one part stay together."""
    owners = [(at, column) for at, part in enumerate(parts) for column in range(part.width)]
    runs = groupby((owners[column] for column in columns), key=lambda owner: owner[0])
    return together(_picked(parts[at], [column for _, column in run]) for at, run in runs)


def singles(parts: Sequence[Part]) -> Parts:
    """Each column as a part of its own.

    Raises:
        NotCompiled: several of them are made by the graph together.
    """
    return tuple(part if part.width == 1 else _picked(part, [column]) for part in parts for column in range(part.width))


def _picked(part: Part, columns: list[int]) -> Part:
    if columns == list(range(part.width)):
        return part
    if isinstance(part, Numbers):
        return Numbers(_selected(part.block, columns))
    if isinstance(part, InGraph):
        return InGraph(part.block, _gathered(part.emit, columns), len(columns))
    raise Refused(f"column {part.column!r} is picked more than once in a row")


def _gathered(emit: Emitter, columns: list[int]) -> Emitter:
    return lambda x, context: op.gather(emit(x, context), op.const(columns), axis=1)


def _selected(block: Block, columns: list[int]) -> Block:
    """Some columns of a block. Raw columns and blocks of a join are left out where possible, else a step selects."""
    if isinstance(block, Take) and not block.steps:
        return Take(tuple(block.columns[at] for at in columns))
    if isinstance(block, Join) and not block.steps:
        return numbers(pick([Numbers(inner) for inner in block.blocks], columns))
    return then(block, Select(tuple(columns)))


def _flattened(block: Block) -> Sequence[Block]:
    return block.blocks if isinstance(block, Join) and not block.steps else (block,)
