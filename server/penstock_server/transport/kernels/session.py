"""What nghttp2 calls back: a stream's life from its headers to its end, and the bytes of its messages.

These functions know HTTP/2's frames and gRPC's five-byte prefix, and no more: calls, messages and ends become events
(`layout`) that the reactor takes up after each read. All memory that a caller makes the server take is bounded: headers
by `MAX_HEADERS`, a message by what has come of it and by `MAX_MESSAGE`, all headers, unfinished messages and unsent
answers together by `MAX_PARTIAL_BYTES`, and what is handed to Python by the windows of streams and connections. No
connection may take more of rows or bytes than it leaves to others.

Sources: RFC 9113; "gRPC over HTTP2" (the protocol's description in grpc/grpc); nghttp2's documentation of its callbacks.
"""

from collections.abc import Callable
from typing import Final

from penstock_server.kernels.base import INT32, INT64, UINT8, UINT32, external, kernel
from penstock_server.kernels.memory import (
    compare,
    copy,
    int32,
    release,
    resize,
    set_uint8,
    set_uint32,
    set_word,
    uint8,
    uint32,
    word,
)
from penstock_server.transport.layout import (
    BAD_HEADERS,
    BAD_PREFIX,
    BAD_TIMEOUT,
    C_CLOSE_AT,
    C_FIRST,
    C_FLAGS,
    C_IDLE_FRAMES,
    C_LAST_STREAM,
    C_PARTIAL_BYTES,
    C_RESETS,
    C_STATE,
    C_STREAM_COUNT,
    CALL,
    CLOSED,
    DIRTY,
    DIRTY_COUNT,
    E_DATA,
    E_DEADLINE,
    E_FLAGS,
    E_KIND,
    E_METHOD,
    E_MORE,
    E_SIZE,
    E_SLOT,
    EVENT_BYTES,
    EVENT_COUNT,
    EVENTS,
    FREE_STREAM_COUNT,
    FREE_STREAMS,
    HALF_CLOSED,
    HAS_BAD_TIMEOUT,
    HAS_PREFACE,
    IS_ANSWERED,
    IS_CLOSED,
    IS_COMPRESSED,
    IS_DEFERRED,
    IS_DIRTY,
    IS_EXPIRED,
    IS_GRPC,
    IS_HALF_CLOSED,
    IS_IGNORED,
    IS_KNOWN,
    IS_PAUSED,
    IS_POST,
    IS_STREAMING,
    LEAST_SHARE_BYTES,
    M_PATH,
    M_SIZE,
    M_STREAMS,
    MANY_MESSAGES,
    MAX_HEADERS,
    MAX_MESSAGE,
    MAX_PAIRS,
    MAX_PARTIAL_BYTES,
    MESSAGE,
    METHOD_BYTES,
    METHOD_COUNT,
    METHODS,
    MOST_IDLE_FRAMES,
    MOST_RESETS,
    N_AT,
    N_NEXT,
    N_SIZE,
    NEVER,
    NO_MESSAGE,
    NO_METHOD,
    NODE_BYTES,
    NOT_GRPC,
    NOW,
    OPEN_STREAMS,
    OPENED,
    PAIR_BYTES,
    PARTIAL_BYTES,
    PREFIX_BYTES,
    REFUSED,
    REFUSED_STREAMS,
    S_ARRIVED,
    S_BEFORE,
    S_CAPACITY,
    S_CONNECTION,
    S_DEADLINE,
    S_ENCODING,
    S_EXPECTED,
    S_FIRST_OUT,
    S_FLAGS,
    S_HEADERS,
    S_HEADERS_CAPACITY,
    S_HEADERS_SIZE,
    S_HELD,
    S_ID,
    S_LAST_OUT,
    S_MESSAGE,
    S_MESSAGES,
    S_METHOD,
    S_NEXT,
    S_PREFIX,
    S_PREFIX_SIZE,
    S_SENT,
    S_SERIAL,
    S_SIZE,
    S_TRAILERS,
    S_TRAILERS_SIZE,
    SCRATCH,
    SECOND,
    SENT,
    STREAM_BYTES,
    STREAM_END,
    STREAMS,
    TOO_LARGE,
    TOO_MUCH,
    TRAILER_COUNT,
    TRAILERS,
)

