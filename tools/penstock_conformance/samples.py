"""Values of each datatype that a server may get wrong: the smallest, the largest, and what is odd."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(bool),
    **{
        name: np.dtype(name.lower())
        for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
    },
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""numpy's type of each datatype; BYTES are objects, each `bytes`."""

_TEXTS: Final = (b"", b"a", "\u00e5\u00df\u2603\U0001f600".encode(), b"\x00nul\x00", b" " * 300)


def plain(datatype: str, rows: int = 2) -> NDArray[Any]:
    """A matrix of so many rows and three columns, of small values."""
    count = rows * 3
    if datatype == "BYTES":
        return of_bytes([f"text {at}".encode() for at in range(count)]).reshape(rows, 3)
    dtype = DTYPES[datatype]
    values = np.arange(count) % (2 if dtype.kind == "b" else 100)
    return values.astype(dtype).reshape(rows, 3)


def extremes(datatype: str) -> NDArray[Any]:
    """One row of the values at the type's ends."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return of_bytes(list(_TEXTS)).reshape(1, -1)
    if dtype.kind == "b":
        return np.array([[True, False, True]])
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        return np.array([[ends.min, ends.max, 0, 1]], dtype)
    limits = np.finfo(dtype)
    return np.array(
        [[limits.min, limits.max, limits.tiny, limits.smallest_subnormal, -0.0, np.inf, -np.inf, np.nan]], dtype
    )


def of_bytes(elements: list[bytes]) -> NDArray[Any]:
    """An array of objects; numpy alone would cut closing zeros off."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def same(got: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether two arrays are alike to the bit, in type and shape too."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return False
    if got.dtype.kind == "O":
        return bool(got.tolist() == expected.tolist())
    return got.tobytes() == expected.tobytes() or (
        got.dtype.kind == "f" and bool(np.array_equal(got, expected, equal_nan=True)) and _signs(got, expected)
    )


def _signs(got: NDArray[Any], expected: NDArray[Any]) -> bool:
    is_number = ~np.isnan(expected)
    return bool(np.array_equal(np.signbit(got[is_number]), np.signbit(expected[is_number])))


def raw(values: NDArray[Any]) -> bytes:
    """The raw form: little-endian, row-major, and for BYTES a length of 4 bytes before each element."""
    if values.dtype.kind != "O":
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    return b"".join(len(element).to_bytes(4, "little") + element for element in values.ravel().tolist())


def from_raw(content: bytes, datatype: str, shape: list[int]) -> NDArray[Any]:
    """The values that raw contents hold; raises `ValueError` for contents that do not fit the shape."""
    if datatype != "BYTES":
        values: NDArray[Any] = np.frombuffer(content, DTYPES[datatype].newbyteorder("<")).astype(DTYPES[datatype])
        return values.reshape(shape)
    elements, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        if at + 4 + size > len(content):
            raise ValueError("an element is longer than the contents")
        elements.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return of_bytes(elements).reshape(shape)
