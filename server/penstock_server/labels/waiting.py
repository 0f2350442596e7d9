"""Labels whose answers are not there yet: they wait in a file, for a while, and in a bounded number.

A label may come before its answer: that lies in another worker's file, a shadow is late, or another server has it. A place
in the file whose label is done has the step of the joiner in which that came; after a crash what later steps did is undone.
"""

import mmap
import os
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.labels.wire import KEY, PASSED_ON, RECORD_BYTES, ROW

PLACES: Final = 262144
"""16 MiB: at 50,000 labels a second without answers, those of five seconds. Beyond that the oldest are given up."""
NAME: Final = "waiting"
_DONE: Final = 7
"""The word of a record that says in which step the label was done; 0 while it waits."""
_STAYS, _LEAVES, _PASSED = range(3)
_NEVER: Final = np.iinfo(np.int64).max


class WaitingLabels:
    """The labels that wait.

    Args:
        folder: where their file is; made if there is none.
        first, end: the numbers of the oldest that may wait and of the next, as the last state has them.
        step: the last one that came to its end.
        now_ns: since 1970.
        settle_ns: how long those that wait already are left to wait for all of their answers.

    Raises:
        OSError: there is no room for the file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        first: int = 0,
        end: int = 0,
        step: int = 0,
        now_ns: int = 0,
        settle_ns: int = 0,
        places: int = PLACES,
    ) -> None:
        path = folder / NAME
        with path.open("a+b") as file:
            # Not only truncated: on a full disk the first write to the mapping would end the process (SIGBUS).
            os.posix_fallocate(file.fileno(), 0, places * RECORD_BYTES)
            memory = mmap.mmap(file.fileno(), places * RECORD_BYTES)
        self._records: NDArray[np.int64] = np.frombuffer(memory, np.int64).reshape(places, RECORD_BYTES // 8)
        self.first = first
        self.end = end
        self._due_ns = np.full(places, _NEVER)
        self._since_ns = np.zeros(places, np.int64)
        self._waits = np.zeros(places, bool)
        # The number of the label in each place, and whether it is on its way to peers, or they all have it.
        self._turns = np.zeros(places, np.int64)
        self._passed = np.zeros(places, np.int8)
        at = np.arange(first, end) % places
        done = self._records[at, _DONE]
        self._records[at[done > step], _DONE] = 0
        at = at[(done == 0) | (done > step)]
        self._waits[at] = True
        self._turns[np.arange(first, end) % places] = np.arange(first, end)
        # Their answers may have come meanwhile, or come now, a champion's before its shadow's.
        self._due_ns[at] = now_ns + settle_ns
        self._since_ns[at] = now_ns

    def __len__(self) -> int:
        return int(self._waits.sum())

    def add(self, records: NDArray[np.int64], now_ns: int) -> NDArray[np.int64]:
        """Keeps labels that have found no answer; those that are given up for them, or among them."""
        places = len(self._waits)
        given_up = [records[: max(0, len(records) - places)]]
        records = records[len(given_up[0]) :]
        at = (self.end + np.arange(len(records))) % places
        # A place that is taken holds the oldest.
        lost = at[self._waits[at]]
        given_up.append(self._records[lost].copy())
        self._records[at, :_DONE] = records[:, :_DONE]
        self._records[at, _DONE] = 0
        self._waits[at] = True
        self._due_ns[at] = _NEVER
        self._since_ns[at] = now_ns
        self._turns[at] = self.end + np.arange(len(records))
        self._passed[at] = _STAYS
        self.end += len(records)
        self.first = max(self.first, self.end - places)
        return np.concatenate(given_up)

    def wake(self, keys: NDArray[np.uint64], due_ns: int) -> None:
        """Has the labels of new answers' keys looked at again at this time."""
        at = np.flatnonzero(self._waits & (self._due_ns == _NEVER))
        if len(at) and len(keys):
            mine = self._records.view(np.uint64)[at, KEY]
            self._due_ns[at[np.isin(mine, keys)]] = due_ns

    def hasten(self, keys: NDArray[np.uint64], now_ns: int) -> None:
        """Has the labels of these keys looked at now: a later label of theirs is, and the first is to count."""
        at = np.flatnonzero(self._waits & (self._due_ns > now_ns))
        if len(at) and len(keys):
            self._due_ns[at[np.isin(self._records.view(np.uint64)[at, KEY], keys)]] = now_ns

    def due(self, now_ns: int, before_ns: int = -1) -> NDArray[np.intp]:
        """The places of labels that are to be looked at, and of those that wait since then or longer, the oldest first."""
        is_due = (self._due_ns <= now_ns) | (self._since_ns <= before_ns)
        return self._in_order(np.flatnonzero(self._waits & is_due))

    def since(self, before_ns: int) -> NDArray[np.intp]:
        """The places of labels that wait since then or longer, the oldest first."""
        return self._in_order(np.flatnonzero(self._waits & (self._since_ns <= before_ns)))

    def to_pass(self, before_ns: int, most: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The places and numbers of labels to pass on, of callers, that wait since then or longer; the oldest first."""
        is_own = (self._records[:, ROW] & PASSED_ON) == 0
        places = self._in_order(
            np.flatnonzero(self._waits & (self._since_ns <= before_ns) & (self._passed == _STAYS) & is_own)
        )[:most]
        return places, self._turns[places]

    def leaves(self, places: NDArray[np.intp]) -> None:
        """These are on their way to peers."""
        self._passed[places] = _LEAVES

    def passed(self, places: NDArray[np.intp], turns: NDArray[np.int64]) -> None:
        """All peers have these; where another label has come to a place meanwhile, it stays."""
        self._passed[places[self._turns[places] == turns]] = _PASSED

    def is_passed(self, places: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether all peers have the labels in some places."""
        is_passed: NDArray[np.bool_] = self._passed[places] == _PASSED
        return is_passed

    def at(self, places: NDArray[np.intp]) -> NDArray[np.int64]:
        """The labels in some places; a copy, [N, 8]."""
        found: NDArray[np.int64] = self._records[places]
        found[:, _DONE] = 0
        return found

    def rest(self, places: NDArray[np.intp]) -> None:
        """Has these wait on until an answer of theirs comes."""
        self._due_ns[places] = _NEVER

    def done(self, places: NDArray[np.intp], step: int) -> None:
        """Ends the wait of labels in some places, in this step."""
        self._records[places, _DONE] = step
        self._waits[places] = False
        size = len(self._waits)
        in_turn = self._waits[np.arange(self.first, self.end) % size]
        self.first += int(in_turn.argmax()) if in_turn.any() else len(in_turn)

    def _in_order(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        turn = (places - self.first) % len(self._waits)
        ordered: NDArray[np.intp] = places[np.argsort(turn, kind="stable")]
        return ordered