stream_row: Final[Callable[..., int]] = external("nghttp2_session_get_stream_user_data", INT64, INT64, INT32)
set_stream_row: Final[Callable[..., int]] = external("nghttp2_session_set_stream_user_data", INT32, INT64, INT32, INT64)
consume_stream: Final[Callable[..., int]] = external("nghttp2_session_consume_stream", INT32, INT64, INT32, INT64)
consume_connection: Final[Callable[..., int]] = external("nghttp2_session_consume_connection", INT32, INT64, INT64)
submit_reset: Final[Callable[..., int]] = external("nghttp2_submit_rst_stream", INT32, INT64, UINT8, INT32, UINT32)
submit_response: Final[Callable[..., int]] = external(
    "nghttp2_submit_response", INT32, INT64, INT32, INT64, INT64, INT64
)
submit_trailer: Final[Callable[..., int]] = external("nghttp2_submit_trailer", INT32, INT64, INT32, INT64, INT64)
terminate: Final[Callable[..., int]] = external("nghttp2_session_terminate_session", INT32, INT64, UINT32)
resume_data: Final[Callable[..., int]] = external("nghttp2_session_resume_data", INT32, INT64, INT32)

DEFERRED: Final = -508
STREAM_FAILURE: Final = -521
"""From a callback it resets the stream alone."""
DATA_EOF: Final = 1
DATA_NO_END: Final = 2
REFUSED_STREAM: Final = 7
NO_ERROR: Final = 0
CANCEL: Final = 8
ENHANCE_YOUR_CALM: Final = 11
_INTERNAL_ERROR: Final = 2
_DATA: Final = 0
_HEADERS: Final = 1
_PRIORITY: Final = 2
_RESET: Final = 3
_SETTINGS: Final = 4
_PING: Final = 6
_REQUEST: Final = 0
_END_STREAM: Final = 1
_ACK: Final = 1
LEAST_BYTES: Final = 512


@kernel
def push(state: int, kind: int, slot: int, data: int, size: int, flags: int, more: int) -> None:
    """Adds an event; there is room, since what is read at a time makes no more than there is room for."""
    count = word(state + EVENT_COUNT)
    row = word(state + STREAMS) + slot * STREAM_BYTES
    event = word(state + EVENTS) + count * EVENT_BYTES
    set_word(event + E_KIND, kind)
    set_word(event + E_SLOT, slot)
    set_word(event + E_DATA, data)
    set_word(event + E_SIZE, size)
    set_word(event + E_METHOD, word(row + S_METHOD))
    set_word(event + E_DEADLINE, word(row + S_DEADLINE))
    set_word(event + E_FLAGS, flags)
    set_word(event + E_MORE, more)
    set_word(state + EVENT_COUNT, count + 1)


@kernel
def push_connection(state: int, kind: int, number: int, more: int) -> None:
    """Adds an event about a connection."""
    count = word(state + EVENT_COUNT)
    event = word(state + EVENTS) + count * EVENT_BYTES
    set_word(event + E_KIND, kind)
    set_word(event + E_SLOT, number)
    set_word(event + E_MORE, more)
    set_word(state + EVENT_COUNT, count + 1)


@kernel
def slot_of(state: int, row: int) -> int:
    return (row - word(state + STREAMS)) // STREAM_BYTES


@kernel
def flagged(row: int, flags: int) -> int:
    return word(row + S_FLAGS) & flags


@kernel
def flag(row: int, flags: int) -> None:
    set_word(row + S_FLAGS, word(row + S_FLAGS) | flags)


@kernel
def unflag(row: int, flags: int) -> None:
    set_word(row + S_FLAGS, word(row + S_FLAGS) & ~flags)


