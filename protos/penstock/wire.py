"""Protobuf's wire format, where a message is joined from bytes that are encoded already.

Source: Protocol Buffers, "Encoding".
"""

from typing import Final

_SMALL: Final = tuple(bytes((value,)) for value in range(128))


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
