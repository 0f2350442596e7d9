"""Kernels as small as can be: a callback that a function of the C library calls, and what else C may ask of one."""

from typing import Any, Final

import numpy as np

from penstock_server.kernels.base import (
    INT32,
    INT64,
    POINTER,
    UINT8,
    UINT32,
    UINT64,
    VOID,
    address,
    carray,
    entry_point,
    external,
    pointer,
)

_qsort: Final = external("qsort", VOID, POINTER, UINT64, UINT64, POINTER)
_htonl: Final = external("htonl", UINT32, UINT8)
_elsewhere: Final = external("penstock_elsewhere", INT32, POINTER, INT64)


@entry_point(POINTER, POINTER, result=INT32)
def compare(left: Any, right: Any) -> int:
    first, second = carray(left, (1,), np.int64)[0], carray(right, (1,), np.int64)[0]
    return int(first > second) - int(first < second)


@entry_point(POINTER, INT64, INT64)
def sort(numbers: Any, count: int, comparison: int) -> int:
    """Sorts by a comparison that is given by its address; returns where the numbers are."""
    _qsort(numbers, count, 8, pointer(comparison))
    return address(numbers)


@entry_point(INT64, result=UINT32)
def swap_bytes(value: int) -> int:
    """The lowest byte as the highest: what is above it must not reach the function."""
    return _htonl(np.uint8(value))


@entry_point(INT64)
def ask(at: int) -> int:
    return _elsewhere(pointer(at), at)


ENTRY_POINTS: Final = {"compare": compare, "sort": sort, "swap_bytes": swap_bytes, "ask": ask}