@kernel
def mark_dirty(state: int, connection: int) -> None:
    """Puts a connection on the list of those to flush."""
    flags = word(connection + C_FLAGS)
    if not flags & IS_DIRTY:
        set_word(connection + C_FLAGS, flags | IS_DIRTY)
        count = word(state + DIRTY_COUNT)
        set_word(word(state + DIRTY) + count * 8, connection)
        set_word(state + DIRTY_COUNT, count + 1)


@kernel
def hold(state: int, connection: int, size: int) -> None:
    """Counts bytes that the server keeps for a caller; a size below 0 gives them back."""
    set_word(state + PARTIAL_BYTES, word(state + PARTIAL_BYTES) + size)
    set_word(connection + C_PARTIAL_BYTES, word(connection + C_PARTIAL_BYTES) + size)


@kernel
def holds_too_much(state: int, connection: int) -> bool:
    """Whether a connection holds more than it leaves to others."""
    left = word(state + MAX_PARTIAL_BYTES) - word(state + PARTIAL_BYTES)
    return word(connection + C_PARTIAL_BYTES) > max(left, LEAST_SHARE_BYTES)


@kernel
def open_stream(state: int, connection: int, stream: int) -> int:
    """A row for a new stream; 0 if the connection has as many as are left for others."""
    free = word(state + FREE_STREAM_COUNT)
    if free <= word(connection + C_STREAM_COUNT):
        return 0
    slot = word(word(state + FREE_STREAMS) + (free - 1) * 8)
    set_word(state + FREE_STREAM_COUNT, free - 1)
    row = word(state + STREAMS) + slot * STREAM_BYTES
    serial = word(row + S_SERIAL) + 1
    for at in range(0, STREAM_BYTES, 8):
        set_word(row + at, 0)
    set_word(row + S_SERIAL, serial)
    set_word(row + S_CONNECTION, connection)
    set_word(row + S_ID, stream)
    set_word(row + S_METHOD, NO_METHOD)
    set_word(row + S_DEADLINE, NEVER)
    set_word(row + S_ARRIVED, word(state + NOW))
    first = word(connection + C_FIRST)
    set_word(row + S_NEXT, first)
    if first:
        set_word(first + S_BEFORE, row)
    set_word(connection + C_FIRST, row)
    set_word(connection + C_STREAM_COUNT, word(connection + C_STREAM_COUNT) + 1)
    set_word(state + OPEN_STREAMS, word(state + OPEN_STREAMS) + 1)
    if slot >= word(state + STREAM_END):
        set_word(state + STREAM_END, slot + 1)
    return row


@kernel
def free_slot(state: int, row: int) -> None:
    """Gives a slot back; nothing refers to it any more."""
    slot = slot_of(state, row)
    set_word(row + S_FLAGS, 0)
    set_word(row + S_CONNECTION, 0)
    free = word(state + FREE_STREAM_COUNT)
    set_word(word(state + FREE_STREAMS) + free * 8, slot)
    set_word(state + FREE_STREAM_COUNT, free + 1)


@kernel
def forget_message(state: int, row: int) -> None:
    """Frees what came of a message that is not whole."""
    data = word(row + S_MESSAGE)
    if data:
        hold(state, word(row + S_CONNECTION), -word(row + S_CAPACITY))
        release(data)
        set_word(row + S_MESSAGE, 0)
        set_word(row + S_CAPACITY, 0)


@kernel
def forget_headers(state: int, row: int) -> None:
    """Frees a call's headers."""
    if word(row + S_HEADERS):
        hold(state, word(row + S_CONNECTION), -word(row + S_HEADERS_CAPACITY))
        release(word(row + S_HEADERS))
        set_word(row + S_HEADERS, 0)
        set_word(row + S_HEADERS_CAPACITY, 0)
        set_word(row + S_HEADERS_SIZE, 0)


@kernel
def forget_node(state: int, row: int, node: int) -> None:
    """Frees a message that waited to be sent."""
    hold(state, word(row + S_CONNECTION), -(NODE_BYTES + word(node + N_SIZE)))
    release(node)


