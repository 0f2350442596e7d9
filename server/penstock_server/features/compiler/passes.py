"""Two passes over a program's instructions: one merges them, the next assigns registers to values.

A value is live from the instruction that writes it to the last that reads it. Values that are not live at the same time
may share a register. Register 0 holds no value: kernels use it as scratch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from penstock_server.features.compiler import layout
from penstock_server.features.compiler.instructions import Entry, Instruction, Value

IN_PLACE: Final = frozenset(range(layout.FILL, layout.FIRST_COLUMN)) | {
    layout.YEO_JOHNSON,
    layout.BOX_COX,
    layout.QUANTILES,
    layout.BUCKET,
    layout.MATCH,
    layout.LOOKUP,
    layout.NORMALISE,
    layout.BINARY,
    layout.CHOOSE,
    layout.CALENDAR,
}
"""Operations that may write where they read."""

MOST_VALUES: Final = 512
"""A larger program is not merged: all its columns would need their registers at once."""


def merge_instructions(instructions: Sequence[Instruction], values: int) -> list[Instruction]:
    """The same program in another order, with fewer instructions unless it is too large."""
    if values > MOST_VALUES:
        return list(instructions)
    levels = [0] * values
    groups: dict[tuple[int, int, int], list[Instruction]] = {}
    for at, instruction in enumerate(instructions):
        level = 1 + max((levels[value] for entry in instruction.entries for value in entry.reads), default=0)
        for entry in instruction.entries:
            for value in entry.writes:
                levels[value] = level
        # The entries of a norm are one row: two norms must not be merged.
        alone = at if instruction.operation == layout.NORMALISE else -1
        groups.setdefault((level, instruction.operation, alone), []).append(instruction)
    ordered = sorted(groups.items(), key=lambda item: item[0][0])
    return [
        Instruction(operation, tuple(entry for each in group for entry in each.entries))
        for (_, operation, _), group in ordered
    ]


def assign_registers(instructions: Sequence[Instruction], values: int) -> tuple[list[int], int]:
    """The register of each value, and how many registers there are."""
    assignment = _Assignment([0] * values, _last_reads(instructions, values))
    for at, instruction in enumerate(instructions):
        assignment.take(at, instruction)
    return assignment.registers, assignment.height


def _last_reads(instructions: Sequence[Instruction], values: int) -> list[int]:
    last = [-1] * values
    for at, instruction in enumerate(instructions):
        for entry in instruction.entries:
            for value in entry.reads:
                last[value] = at
    return last


@dataclass(slots=True)
class _Assignment:
    registers: list[int]
    last_reads: list[int]
    height: int = 1
    free: list[int] = field(default_factory=list)

    def take(self, at: int, instruction: Instruction) -> None:
        """Gives registers to what an instruction writes, and frees those of the values that it reads last."""
        times: dict[Value, int] = {}
        for entry in instruction.entries:
            for value in entry.reads:
                times[value] = times.get(value, 0) + 1
        kept = set()
        for entry in instruction.entries:
            if self._is_reusable(at, instruction, entry, times):
                self.registers[entry.writes[0]] = self.registers[entry.reads[0]]
                kept.add(entry.reads[0])
            else:
                self._place(entry.writes)
        for value in times:
            if self.last_reads[value] == at and value not in kept:
                heappush(self.free, self.registers[value])
        for entry in instruction.entries:
            for value in entry.writes:
                # Written and never read: a column that is only counted, or one of several that no step takes.
                if self.last_reads[value] < 0:
                    heappush(self.free, self.registers[value])

    def _is_reusable(self, at: int, instruction: Instruction, entry: Entry, times: dict[Value, int]) -> bool:
        if instruction.operation not in IN_PLACE or len(entry.writes) != 1:
            return False
        source = entry.reads[0]
        return self.last_reads[source] == at and times[source] == 1

    def _place(self, values: Sequence[Value]) -> None:
        if len(values) == 1 and self.free:
            self.registers[values[0]] = heappop(self.free)
            return
        # Side by side, so on top: a search for a gap would rarely find one.
        for value in values:
            self.registers[value] = self.height
            self.height += 1
