"""What a turn of the REST port does with its sockets: reads them, and begins the calls of requests whose form is known.

A *form* is what requests have in common: all bytes but the length of the body, the numbers and texts of its tensors, its
id and what traces it. Python writes it down as steps when it has read one such request (`forms`). A request that follows
the steps to its end becomes the message that Python would have made of it. Everything else is left to Python with the
bytes that came, and so is every doubt: these kernels refuse nothing.
"""

from collections.abc import Callable
from typing import Final

from penstock_server.kernels.base import INT32, INT64, call, external, kernel
from penstock_server.kernels.memory import (
    allocate,
    compare,
    copy,
    double_at,
    int32,
    release,
    set_single,
    set_uint8,
    set_uint32,
    set_word,
    uint8,
    uint32,
    word,
)
from penstock_server.rest.kernels.numbers import read_double, read_integer
from penstock_server.rest.layout import (
    BEGIN,
    BODY,
    CONNECTION_BYTES,
    CONNECTION_COUNT,
    CONNECTIONS,
    E_DATA,
    E_DESCRIPTOR,
    E_HAPPENED,
    E_KIND,
    E_SIZE,
    EPOLL,
    EPOLL_EVENTS,
    EVENT_BYTES,
    EVENTS,
    F_CALLS,
    F_COUNT,
    F_HEADERS,
    F_HEADERS_BYTES,
    F_STEPS,
    FORM_BYTES,
    FORM_COUNT,
    FORMS,
    HEADERS,
    HIGHEST,
    IDENTIFIER,
    IS_FREE,
    KIND_BYTES,
    LENGTH,
    LITERAL,
    LOCAL,
    LOWEST,
    MESSAGE,
    MESSAGE_BYTES,
    METHOD,
    MOST_KEPT_BYTES,
    NOT_READ,
    NOT_SENT,
    NUMBER,
    NUMBERS,
    OUT,
    OUT_COUNT,
    POWERS,
    PUT,
    R_CALL,
    R_FLAGS,
    R_FORM,
    R_KEPT,
    R_KEPT_AT,
    R_KEPT_BYTES,
    READ_BYTES,
    RECEIVED,
    RECEIVED_BYTES,
    ROOM_BYTES,
    S_DATA,
    S_KIND,
    S_MORE,
    S_SIZE,
    SHORT,
    STEP_BYTES,
    STRINGS,
    TRACE,
    TRACE_BYTES,
    TRANSPORT,
    UNSENT,
    UNSENT_COUNT,
)
from penstock_server.transport.layout import (
    EPOLL_DATA,
    EPOLL_EVENT_BYTES,
    NEVER,
    NOW,
    S_TAKER,
    STREAM_BYTES,
    STREAMS,
)

_receive: Final[Callable[..., int]] = external("recv", INT64, INT32, INT64, INT64, INT32)
_epoll_wait: Final[Callable[..., int]] = external("epoll_wait", INT32, INT32, INT64, INT32, INT32)
_error: Final[Callable[..., int]] = external("__errno_location", INT64)
_DONT_WAIT: Final = 0x40
_AGAIN: Final = 11
_INTERRUPTED: Final = 4
_READABLE: Final = 1
_BAD: Final = -1
_ID: Final = 0x1A
_RAW: Final = 0x3A
_LENGTH_DIGITS: Final = 7
_MOST_ID_BYTES: Final = 255
_COMMA, _QUOTE, _BACKSLASH = 44, 34, 92
_SPACES: Final = 0x100002600
"""A bit for each of JSON's white spaces: space, tabulator, line feed, carriage return."""


@kernel
def after_spaces(data: int, at: int, end: int) -> int:
    while at < end and uint8(data + at) <= 32 and _SPACES >> uint8(data + at) & 1:
        at += 1
    return at


@kernel
def after_comma(data: int, at: int, end: int) -> int:
    """Where the element behind a comma begins; -1 if there is no comma."""
    at = after_spaces(data, at, end)
    if at >= end or uint8(data + at) != _COMMA:
        return _BAD
    return after_spaces(data, at + 1, end)