@kernel
def forget_output(state: int, row: int) -> None:
    """Frees what is not sent."""
    node = word(row + S_FIRST_OUT)
    while node:
        following = word(node + N_NEXT)
        forget_node(state, row, node)
        node = following
    set_word(row + S_FIRST_OUT, 0)
    set_word(row + S_LAST_OUT, 0)
    if word(row + S_TRAILERS):
        hold(state, word(row + S_CONNECTION), -word(row + S_TRAILERS_SIZE))
        release(word(row + S_TRAILERS))
        set_word(row + S_TRAILERS, 0)


@kernel
def detach(state: int, row: int) -> None:
    """Takes a stream from its connection, with all that is held for it."""
    connection = word(row + S_CONNECTION)
    forget_message(state, row)
    forget_output(state, row)
    forget_headers(state, row)
    before, following = word(row + S_BEFORE), word(row + S_NEXT)
    if before:
        set_word(before + S_NEXT, following)
    else:
        set_word(connection + C_FIRST, following)
    if following:
        set_word(following + S_BEFORE, before)
    set_word(connection + C_STREAM_COUNT, word(connection + C_STREAM_COUNT) - 1)
    set_word(state + OPEN_STREAMS, word(state + OPEN_STREAMS) - 1)


@kernel
def close_stream(state: int, row: int, code: int) -> None:
    """The stream is gone. Its slot is free at once if Python need not hear of it."""
    detach(state, row)
    flags = word(row + S_FLAGS)
    # An event that its deadline has passed may wait for Python still, and must find this call in the slot, not the next one.
    is_heard_of = flags & IS_ANSWERED and not flags & (IS_STREAMING | IS_EXPIRED) and code == NO_ERROR
    if flags & IS_KNOWN and not is_heard_of:
        set_word(row + S_FLAGS, flags | IS_CLOSED)
        push(state, CLOSED, slot_of(state, row), 0, 0, flags, code)
    else:
        free_slot(state, row)


@kernel
def on_begin_headers(session: int, frame: int, user: int) -> int:
    if uint8(frame + 12) != _HEADERS or int32(frame + 56) != _REQUEST:
        return 0
    connection = user
    state = word(connection + C_STATE)
    stream = int32(frame + 8)
    row = open_stream(state, connection, stream)
    if row == 0:
        set_word(state + REFUSED_STREAMS, word(state + REFUSED_STREAMS) + 1)
        submit_reset(session, 0, stream, REFUSED_STREAM)
        return 0
    set_stream_row(session, stream, row)
    set_word(connection + C_LAST_STREAM, stream)
    return 0


@kernel
def method_of(state: int, path: int, size: int) -> int:
    """The number of the method with this path, or `NO_METHOD`."""
    methods = word(state + METHODS)
    for number in range(word(state + METHOD_COUNT)):
        method = methods + number * METHOD_BYTES
        if word(method + M_SIZE) == size and compare(word(method + M_PATH), path, size) == 0:
            return number
    return NO_METHOD


@kernel
def unit_ns(unit: int) -> int:
    """How long a unit of `grpc-timeout` is, 0 if there is no such unit."""
    if unit == 72:  # H
        return 3_600_000_000_000
    if unit == 77:  # M
        return 60_000_000_000
    if unit == 83:  # S
        return 1_000_000_000
    if unit == 109:  # m
        return 1_000_000
    if unit == 117:  # u
        return 1_000
    return 1 if unit == 110 else 0  # n


@kernel
def timeout_ns(value: int, size: int) -> int:
    """A `grpc-timeout`: at most eight digits and a unit; -1 if it is none."""
    if size < 2 or size > 9:
        return -1
    number = 0
    for at in range(size - 1):
        digit = uint8(value + at) - 48
        if digit < 0 or digit > 9:
            return -1
        number = number * 10 + digit
    unit = unit_ns(uint8(value + size - 1))
    if unit == 0:
        return -1
    return NEVER // 2 if number > NEVER // 2 // unit else number * unit


