"""Puts instructions of one operation together, so that what was written column by column costs one dispatch and not ten.

`program` calls it. A value's level is how many instructions lie between it and the raw columns: those of one level do not
read each other, and may be one.
"""

from collections.abc import Sequence
from typing import Final

from penstock_server.features.compiler import layout
from penstock_server.features.compiler.instructions import Instruction

MOST_VALUES: Final = 512
"""Of a larger program the instructions stay as they are: together, all columns would need their registers at once."""


def merged(instructions: Sequence[Instruction], values: int) -> list[Instruction]:
    """The same program in another order, with fewer instructions where it is not too large for that."""
    if values > MOST_VALUES:
        return list(instructions)
    levels = [0] * values
    groups: dict[tuple[int, int, int], list[Instruction]] = {}
    for at, instruction in enumerate(instructions):
        level = 1 + max((levels[value] for entry in instruction.entries for value in entry.reads), default=0)
        for entry in instruction.entries:
            for value in entry.writes:
                levels[value] = level
        # The entries of a norm are one row, and so no other's.
        alone = at if instruction.operation == layout.NORMALISE else -1
        groups.setdefault((level, instruction.operation, alone), []).append(instruction)
    ordered = sorted(groups.items(), key=lambda item: item[0][0])
    return [
        Instruction(operation, tuple(entry for each in group for entry in each.entries))
        for (_, operation, _), group in ordered
    ]
