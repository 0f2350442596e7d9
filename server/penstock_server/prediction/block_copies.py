"""Which of a champion's blocks hold the rows that a shadow takes, and how they become the shadow's own.

The two may have been published in different ways, such as a plain graph with a drift baseline and one without: one holds as
float64 then what the other holds as float32. What a caller could not send to both is not copied.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from penstock.tensors import NUMPY_TYPES
from penstock_server.prediction.decode import Block, Decoder

_FLOATS: Final = frozenset({"FP32", "FP64"})


class BlockCopy(NamedTuple):
    """How one of the shadow's blocks comes from the champion's.

    Attributes:
        at: which of the champion's blocks it is.
        cast: the types of its numbers there and in the shadow; None where they are the same.
    """

    at: int
    cast: "tuple[np.dtype[Any], np.dtype[Any]] | None" = None

    def of(self, blocks: Sequence[bytes]) -> bytes:
        """The shadow's block from the champion's; a number that is too large for the shadow's type becomes an infinity."""
        block = blocks[self.at]
        if self.cast is None:
            return block
        given, taken = self.cast
        with np.errstate(over="ignore"):
            return np.frombuffer(block, given).astype(taken).tobytes()


def block_copies(shadow: Decoder, champion: Decoder) -> tuple[BlockCopy, ...] | None:
    """How each of the shadow's blocks comes from the champion's; None if the two take different inputs."""
    are_named = bool(shadow.columns and champion.columns)
    if not are_named and shadow.matrix is not None and shadow.matrix == champion.matrix:
        return (_copy(0, shadow.blocks[0], champion.blocks[0]),)
    places = {_known_by(block, by_type=not are_named): at for at, block in enumerate(champion.blocks)}
    found = [(block, places.get(_known_by(block, by_type=not are_named))) for block in shadow.blocks]
    copies = [_copy(at, block, champion.blocks[at]) for block, at in found if at is not None]
    return tuple(copies) if len(copies) == len(found) else None


def _known_by(block: Block, *, by_type: bool) -> tuple[Any, ...]:
    """What two blocks with the same content have in common. Columns may be sent as any type of float, other tensors as one."""
    kind = "float" if not by_type and block.datatype in _FLOATS else block.datatype
    return block.names, kind, block.row_shape


def _copy(at: int, block: Block, given: Block) -> BlockCopy:
    if block.datatype == given.datatype:
        return BlockCopy(at)
    return BlockCopy(at, (NUMPY_TYPES[given.datatype], NUMPY_TYPES[block.datatype]))