@kernel
def keep_header(state: int, row: int, name: int, name_size: int, value: int, value_size: int) -> None:
    """Keeps a header for Python: both sizes as 32 bits, then name and value."""
    size = word(row + S_HEADERS_SIZE)
    needed = size + 8 + name_size + value_size
    if needed > word(state + MAX_HEADERS):
        flag(row, IS_IGNORED)
        return
    if needed > word(row + S_HEADERS_CAPACITY):
        capacity = max(2 * word(row + S_HEADERS_CAPACITY), needed, LEAST_BYTES)
        grown = resize(word(row + S_HEADERS), capacity)
        if grown == 0:
            flag(row, IS_IGNORED)
            return
        hold(state, word(row + S_CONNECTION), capacity - word(row + S_HEADERS_CAPACITY))
        set_word(row + S_HEADERS, grown)
        set_word(row + S_HEADERS_CAPACITY, capacity)
    place = word(row + S_HEADERS) + size
    set_uint32(place, name_size)
    set_uint32(place + 4, value_size)
    copy(place + 8, name, name_size)
    copy(place + 8 + name_size, value, value_size)
    set_word(row + S_HEADERS_SIZE, needed)


@kernel
def is_text(value: int, size: int, first: int, second: int) -> bool:
    """Whether bytes are a name of up to sixteen letters, given as two words with the first letter lowest."""
    for at in range(size):
        packed = first if at < 8 else second
        if uint8(value + at) != (packed >> (8 * (at & 7))) & 255:
            return False
    return True


def _packed(text: str) -> tuple[int, int]:
    raw = text.encode().ljust(16, b"\0")
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


_PATH: Final = _packed(":path")
_METHOD: Final = _packed(":method")
_POST: Final = _packed("POST")
_TIMEOUT: Final = _packed("grpc-timeout")
_ENCODING: Final = _packed("grpc-encoding")
_CONTENT_TYPE: Final = _packed("content-type")
_GRPC: Final = _packed("application/grpc")
_GZIP: Final = _packed("gzip")
_DEFLATE: Final = _packed("deflate")
_IDENTITY: Final = _packed("identity")


@kernel
def encoding_of(value: int, size: int) -> int:
    """0 for none, 1 for gzip, 2 for deflate, -1 for one that is not known."""
    if size == 4 and is_text(value, size, _GZIP[0], _GZIP[1]):
        return 1
    if size == 7 and is_text(value, size, _DEFLATE[0], _DEFLATE[1]):
        return 2
    return 0 if size == 8 and is_text(value, size, _IDENTITY[0], _IDENTITY[1]) else -1


@kernel
def on_header(
    session: int, frame: int, name: int, name_size: int, value: int, value_size: int, _flags: int, user: int
) -> int:
    if int32(frame + 56) != _REQUEST:
        return 0
    row = stream_row(session, int32(frame + 8))
    if row == 0:
        return 0
    state = word(user + C_STATE)
    if name_size == 5 and is_text(name, 5, _PATH[0], _PATH[1]):
        set_word(row + S_METHOD, method_of(state, value, value_size))
    elif name_size == 7 and is_text(name, 7, _METHOD[0], _METHOD[1]):
        if value_size == 4 and is_text(value, 4, _POST[0], _POST[1]):
            flag(row, IS_POST)
    elif name_size == 12 and is_text(name, 12, _CONTENT_TYPE[0], _CONTENT_TYPE[1]):
        if value_size >= 16 and is_text(value, 16, _GRPC[0], _GRPC[1]):
            after = uint8(value + 16) if value_size > 16 else 43
            if after == 43 or after == 59:  # "+proto", or parameters
                flag(row, IS_GRPC)
    elif name_size == 12 and is_text(name, 12, _TIMEOUT[0], _TIMEOUT[1]):
        timeout = timeout_ns(value, value_size)
        if timeout < 0:
            flag(row, HAS_BAD_TIMEOUT)
        else:
            set_word(row + S_DEADLINE, word(row + S_ARRIVED) + timeout)
    elif name_size == 13 and is_text(name, 13, _ENCODING[0], _ENCODING[1]):
        set_word(row + S_ENCODING, encoding_of(value, value_size))
    elif uint8(name) != 58:
        keep_header(state, row, name, name_size, value, value_size)
    return 0


