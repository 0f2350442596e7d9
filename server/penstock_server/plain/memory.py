"""Memory that kernels and Python share: arrays that stay where they are."""

import ctypes
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import PenstockError
from penstock_server.plain import layout


class Port(Protocol):
    """What ends calls that are refused, whose number is their slot."""

    def send_replies(self, operations: int, count: int, block: int, *, is_shared: bool = False) -> None:
        """Does what kernels wrote at these addresses."""

    def ending(self, error: PenstockError) -> bytes:
        """What kernels are to write for a call that ends with this error."""
        ...


class Tables:
    """What all lanes of a worker share.

    Args:
        state: a row of the table.
        port: the transport.

    Attributes:
        address: of the state.
        entries: the requests that lanes have.
        entries_at: its address.
        entry_of: the address of each slot's entry, 0 for none.
    """

    def __init__(
        self, state: NDArray[np.int64], entries: NDArray[np.int64], entry_of: NDArray[np.int64], port: Port
    ) -> None:
        self.address: int = state.ctypes.data
        self._cells = state.data
        self._port = port
        self.entries = entries
        self.entries_at: int = entries.ctypes.data
        self.entry_of = entry_of

    def tell_refused(self) -> None:
        """Has the transport end the calls that kernels have refused; they are counted before."""
        if count := self._cells[layout.T_REFUSED_COUNT // 8]:
            self._cells[layout.T_REFUSED_COUNT // 8] = 0
            self._port.send_replies(self._cells[layout.T_REFUSED // 8], count, 0)

    def send_replies(self, *, is_shared: bool = False) -> None:
        """Has the transport send the replies that kernels have written; others may have the interpreter meanwhile."""
        cells = self._cells
        if count := cells[layout.T_REPLY_COUNT // 8]:
            cells[layout.T_REPLY_COUNT // 8] = cells[layout.T_BLOCK_SIZE // 8] = 0
            self._port.send_replies(
                cells[layout.T_REPLIES // 8], count, cells[layout.T_BLOCK // 8], is_shared=is_shared
            )

    def taken_batch(self) -> tuple[int, int]:
        """Where the entries of the batch are that kernels have taken, and how many there are."""
        return self._cells[layout.T_BATCH // 8], self._cells[layout.T_BATCH_COUNT // 8]

    def output(self, number: int, size: int) -> bytes:
        """So many bytes of an output of the batch that kernels have run last."""
        row = self._cells[layout.T_BUFFERS // 8] + number * layout.BLOCK_BYTES
        return ctypes.string_at(ctypes.c_int64.from_address(row + layout.B_DATA).value, size)

    def ending(self, error: PenstockError) -> bytes:
        """What kernels write for a call that ends with this error."""
        return self._port.ending(error)

    def let_go(self, number: int) -> None:
        """Leaves the call of a request of a batch to others; its rows stay in the batch."""
        entry = self.entries[number]
        self.entry_of[entry[layout.N_SLOT // 8]] = 0
        entry[layout.N_STATE // 8] = layout.LEFT


def address_of(content: bytes) -> int:
    """Where bytes lie, as long as something keeps them."""
    return ctypes.cast(ctypes.c_char_p(content), ctypes.c_void_p).value or 0


def address_of_rows(rows: Any) -> int:
    """Where bytes or an array lie, as long as something keeps them; in a third of the time that `ctypes.data` takes."""
    if isinstance(rows, bytes):
        return address_of(rows)
    if not rows.flags.writeable or not rows.nbytes:
        return int(rows.ctypes.data)
    return ctypes.addressof(ctypes.c_char.from_buffer(rows))


class LaneMemory:
    """Makes arrays, and keeps them as long as it lives."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def words(self, *shape: int) -> NDArray[np.int64]:
        array = np.zeros(shape, np.int64)
        self._kept.append(array)
        return array

    def kept(self, array: Any) -> Any:
        self._kept.append(array)
        return array
