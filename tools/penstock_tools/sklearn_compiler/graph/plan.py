"""What reaches each estimator of a model, wherever it is: its columns of the graph's input, and what is in front of it.

A container of whole pipelines reads one matrix, in which the features of all of them stand side by side. `walk` makes the
plan, `layout` says which columns are whose, and `estimators.emit` follows it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from penstock_server.features.spec.blocks import Block, Join, Take
from penstock_tools.sklearn_compiler.columns import InGraph, join


@dataclass(frozen=True, slots=True)
class Plan:
    """An estimator and what reaches it.

    Attributes:
        estimator: fitted, without transformers in front of it; None where there are transformers alone.
        source: what reaches it; None for a container that leaves the rows to its members.
        members: the plans of the estimators that it holds, by the `id` of what it holds, such as a whole pipeline.
        columns: the places of the source's block in the graph's input; None for all of them.
    """

    estimator: Any
    source: InGraph | None
    members: Mapping[int, "Plan"] = field(default_factory=dict)
    columns: tuple[int, ...] | None = None


def layout(plan: Plan) -> tuple[Block, Plan]:
    """The block of the graph's input, and the plan with the columns of each source in it.

    Equal blocks stand there once.
    """
    blocks = [source.block for source in _sources(plan)]
    if all(block == blocks[0] for block in blocks):
        return blocks[0], plan
    shelf = _Shelf()
    for block in blocks:
        shelf.places(block)
    return join(shelf.blocks), _placed(plan, shelf)


def _sources(plan: Plan) -> Iterator[InGraph]:
    if plan.source is not None:
        yield plan.source
    for member in plan.members.values():
        yield from _sources(member)


def _placed(plan: Plan, shelf: "_Shelf") -> Plan:
    columns = None if plan.source is None else shelf.places(plan.source.block)
    return replace(plan, columns=columns, members={key: _placed(member, shelf) for key, member in plan.members.items()})


class _Shelf:
    """Blocks side by side, each once."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._at: dict[bytes, int] = {}
        self._width = 0

    def places(self, block: Block) -> tuple[int, ...]:
        """Where the block's columns are; what is not there yet is put behind the others."""
        return tuple(at for piece in _pieces(block) for at in self._piece(piece))

    def _piece(self, piece: Block) -> range:
        # A block's bytes say what it is, as a file of it would.
        key = msgspec.json.encode(piece)
        if key not in self._at:
            self._at[key] = self._width
            self._width += piece.width
            self.blocks.append(piece)
        start = self._at[key]
        return range(start, start + piece.width)


def _pieces(block: Block) -> Sequence[Block]:
    if isinstance(block, Join) and not block.steps:
        return [piece for inner in block.blocks for piece in _pieces(inner)]
    if isinstance(block, Take) and not block.steps:
        return [Take((column,)) for column in block.columns]
    return [block]