@kernel
def refuse(state: int, row: int, why: int) -> None:
    """Tells Python that a call cannot be read; what still comes of it is thrown away."""
    forget_message(state, row)
    flags = word(row + S_FLAGS)
    set_word(row + S_FLAGS, flags | IS_IGNORED | IS_KNOWN)
    push(state, REFUSED, slot_of(state, row), 0, 0, flags, why)


@kernel
def start_call(state: int, row: int) -> None:
    """A call's headers are whole."""
    flags = word(row + S_FLAGS)
    is_too_much = holds_too_much(state, word(row + S_CONNECTION))
    if flags & IS_IGNORED or is_too_much:
        forget_headers(state, row)
        refuse(state, row, TOO_MUCH if is_too_much else BAD_HEADERS)
        return
    if not flags & IS_GRPC or not flags & IS_POST:
        refuse(state, row, NOT_GRPC)
        return
    if flags & HAS_BAD_TIMEOUT:
        refuse(state, row, BAD_TIMEOUT)
        return
    method = word(row + S_METHOD)
    if method == NO_METHOD:
        set_word(row + S_FLAGS, flags | IS_IGNORED | IS_KNOWN)
        push(state, OPENED, slot_of(state, row), 0, 0, flags, 0)
    elif word(word(state + METHODS) + method * METHOD_BYTES + M_STREAMS):
        set_word(row + S_FLAGS, flags | IS_STREAMING | IS_KNOWN)
        push(state, OPENED, slot_of(state, row), 0, 0, flags, 0)


@kernel
def half_close(state: int, row: int) -> None:
    """The caller has sent all."""
    flags = word(row + S_FLAGS)
    set_word(row + S_FLAGS, flags | IS_HALF_CLOSED)
    if flags & IS_IGNORED:
        return
    slot = slot_of(state, row)
    if word(row + S_PREFIX_SIZE):
        refuse(state, row, BAD_PREFIX)
        return
    if flags & IS_STREAMING:
        push(state, HALF_CLOSED, slot, 0, 0, flags, 0)
        return
    count = word(row + S_MESSAGES)
    data = word(row + S_MESSAGE)
    size = word(row + S_EXPECTED)
    if count == 0:
        data, size = 0, NO_MESSAGE
    elif count > 1:
        forget_message(state, row)
        data, size = 0, MANY_MESSAGES
    else:
        hold(state, word(row + S_CONNECTION), -word(row + S_CAPACITY))
    set_word(row + S_MESSAGE, 0)
    set_word(row + S_CAPACITY, 0)
    set_word(row + S_FLAGS, word(row + S_FLAGS) | IS_KNOWN)
    push(state, CALL, slot, data, size, flags, word(row + S_ENCODING))


@kernel
def calm(session: int, connection: int) -> None:
    """Ends a connection that asks for too much; its caller has a second to read why."""
    terminate(session, ENHANCE_YOUR_CALM)
    now = word(word(connection + C_STATE) + NOW)
    set_word(connection + C_CLOSE_AT, min(word(connection + C_CLOSE_AT), now + SECOND))


@kernel
def count_reset(session: int, connection: int) -> None:
    """Counts a stream that the caller has reset, or made the server reset; too many end the connection."""
    resets = word(connection + C_RESETS) + 1
    set_word(connection + C_RESETS, resets)
    if resets >= MOST_RESETS:
        calm(session, connection)


@kernel
def count_idle(session: int, connection: int) -> None:
    """Counts a frame that brings nothing; too many end the connection."""
    frames = word(connection + C_IDLE_FRAMES) + 1
    set_word(connection + C_IDLE_FRAMES, frames)
    if frames >= MOST_IDLE_FRAMES:
        calm(session, connection)


