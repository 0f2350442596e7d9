"""Calls that come over no socket: another port of this process makes them, and is told how they end.

They have rows in the table of streams and belong to a connection that has no session. So handlers and plain requests take
them as they take all others; where an answer would be handed to nghttp2, it becomes an event with the answer's bytes.
"""

from penstock_server.kernels.base import call, kernel
from penstock_server.kernels.memory import allocate, copy, release, set_word, word
from penstock_server.transport.kernels.session import (
    CANCEL,
    close_stream,
    detach,
    flag,
    flagged,
    free_slot,
    open_stream,
    push,
    slot_of,
)
from penstock_server.transport.layout import (
    C_FLAGS,
    CALL,
    CONNECTION_BYTES,
    CONNECTIONS,
    FREE_CONNECTION_COUNT,
    FREE_CONNECTIONS,
    GUEST_REPLY,
    GUEST_STATE,
    IS_ANSWERED,
    IS_CLOSED,
    IS_GRPC,
    IS_HALF_CLOSED,
    IS_KNOWN,
    IS_LOCAL,
    IS_POST,
    LOCAL_END,
    LOCAL_REPLY,
    NO_MESSAGE,
    REFUSE,
    RESET,
    S_DEADLINE,
    S_EXPECTED,
    S_FLAGS,
    S_HEADERS,
    S_HEADERS_CAPACITY,
    S_HEADERS_SIZE,
    S_MESSAGE,
    S_METHOD,
    S_TAKER,
    SEND_END,
    SEND_MESSAGE,
    SEND_REPLY,
    STREAM_BYTES,
    STREAMS,
)


@kernel
def open_local(state: int) -> int:
    """The number of a connection for local calls, which stays; -1 if there is none."""
    free = word(state + FREE_CONNECTION_COUNT)
    if free == 0:
        return -1
    number = word(word(state + FREE_CONNECTIONS) + (free - 1) * 8)
    set_word(state + FREE_CONNECTION_COUNT, free - 1)
    connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
    for at in range(0, CONNECTION_BYTES, 8):
        set_word(connection + at, 0)
    set_word(connection + C_FLAGS, IS_LOCAL)
    return number


@kernel
def copied(data: int, size: int) -> int:
    kept = allocate(max(size, 1))
    if kept:
        copy(kept, data, size)
    return kept


@kernel
def begin_call(
    state: int, number: int, method: int, data: int, size: int, deadline: int, headers: int, headers_size: int
) -> int:
    """Begins a unary call with this message and these headers, which are copied; its slot, or -1 if there is no room."""
    connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
    message = copied(data, size)
    kept = copied(headers, headers_size)
    row = 0
    if message and kept:
        row = open_stream(state, connection, 0)
    if row == 0:
        release(message)
        release(kept)
        return -1
    if headers_size == 0:
        release(kept)
    else:
        set_word(row + S_HEADERS, kept)
        set_word(row + S_HEADERS_SIZE, headers_size)
        set_word(row + S_HEADERS_CAPACITY, 0)
    set_word(row + S_METHOD, method)
    set_word(row + S_DEADLINE, deadline)
    flags = IS_GRPC | IS_POST | IS_HALF_CLOSED | IS_KNOWN
    set_word(row + S_FLAGS, flags)
    slot = slot_of(state, row)
    push(state, CALL, slot, message, size, flags, 0)
    return slot


@kernel
def cancel_call(state: int, slot: int) -> int:
    """Ends a call whose caller has left."""
    row = word(state + STREAMS) + slot * STREAM_BYTES
    if not flagged(row, IS_CLOSED):
        close_stream(state, row, CANCEL)
    return 0


@kernel
def end_call(state: int, row: int, kind: int, data: int, size: int) -> None:
    """Tells how a call ends; its slot is free once that is taken up."""
    flag(row, IS_ANSWERED | IS_CLOSED)
    detach(state, row)
    push(state, kind, slot_of(state, row), data, size, 0, word(row + S_TAKER))


@kernel
def is_taken(state: int, row: int, data: int, size: int) -> bool:
    """Whether the guest's kernels have begun this call and take its reply; then it is over."""
    taker = word(row + S_TAKER)
    if taker == 0 or call(word(state + GUEST_REPLY), (word(state + GUEST_STATE), taker, data, size)) == 0:
        return False
    flag(row, IS_ANSWERED)
    detach(state, row)
    free_slot(state, row)
    return True


@kernel
def answer_call(state: int, row: int, kind: int, data: int, size: int) -> None:
    """Does one thing that is wanted of a local call; what concerns the wire alone is nothing here."""
    if kind == SEND_REPLY:
        if is_taken(state, row, data, size):
            return
        kept = copied(data, size)
        end_call(state, row, LOCAL_REPLY, kept, size if kept else NO_MESSAGE)
    elif kind == SEND_MESSAGE:
        if word(row + S_MESSAGE) == 0:
            set_word(row + S_MESSAGE, copied(data, size))
            set_word(row + S_EXPECTED, size)
    elif kind == SEND_END or kind == REFUSE:
        kept = word(row + S_MESSAGE)
        if kept:
            set_word(row + S_MESSAGE, 0)
            end_call(state, row, LOCAL_REPLY, kept, word(row + S_EXPECTED))
        else:
            kept = copied(data, size)
            end_call(state, row, LOCAL_END, kept, size if kept else NO_MESSAGE)
    elif kind == RESET:
        end_call(state, row, LOCAL_END, 0, NO_MESSAGE)
