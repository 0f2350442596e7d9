"""Tensors as the Open Inference Protocol carries them: datatype names, raw contents and typed contents.

A tensor's *raw* form is its elements in row-major order, little-endian and unpadded. An element of datatype BYTES is a
4-byte little-endian length and that many bytes. The raw forms of several tensors, joined, are the raw form of their
concatenation along the first axis, so a batch is made by joining bytes.

Source: Open Inference Protocol v2, gRPC, "Tensor Contents" and "Raw Contents".
"""

import struct
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

BF16: Final = "BF16"
"""The datatype whose raw form is not that of its numpy type: the upper halves of FP32."""

NUMPY_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<f4"),
}
"""The numpy type of every fixed-size datatype; BYTES has none. numpy has no BF16: its numbers are held as FP32, exactly."""

DATATYPES: Final[dict[np.dtype[Any], str]] = {dtype: name for name, dtype in NUMPY_TYPES.items() if name != BF16}

TYPED_FIELDS: Final[dict[str, str]] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of `InferTensorContents` for each datatype; FP16 and BF16 have only the raw form."""

# protobuf has no integers of 8 and 16 bits, so these fields hold wider ones than some of their datatypes.
_WIDE_TYPES: Final = {"int_contents": NUMPY_TYPES["INT32"], "uint_contents": NUMPY_TYPES["UINT32"]}

_LENGTH = struct.Struct("<I")


class Tensor(Protocol):
    """`InferInputTensor` or `InferOutputTensor`."""

    @property
    def name(self) -> str:
        """The tensor's name."""

    @property
    def datatype(self) -> str:
        """The protocol's name of its type."""

    @property
    def shape(self) -> Sequence[int]:
        """Its dimensions."""

    @property
    def contents(self) -> Any:
        """Its typed contents."""


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name for a numpy type; strings, bytes and objects are BYTES.

    Raises:
        ValueError: the protocol has no such type, for example for complex numbers and dates.

    >>> datatype_of(np.dtype("float32")), datatype_of(np.dtype("U7"))
    ('FP32', 'BYTES')
    """
    if dtype.kind in "OUST":
        return "BYTES"
    try:
        return DATATYPES[dtype.newbyteorder("<")]
    except KeyError:
        raise ValueError(f"numpy type {dtype} has no datatype in the Open Inference Protocol") from None


def to_raw(array: NDArray[Any], datatype: str = "") -> bytes:
    r"""The raw contents of an array of any shape; of FP32 as BF16, if that is the datatype.

    >>> to_raw(np.array([1, 2], np.int16)), to_raw(np.array(["no", "é"]))
    (b'\x01\x00\x02\x00', b'\x02\x00\x00\x00no\x02\x00\x00\x00\xc3\xa9')
    """
    if datatype == BF16:
        return narrowed(array).tobytes()
    if array.dtype.kind in "OUST":
        return join_bytes(array.ravel().tolist())
    little = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, dtype=little).tobytes()


def from_raw(raw: bytes, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """The array in raw contents: a read-only view, or objects of type `bytes` for BYTES.

    Raises:
        ValueError: the datatype is unknown, or the contents do not fill the shape exactly.
    """
    if datatype == "BYTES":
        values = np.empty(prod(shape), dtype=object)
        values[:] = split_bytes(raw, prod(shape))
        return values.reshape(shape)
    dtype, size = numpy_type(datatype), element_bytes(datatype)
    if len(raw) != prod(shape) * size:
        raise ValueError(f"{datatype} of shape {list(shape)} takes {prod(shape) * size} bytes, got {len(raw)}")
    if datatype == BF16:
        return widened(raw).reshape(shape)
    return np.frombuffer(raw, dtype).reshape(shape)


def element_bytes(datatype: str) -> int:
    """The bytes that an element of a fixed-size datatype takes in raw form; `ValueError` as `numpy_type`.

    >>> element_bytes("FP32"), element_bytes("BF16")
    (4, 2)
    """
    return 2 if datatype == BF16 else numpy_type(datatype).itemsize


def widened(raw: bytes) -> NDArray[np.float32]:
    r"""BF16 in raw form as FP32, [N]: each number is the same.

    >>> widened(b"\x80\x3f\x20\xc0").tolist()
    [1.0, -2.5]
    """
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")


def narrowed(array: NDArray[Any]) -> NDArray[np.uint16]:
    """Floats as the nearest BF16, which are 16-bit words of the same shape; of two that are as near, the even one.

    >>> [hex(word) for word in narrowed(np.array([1.0, -2.5, 1.00390625, float("nan")], np.float32)).tolist()]
    ['0x3f80', '0xc020', '0x3f80', '0x7fc0']
    """
    floats = np.ascontiguousarray(array, "<f4")
    bits = floats.view("<u4").reshape(array.shape)
    # The carry of a rounding goes into the exponent, and beyond the largest number to infinity. NaN stays NaN.
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(array), bits >> 16 | 0x40, nearest).astype("<u2")


def numpy_type(datatype: str) -> np.dtype[Any]:
    """The numpy type of a fixed-size datatype; raises `ValueError`, with the known datatypes, for any other."""
    try:
        return NUMPY_TYPES[datatype]
    except KeyError:
        known = ", ".join((*NUMPY_TYPES, "BYTES"))
        raise ValueError(f"unknown datatype {datatype!r}; expected one of {known}") from None


def typed_to_raw(tensor: Tensor) -> bytes:
    """A tensor's typed contents in raw form.

    Raises:
        ValueError: the datatype has no typed contents, the field is not the datatype's, the number of elements is not
            the shape's, or a value is out of the datatype's range.
    """
    field = TYPED_FIELDS.get(tensor.datatype)
    if field is None:
        numpy_type(tensor.datatype)
        raise ValueError(f"datatype {tensor.datatype} travels only in raw_input_contents")
    set_fields = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if set_fields not in ([], [field]):
        raise ValueError(f"datatype {tensor.datatype} is carried by {field}, got {' and '.join(set_fields)}")
    values = getattr(tensor.contents, field)
    if len(values) != prod(tensor.shape):
        raise ValueError(f"shape {list(tensor.shape)} takes {prod(tensor.shape)} elements, got {len(values)}")
    if tensor.datatype == "BYTES":
        return join_bytes(values)
    dtype = NUMPY_TYPES[tensor.datatype]
    array = np.array(values, dtype=_WIDE_TYPES.get(field, dtype))
    narrowed = array.astype(dtype, copy=False)
    # numpy 1.26 wraps a number that its type does not hold, so the numbers are compared.
    if narrowed is not array and not np.array_equal(narrowed, array):
        raise ValueError(f"a value is out of the range of {tensor.datatype}")
    return narrowed.tobytes()


def join_bytes(values: Iterable[object]) -> bytes:
    """BYTES elements in raw form; text is encoded as UTF-8 and `None` becomes the empty element."""
    parts: list[bytes] = []
    for value in values:
        element = value if isinstance(value, bytes) else b"" if value is None else str(value).encode()
        parts.append(_LENGTH.pack(len(element)))
        parts.append(element)
    return b"".join(parts)


def split_bytes(raw: bytes, count: int) -> list[bytes]:
    """The `count` elements of raw BYTES contents; raises `ValueError` if there are more, fewer, or a cut one.

    >>> split_bytes(join_bytes(["a", b"bc"]), 2)
    [b'a', b'bc']
    """
    elements: list[bytes] = []
    at, end = 0, len(raw)
    while at + 4 <= end and len(elements) < count:
        (size,) = _LENGTH.unpack_from(raw, at)
        if at + 4 + size > end:
            break
        elements.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    if len(elements) != count or at != end:
        raise ValueError(
            f"expected {count} elements, each a 4-byte length and its bytes, got {len(raw)} bytes that are not"
        )
    return elements