@kernel
def on_frame_received(session: int, frame: int, user: int) -> int:
    kind = uint8(frame + 12)
    flags = uint8(frame + 13)
    if kind == _RESET:
        count_reset(session, user)
        return 0
    if kind == _SETTINGS:
        set_word(user + C_FLAGS, word(user + C_FLAGS) | HAS_PREFACE)
    is_empty = kind == _DATA and word(frame) == word(frame + 16) and not flags & _END_STREAM  # or is all padding
    if is_empty or kind == _PRIORITY or ((kind == _PING or kind == _SETTINGS) and not flags & _ACK):
        count_idle(session, user)
        return 0
    if kind != _HEADERS and kind != _DATA:
        return 0
    state = word(user + C_STATE)
    row = stream_row(session, int32(frame + 8))
    if row == 0:
        return 0
    if kind == _HEADERS and int32(frame + 56) == _REQUEST:
        start_call(state, row)
    if flags & _END_STREAM:
        half_close(state, row)
    return 0


@kernel
def make_room(state: int, row: int, needed: int) -> bool:
    """Has the message's buffer hold so many bytes; false if there is no memory for it, or none for this caller."""
    capacity = word(row + S_CAPACITY)
    if needed <= capacity:
        return True
    wanted = min(max(2 * capacity, needed, LEAST_BYTES), max(word(row + S_EXPECTED), 1))
    grown = resize(word(row + S_MESSAGE), wanted)
    if grown == 0:
        return False
    set_word(row + S_MESSAGE, grown)
    set_word(row + S_CAPACITY, wanted)
    hold(state, word(row + S_CONNECTION), wanted - capacity)
    return not holds_too_much(state, word(row + S_CONNECTION))


@kernel
def end_message(state: int, row: int) -> None:
    """A message is whole."""
    set_word(row + S_PREFIX_SIZE, 0)
    set_word(row + S_MESSAGES, word(row + S_MESSAGES) + 1)
    if not flagged(row, IS_STREAMING):
        return
    hold(state, word(row + S_CONNECTION), -word(row + S_CAPACITY))
    push(
        state,
        MESSAGE,
        slot_of(state, row),
        word(row + S_MESSAGE),
        word(row + S_EXPECTED),
        word(row + S_FLAGS),
        word(row + S_ENCODING),
    )
    set_word(row + S_MESSAGE, 0)
    set_word(row + S_CAPACITY, 0)


@kernel
def take_prefix(state: int, row: int, data: int, size: int) -> int:
    """Reads what there is of a message's prefix; how many bytes it took, -1 if the call is refused."""
    have = word(row + S_PREFIX_SIZE)
    taken = min(PREFIX_BYTES - have, size)
    for at in range(taken):
        set_uint8(row + S_PREFIX + have + at, uint8(data + at))
    set_word(row + S_PREFIX_SIZE, have + taken)
    if have + taken < PREFIX_BYTES:
        return taken
    compressed = uint8(row + S_PREFIX)
    expected = 0
    for at in range(1, PREFIX_BYTES):
        expected = expected << 8 | uint8(row + S_PREFIX + at)
    if compressed > 1 or (not flagged(row, IS_STREAMING) and word(row + S_MESSAGES)):
        if compressed > 1:
            refuse(state, row, BAD_PREFIX)
            return -1
        set_word(row + S_MESSAGES, 2)
        forget_message(state, row)
    if expected > word(state + MAX_MESSAGE):
        refuse(state, row, TOO_LARGE)
        return -1
    unflag(row, IS_COMPRESSED)
    if compressed:
        flag(row, IS_COMPRESSED)
    set_word(row + S_EXPECTED, expected)
    set_word(row + S_SIZE, 0)
    return taken


@kernel
def take_data(state: int, row: int, data: int, size: int) -> None:
    """Takes what came of a stream's messages."""
    at = 0
    while at < size and not flagged(row, IS_IGNORED):
        if word(row + S_PREFIX_SIZE) < PREFIX_BYTES:
            taken = take_prefix(state, row, data + at, size - at)
            if taken < 0:
                return
            at += taken
            if word(row + S_PREFIX_SIZE) < PREFIX_BYTES:
                return
        have = word(row + S_SIZE)
        expected = word(row + S_EXPECTED)
        taken = min(expected - have, size - at)
        if taken:
            if not make_room(state, row, have + taken):
                refuse(state, row, TOO_MUCH)
                return
            copy(word(row + S_MESSAGE) + have, data + at, taken)
            set_word(row + S_SIZE, have + taken)
            at += taken
        if have + taken == expected:
            end_message(state, row)


