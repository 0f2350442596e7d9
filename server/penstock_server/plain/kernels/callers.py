"""Which caller a call is, among those that Python has verified, and whether it may have its plan's requests taken.

Nothing is verified here: the bytes of a call's `authorization` are compared with those that were, all of them, and a connection
that was marked has the identity of its certificate. Whatever else a caller shows is left to the general path.
"""

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import compare, set_word, uint8, word
from penstock_server.plain.kernels.headers import find, value_at, value_size
from penstock_server.plain.kernels.scan import hashed
from penstock_server.plain.layout import (
    CALLER_BUCKETS,
    CALLER_BYTES,
    NONE,
    P_NUMBER,
    R_BUCKET,
    R_DEPTH,
    R_INTERVAL,
    R_KEY,
    R_NEXT,
    R_PLANS,
    R_SERIAL,
    R_SIZE,
    R_UNTIL,
    R_VALUE,
    SERIAL_BITS,
    T_CALLER_BUCKETS,
    T_CALLERS,
    T_STREAMS,
)
from penstock_server.transport.layout import (
    C_CALLER,
    C_FLAGS,
    C_PEER,
    IS_CLOSED,
    IS_LOCAL,
    S_CONNECTION,
    S_FLAGS,
    STREAM_BYTES,
)

_NAME = b"authorization"
_SIZE = len(_NAME)
_FIRST = int.from_bytes(_NAME[:8], "little")
_LAST = int.from_bytes(_NAME[-8:], "little")


@kernel
def is_shown(caller: int, value: int, size: int) -> bool:
    """Whether these bytes are those with which a caller was verified."""
    return word(caller + R_SIZE) == size and compare(word(caller + R_VALUE), value, size) == 0


@kernel
def bearer(state: int, connection: int, value: int, size: int) -> int:
    """The caller that was verified with these bytes; 0 for none. The last one of a connection is looked at first."""
    if size == 0:
        return 0
    hint = word(connection + C_CALLER)
    if hint:
        caller = word(state + T_CALLERS) + (hint - 1) * CALLER_BYTES
        if is_shown(caller, value, size):
            return caller
    number = word(word(state + T_CALLER_BUCKETS) + 8 * (hashed(value, size) & CALLER_BUCKETS - 1))
    while number:
        caller = word(state + T_CALLERS) + (number - 1) * CALLER_BYTES
        if is_shown(caller, value, size):
            set_word(connection + C_CALLER, number)
            return caller
        number = word(caller + R_NEXT)
    return 0


@kernel
def owner(state: int, connection: int) -> int:
    """The caller whose certificate a connection has shown; 0 if it is not marked, was forgotten since, or is shared."""
    mark = word(connection + C_PEER)
    if mark == 0 or word(connection + C_FLAGS) & IS_LOCAL:
        return 0
    caller = word(state + T_CALLERS) + ((mark & (1 << SERIAL_BITS) - 1) - 1) * CALLER_BYTES
    return caller if word(caller + R_SERIAL) == mark else 0


@kernel
def caller_of(state: int, slot: int) -> int:
    """The known caller of a call; 0 if it is not known, or shows two things."""
    row = word(state + T_STREAMS) + slot * STREAM_BYTES
    connection = word(row + S_CONNECTION)
    if connection == 0 or word(row + S_FLAGS) & IS_CLOSED:
        return 0
    pair = find(row, _SIZE, _FIRST, _LAST)
    if pair == NONE:
        return 0
    return bearer(state, connection, value_at(pair), value_size(pair)) if pair else owner(state, connection)


@kernel
def may_have(caller: int, plan: int, now: int) -> bool:
    """Whether a caller is still known, and was let through with a request of this plan before."""
    number = word(plan + P_NUMBER)
    return word(caller + R_UNTIL) > now and uint8(caller + R_PLANS + (number >> 3)) >> (number & 7) & 1 != 0


@kernel
def filled(caller: int, now: int) -> int:
    """When a caller's bucket will be full if a call is taken from it; 0 if it has no limit, -1 if it may not call now."""
    bucket = word(caller + R_BUCKET)
    if bucket == 0:
        return 0
    if word(bucket) != word(caller + R_KEY):
        return -1
    full = max(word(bucket + 8), now) + word(caller + R_INTERVAL)
    return full if full - now <= word(caller + R_DEPTH) else -1


@kernel
def take_from(caller: int, full: int) -> None:
    """Counts a call that was taken."""
    if full:
        set_word(word(caller + R_BUCKET) + 8, full)
