"""Memory that kernels and Python share: arrays that stay where they are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.plain import layout


class Tables:
    """What all lanes of a worker share.

    Attributes:
        address: of the state.
        entries: the requests that lanes have.
        entries_at: its address.
        entry_of: the address of each slot's entry, 0 for none.
        generation: rises when numbers of plans are given anew.
    """

    def __init__(self, address: int, entries: NDArray[np.int64], entry_of: NDArray[np.int64]) -> None:
        self.address = address
        self.entries = entries
        self.entries_at: int = entries.ctypes.data
        self.entry_of = entry_of
        self.generation = 0

    def let_go(self, number: int) -> None:
        """Leaves the call of a request of a batch to others; its rows stay in the batch."""
        entry = self.entries[number]
        self.entry_of[entry[layout.N_SLOT // 8]] = 0
        entry[layout.N_STATE // 8] = layout.LEFT


class Memory:
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
