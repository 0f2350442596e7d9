"""The columns between the transformers of a pipeline: numbers, text, and what the graph computes.

A transformer takes parts, side by side as scikit-learn stacks them, and gives parts. This module picks parts and joins
them; the rules decide what a transformer does to them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import msgspec
import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from spox import Var

from penstock_server.features.spec import limits
from penstock_server.features.spec.blocks import Block, Join, Prepare, Take, Text
from penstock_server.features.spec.grams import Grams, Projection, Weigh, packed, packed_places
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
        prepare: what was done to each text before; `becomes` is about the texts as they are on the wire.
    """

    column: str
    becomes: Mapping[str, Meaning]
    otherwise: Meaning | None = None
    prepare: tuple[Prepare, ...] = ()

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
class Times:
    """One raw column of times."""

    column: str

    @property
    def width(self) -> int:
        """The number of columns."""
        return 1


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of texts that a function chose, as the number of each.

    Attributes:
        block: one column: 0 to K - 1 for each of the texts, any other number where a text is missing.
        texts: the K texts.
    """

    block: Block
    texts: tuple[str, ...]

    @property
    def width(self) -> int:
        """The number of columns."""
        return 1


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


@dataclass(frozen=True, slots=True)
class Words:
    """Columns that count the grams of a text; they may be a million, so they are weighed and summed before they are made.

    Attributes:
        column: the raw column of texts.
        encode: what counts and weighs them, without a projection.
        chosen: which of the encoder's columns these are, in their order; None for all.
    """

    column: str
    encode: Grams
    chosen: tuple[int, ...] | None = None

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.encode.columns.width if self.chosen is None else len(self.chosen)

    def weighed(self, *steps: Weigh) -> "Words":
        """The columns with further weights."""
        return replace(self, encode=msgspec.structs.replace(self.encode, weigh=(*self.encode.weigh, *steps)))

    def spread(self, values: NDArray[np.float64], others: float) -> NDArray[np.float64]:
        """Values of these columns as values of all that the encoder has."""
        if self.chosen is None:
            return np.asarray(values, np.float64)
        made = np.full((self.encode.columns.width, *values.shape[1:]), others)
        made[list(self.chosen)] = values
        return made

    def projected(self, weights: NDArray[np.float64]) -> Numbers:
        """The columns times a matrix [columns, outputs].

        Raises:
            Refused: it takes more than a specification may.
        """
        rows = self.spread(weights, 0.0)
        places = np.flatnonzero(rows.any(axis=1))
        is_sparse = 2 * len(places) < len(rows)
        kept = rows[places] if is_sparse else rows
        if kept.nbytes > MOST_WEIGHTS:
            raise Refused(
                f"the text {self.column!r} has {len(kept):,} terms for {kept.shape[1]:,} outputs; expected at most "
                f"{MOST_WEIGHTS // 8:,} coefficients: max_features or min_df of the vectorizer leaves out rare terms"
            )
        project = Projection(rows.shape[1], packed(kept), packed_places(places) if is_sparse else b"")
        return Numbers(Text(self.column, msgspec.structs.replace(self.encode, project=project)))

    def dense(self) -> Numbers:
        """The columns themselves.

        Raises:
            Refused: they are too many.
        """
        if self.encode.columns.width > limits.MAX_WIDTH and self.chosen and len(self.chosen) <= _MOST_PICKED:
            return self.projected(np.eye(len(self.chosen)))
        if self.encode.columns.width > limits.MAX_WIDTH:
            raise Refused(
                f"the text {self.column!r} has {self.encode.columns.width:,} columns, expected {limits.MAX_WIDTH:,} at most: "
                "max_features or n_features of the vectorizer makes them fewer; linear models, naive Bayes and TruncatedSVD "
                "take them all"
            )
        block = Text(self.column, self.encode)
        return Numbers(block if self.chosen is None else then(block, Select(self.chosen)))


MOST_WEIGHTS: Final = 40 << 20
"""The bytes of a text's coefficients; they take four thirds of that in a file."""
_MOST_PICKED: Final = 2048

Part = Numbers | Strings | Times | Coded | InGraph | Words
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
        if isinstance(part, Coded):
            raise Refused("a column is text when it gets there, which a function chose; make numbers of it first")
        if isinstance(part, Times):
            raise Refused(
                f"column {part.column!r} holds times when it gets there; take its parts first, such as .dt.hour"
            )
        if isinstance(part, InGraph):
            raise NotCompiled("what comes before it is in the graph")
    if not parts:
        raise NotCompiled("no columns reach it")
    made = [part.dense() if isinstance(part, Words) else part for part in parts]
    return join([part.block for part in made if isinstance(part, Numbers)])


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
    if isinstance(part, Words):
        return replace(part, chosen=tuple(columns if part.chosen is None else (part.chosen[at] for at in columns)))
    if isinstance(part, InGraph):
        return InGraph(part.block, _gathered(part.emit, columns), len(columns))
    name = "of texts that a function chose" if isinstance(part, Coded) else repr(part.column)
    raise Refused(f"column {name} is picked more than once in a row")


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