@kernel
def on_data(session: int, _flags: int, stream: int, data: int, size: int, user: int) -> int:
    row = stream_row(session, stream)
    if row:
        take_data(word(user + C_STATE), row, data, size)
        if flagged(row, IS_PAUSED):
            # Neither window is given back, so all that Python keeps of a connection's paused streams is bounded too.
            set_word(row + S_HELD, word(row + S_HELD) + size)
            return 0
    consume_connection(session, size)
    consume_stream(session, stream, size)
    return 0


@kernel
def on_close(session: int, stream: int, code: int, user: int) -> int:
    row = stream_row(session, stream)
    if row:
        consume_connection(session, word(row + S_HELD))
        close_stream(word(user + C_STATE), row, INT64(code))
        set_stream_row(session, stream, 0)
    return 0


@kernel
def pairs_of(block: int, size: int, pairs: int) -> int:
    """Makes nghttp2's pairs of a block of headers: both sizes as 32 bits, then name and value. How many there are."""
    at, count = 0, 0
    while at < size and count < MAX_PAIRS:
        name_size, value_size = uint32(block + at), uint32(block + at + 4)
        pair = pairs + count * PAIR_BYTES
        set_word(pair, block + at + 8)
        set_word(pair + 8, block + at + 8 + name_size)
        set_word(pair + 16, name_size)
        set_word(pair + 24, value_size)
        set_word(pair + 32, 0)
        at += 8 + name_size + value_size
        count += 1
    return count


@kernel
def on_read(session: int, stream: int, buffer: int, room: int, data_flags: int, source: int, user: int) -> int:
    """Gives nghttp2 the next bytes of a stream's answers, and its trailers after the last."""
    state = word(user + C_STATE)
    row = word(source)
    written = 0
    while written < room:
        node = word(row + S_FIRST_OUT)
        if node == 0:
            break
        at = word(node + N_AT)
        taken = min(word(node + N_SIZE) - at, room - written)
        copy(buffer + written, node + NODE_BYTES + at, taken)
        written += taken
        if at + taken < word(node + N_SIZE):
            set_word(node + N_AT, at + taken)
            break
        following = word(node + N_NEXT)
        set_word(row + S_FIRST_OUT, following)
        if following == 0:
            set_word(row + S_LAST_OUT, 0)
        forget_node(state, row, node)
        if flagged(row, IS_STREAMING):
            sent = word(row + S_SENT)
            set_word(row + S_SENT, sent + 1)
            if sent == 0:
                push(state, SENT, slot_of(state, row), 0, 0, 0, 0)
    if word(row + S_FIRST_OUT) == 0 and flagged(row, IS_ANSWERED):
        set_uint32(data_flags, DATA_EOF | DATA_NO_END)
        if word(row + S_TRAILERS):
            count = pairs_of(word(row + S_TRAILERS), word(row + S_TRAILERS_SIZE), word(state + SCRATCH))
            failed = submit_trailer(session, stream, word(state + SCRATCH), count)
        else:
            failed = submit_trailer(session, stream, word(state + TRAILERS), word(state + TRAILER_COUNT))
        return STREAM_FAILURE if failed else written
    if written == 0:
        flag(row, IS_DEFERRED)
        return DEFERRED
    return written


@kernel
def on_frame_sent(session: int, frame: int, user: int) -> int:
    """Has a caller that was answered early stop sending (RFC 9113, 8.1), and counts the streams that its errors end."""
    kind = uint8(frame + 12)
    if kind == _RESET:
        code = uint32(frame + 16)
        if code != NO_ERROR and code != _INTERNAL_ERROR and code != REFUSED_STREAM and code != CANCEL:
            count_reset(session, user)
        return 0
    if (kind == _HEADERS or kind == _DATA) and uint8(frame + 13) & _END_STREAM:
        stream = int32(frame + 8)
        row = stream_row(session, stream)
        if row and not flagged(row, IS_HALF_CLOSED):
            submit_reset(session, 0, stream, NO_ERROR)
    return 0
