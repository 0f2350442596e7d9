"""Looks through the headers of a call, which the transport keeps as pairs: both sizes, then name and value."""

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import uint32, word
from penstock_server.plain.layout import NONE
from penstock_server.transport.layout import S_HEADERS, S_HEADERS_SIZE


@kernel
def find(row: int, size: int, first: int, last: int) -> int:
    """The pair whose name has so many letters, eight or more, and these first and last eight; 0 for none, -1 for several."""
    at = word(row + S_HEADERS)
    end = at + word(row + S_HEADERS_SIZE)
    found = 0
    while at < end:
        name_size, value_size = uint32(at), uint32(at + 4)
        if name_size == size and word(at + 8) == first and word(at + size) == last:
            if found:
                return NONE
            found = at
        at += 8 + name_size + value_size
    return found


@kernel
def value_at(pair: int) -> int:
    """Where the value of a pair begins."""
    return pair + 8 + uint32(pair)


@kernel
def value_size(pair: int) -> int:
    return uint32(pair + 4)
