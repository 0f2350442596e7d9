"""Protobuf's wire format, for messages that are joined from encoded bytes, or read without classes of their own.

Source: Protocol Buffers, "Encoding".
"""

from mmap import mmap
from typing import Final

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""The types of fields."""
INTEGER: Final = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
"""An integer in base-128 form, as a regular expression."""
_MOST_BITS: Final = 70
_SMALL: Final = tuple(bytes((value,)) for value in range(128))


class MalformedError(ValueError):
    """The bytes are no message, and where that shows."""


def varint(value: int) -> bytes:
    r"""A non-negative integer in protobuf's base-128 form.

    >>> varint(300)
    b'\xac\x02'
    """
    if value < 128:
        return _SMALL[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(content: bytes | mmap, at: int, end: int) -> tuple[int, int]:
    r"""The integer that begins here, without its sign, and where the next byte is.

    Raises:
        MalformedError: it goes on beyond the end, or beyond what an integer takes.

    >>> read_varint(b"\xac\x02", 0, 2)
    (300, 2)
    """
    value = shift = 0
    while at < end and shift < _MOST_BITS:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise MalformedError(f"a number at byte {at:,} does not end")


def read_field(content: bytes | mmap, at: int, end: int) -> tuple[int, int, int, int, int]:
    r"""The field that begins here: its number, its type, its value or where its contents begin and end; where the next is.

    Numbers of a fixed size have their contents' beginning alone.

    Args:
        content: what holds the message.
        at: where the field begins; before `end`.
        end: where the message ends.

    Raises:
        MalformedError: no field begins here, or it ends beyond the message.

    >>> read_field(b"\x08\x05\x12\x02ab", 0, 6), read_field(b"\x08\x05\x12\x02ab", 2, 6)
    ((1, 0, 5, 0, 2), (2, 2, 4, 6, 6))
    """
    tag = content[at]
    if tag < 128:
        at += 1
    else:
        tag, at = read_varint(content, at, end)
    number, kind = tag >> 3, tag & 7
    value = stop = 0
    if kind == VARINT:
        value, at = read_varint(content, at, end)
    elif kind == BYTES:
        size, value = read_varint(content, at, end)
        at = stop = value + size
    elif kind == FIXED32:
        value, at = at, at + 4
    elif kind == FIXED64:
        value, at = at, at + 8
    else:
        raise MalformedError(f"byte {at - 1:,} begins no field")
    if at > end or not number:
        raise MalformedError(f"a field ends at byte {at:,}, beyond its message, which ends at {end:,}")
    return number, kind, value, stop, at


def signed(value: int) -> int:
    """The integer of 64 bits with its sign.

    >>> signed(2**64 - 1)
    -1
    """
    return value - (1 << 64) if value >> 63 else value
