"""The callers whose plain requests kernels take: those that were verified, and what they were let through with.

The general path verifies each of them first, and again every minute, so a kernel never decides what nobody has decided
before. All of it belongs to the reactor's thread.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.plain import layout
from penstock_server.plain.memory import LaneMemory

KNOWN_NS: Final = 60_000_000_000
"""How long a caller is known to the kernels: the end of its token is a time of the wall clock, which may be set."""


@dataclass(frozen=True, slots=True)
class CallerBucket:
    """Where a caller's calls are counted, as `access.limits` has it.

    Attributes:
        address: of its two words, which stay where they are.
        key: what the first of them must be.
        interval_ns, depth_ns: what a call takes, and what there is.
    """

    address: int
    key: int
    interval_ns: int
    depth_ns: int


class PlainCallers:
    """The table of known callers.

    Args:
        state: of plain requests.
        memory: makes the table.
        hash_of: what kernels find bytes by.
    """

    def __init__(self, state: NDArray[np.int64], memory: LaneMemory, hash_of: Callable[[bytes, int], int]) -> None:
        self._hash_of = hash_of
        self._rows = memory.words(layout.MAX_CALLERS, layout.CALLER_BYTES // 8)
        self._plans = self._rows.view(np.uint8)[:, layout.R_PLANS :]
        self._buckets = memory.words(layout.CALLER_BUCKETS)
        self._numbers: dict[Hashable, int] = {}
        self._values: list[Any] = []
        self._serial = 0
        for at, value in (
            (layout.T_CALLERS, self._rows.ctypes.data),
            (layout.T_CALLER_BUCKETS, self._buckets.ctypes.data),
        ):
            state[at // 8] = value

    def permit(
        self, shown: bytes | tuple[str, ...], plan: int, *, now_ns: int, until_ns: int, bucket: CallerBucket | None
    ) -> int:
        """Has kernels take a caller's requests of a plan.

        Args:
            shown: the value of its header, or the names of its certificate.
            plan: the plan's number.
            now_ns: the time.
            until_ns: when what it showed ends.
            bucket: counts its calls; None if they have no limit.

        Returns:
            What a connection is marked with whose certificate has these names.
        """
        number = self._numbers.get(shown)
        if number is None:
            number = self._add(shown)
        row = self._rows[number]
        for at, value in (
            (layout.R_UNTIL, min(until_ns, now_ns + KNOWN_NS)),
            (layout.R_BUCKET, 0 if bucket is None else bucket.address),
            (layout.R_KEY, 0 if bucket is None else bucket.key),
            (layout.R_INTERVAL, 0 if bucket is None else bucket.interval_ns),
            (layout.R_DEPTH, 0 if bucket is None else bucket.depth_ns),
        ):
            row[at // 8] = value
        self._plans[number, plan >> 3] |= 1 << (plan & 7)
        return int(row[layout.R_SERIAL // 8])

    def forget(self) -> None:
        """Forgets every caller: all are verified again."""
        self._buckets[:] = 0
        self._rows[:] = 0
        self._numbers.clear()
        self._values.clear()

    def forget_plans(self) -> None:
        """Forgets what callers were let through with: plans have other numbers from now on."""
        self._plans[:] = 0

    def _add(self, shown: bytes | tuple[str, ...]) -> int:
        if len(self._numbers) == layout.MAX_CALLERS:
            self.forget()
        number = len(self._numbers)
        self._numbers[shown] = number
        self._serial += 1
        row = self._rows[number]
        row[layout.R_SERIAL // 8] = self._serial << layout.SERIAL_BITS | number + 1
        if isinstance(shown, bytes):
            value = np.frombuffer(shown, np.uint8).copy()
            self._values.append(value)
            bucket = self._hash_of(shown, len(shown)) & layout.CALLER_BUCKETS - 1
            for at, word in (
                (layout.R_VALUE, value.ctypes.data),
                (layout.R_SIZE, len(shown)),
                (layout.R_NEXT, self._buckets[bucket]),
            ):
                row[at // 8] = word
            self._buckets[bucket] = number + 1
        return number
