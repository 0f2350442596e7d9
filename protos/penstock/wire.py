"""Protobuf's wire format, for code that writes parts of a message without making the message first."""

from typing import Final

_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(128))


def varint(value: int) -> bytes:
    r"""A non-negative integer in base 128: seven bits per byte, lowest first, the top bit set on all but the last.

    Source: protobuf.dev, "Encoding", "Base 128 Varints". HPACK ends its longer integers in the same form.

    >>> varint(1), varint(300)
    (b'\x01', b'\xac\x02')
    """
    if value < 128:
        return _ONE_BYTE[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