@kernel
def store(number: int, kind: int, out: int) -> bool:
    """Writes the number at a place as an element of a tensor; false if it is out of its range."""
    if kind == 0:
        value = double_at(number)
        # Half a step beyond the largest, which Python refuses.
        if not (-3.4028235677973366e38 < value < 3.4028235677973366e38):
            return False
        set_single(out, value)
        return True
    value_bits = word(number)
    if kind == 1 or kind == 5:
        set_word(out, value_bits)
    elif kind == 4 or kind == 8:
        set_uint32(out, value_bits)
    elif kind == 3 or kind == 7:
        set_uint8(out, value_bits)
        set_uint8(out + 1, value_bits >> 8)
    else:
        set_uint8(out, value_bits)
    return True


@kernel
def read_numbers(state: int, step: int, data: int, at: int, end: int, out: int) -> int:
    """Reads the numbers of a step into a tensor; where they end, or -1."""
    kind, number, powers = word(step + S_MORE), word(state + NUMBER), word(state + POWERS)
    size = KIND_BYTES[kind]
    for turn in range(word(step + S_SIZE)):
        if turn:
            at = after_comma(data, at, end)
            if at < 0:
                return _BAD
        if kind <= 1:
            at = read_double(powers, data, at, end, number)
        else:
            at = read_integer(data, at, end, number)
            if at >= 0 and (word(number) < LOWEST[kind] or word(number) > HIGHEST[kind]):
                return _BAD
        if at < 0 or not store(number, kind, out + turn * size):
            return _BAD
    return at


@kernel
def text_end(data: int, at: int, end: int) -> int:
    """Where the quote is that ends a text of plain ASCII; -1 if it is none."""
    while at < end:
        character = uint8(data + at)
        if character == _QUOTE:
            return at
        if character < 32 or character >= 127 or character == _BACKSLASH:
            return _BAD
        at += 1
    return _BAD


@kernel
def put_varint(out: int, value: int) -> int:
    while value >= 0x80:
        set_uint8(out, value & 0x7F | 0x80)
        value >>= 7
        out += 1
    set_uint8(out, value)
    return out + 1


@kernel
def read_texts(state: int, step: int, data: int, at: int, end: int, out: int, limit: int) -> int:
    """Reads the texts of a step as raw contents, with tag and size; where they end, or -1. `NUMBER` is the message's end."""
    raw = out + 6
    place = raw
    for turn in range(word(step + S_SIZE)):
        if turn:
            at = after_comma(data, at, end)
            if at < 0:
                return _BAD
        if at >= end or uint8(data + at) != _QUOTE:
            return _BAD
        last = text_end(data, at + 1, end)
        size = last - at - 1
        if last < 0 or place + 4 + size > limit:
            return _BAD
        set_uint32(place, size)
        copy(place + 4, data + at + 1, size)
        place += 4 + size
        at = last + 1
    size = place - raw
    set_uint8(out, _RAW)
    begin = put_varint(out + 1, size)
    for offset in range(size):  # to lower places, so from the first on
        set_uint8(begin + offset, uint8(raw + offset))
    set_word(word(state + NUMBER), begin + size)
    return at


@kernel
def is_trace(data: int) -> bool:
    """Whether these are the digits and dashes of a `traceparent`."""
    for at in range(TRACE_BYTES):
        character = uint8(data + at)
        if not (48 <= character <= 57 or 97 <= character <= 102 or character == 45):
            return False
    return True


@kernel
def begins_alike(data: int, at: int, size: int, literal: int, expected: int) -> int:
    """Where a literal ends; -1 if other bytes have come, -2 if too few."""
    here = min(size - at, expected)
    if compare(data + at, literal, here) != 0:
        return _BAD
    return at + expected if here == expected else SHORT


@kernel
def read_length(data: int, at: int, size: int) -> int:
    """The number of plain digits that begins at `at`; -1 if it is none."""
    value, first = 0, at
    while at < size and 48 <= uint8(data + at) <= 57:
        value = value * 10 + uint8(data + at) - 48
        at += 1
        if at - first > _LENGTH_DIGITS:
            return _BAD
    return value if at > first and (uint8(data + first) != 48 or at == first + 1) else _BAD


@kernel
def message_of(state: int, form: int, data: int, size: int) -> int:
    """Makes the message of a request; its size, -1 if the request has another form, -2 if it is not whole."""
    message = word(state + MESSAGE)
    limit = message + MESSAGE_BYTES
    at, out, length = 0, message, -1
    short = SHORT
    for number in range(word(form + F_COUNT)):
        step = word(form + F_STEPS) + number * STEP_BYTES
        kind = word(step + S_KIND)
        if kind == LITERAL:
            at = begins_alike(data, at, size, word(step + S_DATA), word(step + S_SIZE))
        elif kind == NUMBERS:
            at = read_numbers(state, step, data, at, size, out)
            out += word(step + S_SIZE) * KIND_BYTES[word(step + S_MORE)]
        elif kind == PUT:
            copy(out, word(step + S_DATA), word(step + S_SIZE))
            out += word(step + S_SIZE)
        elif kind == STRINGS:
            at = read_texts(state, step, data, at, size, out, limit)
            out = word(word(state + NUMBER))
        elif kind == LENGTH:
            length = read_length(data, at, size)
            if length < 0:
                return SHORT if at == size else _BAD
            while at < size and 48 <= uint8(data + at) <= 57:
                at += 1
        elif kind == BODY:
            if size - at != length:
                return SHORT if size - at < length <= MOST_KEPT_BYTES - at else _BAD
            short = _BAD  # nothing more comes
        elif kind == TRACE:
            if size - at < TRACE_BYTES or not is_trace(data + at):
                return _BAD
            copy(word(state + HEADERS) + word(step + S_DATA), data + at, TRACE_BYTES)
            at += TRACE_BYTES
        elif kind == IDENTIFIER:
            last = text_end(data, at, size)
            if last < 0 or last - at > _MOST_ID_BYTES:
                return _BAD
            if last > at:
                set_uint8(out, _ID)
                out = put_varint(out + 1, last - at)
                copy(out, data + at, last - at)
                out += last - at
            at = last
        if at < 0:
            return short if at == SHORT else _BAD
        if out + 1024 > limit:
            return _BAD
    return out - message if at == size else _BAD


@kernel
def form_at(state: int, number: int) -> int:
    return word(state + FORMS) + number * FORM_BYTES


@kernel
def begin_call(state: int, connection: int, form: int, size: int) -> bool:
    """Begins the call with the message that was made; false if there is no room for it."""
    transport = word(state + TRANSPORT)
    slot = call(
        word(state + BEGIN),
        (
            transport,
            word(state + LOCAL),
            word(state + METHOD),
            word(state + MESSAGE),
            size,
            NEVER,
            word(state + HEADERS),
            word(form + F_HEADERS_BYTES),
        ),
    )
    if slot < 0:
        return False
    set_word(word(transport + STREAMS) + slot * STREAM_BYTES + S_TAKER, connection)
    set_word(connection + R_CALL, slot + 1)
    set_word(form + F_CALLS, word(form + F_CALLS) + 1)
    return True


@kernel
def try_form(state: int, number: int, data: int, size: int) -> int:
    """As `message_of`; the headers of the call are there too."""
    form = form_at(state, number)
    if word(form + F_COUNT) == 0:
        return _BAD
    copy(word(state + HEADERS), word(form + F_HEADERS), word(form + F_HEADERS_BYTES))
    return message_of(state, form, data, size)


@kernel
def take(state: int, connection: int, data: int, size: int) -> int:
    """Begins the call of a request; 0, or -1 if its form is not known, -2 if it is not whole."""
    first = word(connection + R_FORM)
    is_short = False
    for turn in range(word(state + FORM_COUNT) + 1):
        number = first if turn == 0 else turn - 1
        if turn and number == first:
            continue
        found = try_form(state, number, data, size)
        if found > 0:
            set_word(connection + R_FORM, number)
            return 0 if begin_call(state, connection, form_at(state, number), found) else _BAD
        is_short = is_short or found == SHORT
    return SHORT if is_short else _BAD


@kernel
def tell(state: int, descriptor: int, happened: int, kind: int, data: int, size: int) -> None:
    """Leaves something to Python."""
    count = word(state + OUT_COUNT)
    event = word(state + OUT) + count * EVENT_BYTES
    set_word(event + E_DESCRIPTOR, descriptor)
    set_word(event + E_HAPPENED, happened)
    set_word(event + E_KIND, kind)
    set_word(event + E_DATA, data)
    set_word(event + E_SIZE, size)
    set_word(state + OUT_COUNT, count + 1)


@kernel
def forget_kept(connection: int) -> None:
    if word(connection + R_KEPT):
        release(word(connection + R_KEPT))
    set_word(connection + R_KEPT, 0)
    set_word(connection + R_KEPT_BYTES, 0)
    set_word(connection + R_KEPT_AT, 0)


@kernel
def keep(state: int, connection: int, data: int, size: int) -> bool:
    """Keeps the beginning of a request until the rest has come; false if it is too long for that."""
    begun = word(connection + R_KEPT_AT)
    if size > MOST_KEPT_BYTES:
        return False
    kept = allocate(size)
    if kept == 0:
        return False
    copy(kept, data, size)
    forget_kept(connection)
    set_word(connection + R_KEPT, kept)
    set_word(connection + R_KEPT_BYTES, size)
    set_word(connection + R_KEPT_AT, begun or word(word(state + TRANSPORT) + NOW))
    return True


@kernel
def read(state: int, connection: int, descriptor: int, happened: int, place: int) -> int:
    """Reads a free connection to a place; how many bytes there are Python's."""
    have = word(connection + R_KEPT_BYTES)
    copy(place, word(connection + R_KEPT), have)
    size = _receive(INT32(descriptor), place + have, READ_BYTES - have, _DONT_WAIT)
    if size < 0:
        error = int32(_error())
        if error == _AGAIN or error == _INTERRUPTED:
            return 0
    if size > 0:
        size += have
        found = take(state, connection, place, size)
        if found == 0:
            forget_kept(connection)
            return 0
        if found == SHORT and keep(state, connection, place, size):
            return 0
    set_word(connection + R_FLAGS, 0)
    forget_kept(connection)
    if size <= 0:
        tell(state, descriptor, happened, NOT_READ, 0, 0)  # Python finds the end too
        return 0
    tell(state, descriptor, happened, RECEIVED_BYTES, place, size)
    return size


@kernel
def tell_unsent(state: int) -> None:
    """Leaves to Python what sockets have not taken of the answers of kernels."""
    for number in range(word(state + UNSENT_COUNT)):
        descriptor = word(word(state + UNSENT) + number * 8)
        connection = word(state + CONNECTIONS) + descriptor * CONNECTION_BYTES
        if word(connection + R_KEPT) and not word(connection + R_FLAGS) & IS_FREE:
            tell(state, descriptor, 0, NOT_SENT, word(connection + R_KEPT), word(connection + R_KEPT_BYTES))
    set_word(state + UNSENT_COUNT, 0)


@kernel
def turn(state: int) -> int:
    """Takes up what is there, if Python has what was left to it before; how much is left to it."""
    if word(state + OUT_COUNT):
        return word(state + OUT_COUNT)
    tell_unsent(state)
    events = word(state + EPOLL_EVENTS)
    place, end = word(state + RECEIVED), word(state + RECEIVED) + ROOM_BYTES
    ready = _epoll_wait(INT32(word(state + EPOLL)), events, EVENTS, 0)
    for number in range(ready):
        event = events + number * EPOLL_EVENT_BYTES
        happened, descriptor = uint32(event), uint32(event + EPOLL_DATA)
        connection = word(state + CONNECTIONS) + descriptor * CONNECTION_BYTES
        if (
            descriptor >= word(state + CONNECTION_COUNT)
            or happened != _READABLE
            or not word(connection + R_FLAGS) & IS_FREE
            or word(connection + R_CALL)
        ):
            tell(state, descriptor, happened, NOT_READ, 0, 0)
        elif end - place >= READ_BYTES:  # else the next turn finds it
            place += read(state, connection, descriptor, happened, place)
    return word(state + OUT_COUNT)
