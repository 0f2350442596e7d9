"""The answers to calls that `requests` has begun: a reply whose text is known becomes JSON, and is sent.

A *text* is what the replies of one version have in common, from `open_inference`; what differs are the id, the timing and
the numbers. Any other reply is left to Python.
"""

from collections.abc import Callable
from typing import Final

from penstock_server.kernels.base import INT32, INT64, external, kernel
from penstock_server.kernels.memory import (
    allocate,
    compare,
    copy,
    double_at,
    int32,
    set_double,
    set_uint8,
    set_word,
    single_at,
    uint8,
    uint32,
    word,
)
from penstock_server.rest.kernels.numbers import digit_count, put_digits, write_double, write_integer
from penstock_server.rest.kernels.requests import form_at
from penstock_server.rest.layout import (
    CONNECTION_BYTES,
    CONNECTIONS,
    EXPECT,
    F_CALLS,
    F_KIND,
    F_TEXT,
    HEAD,
    HEAD_BYTES,
    HEAD_ROOM,
    IDENTIFIED,
    KIND_BYTES,
    LARGEST,
    LITERAL,
    MICROSECONDS,
    NUMBER,
    NUMBERS,
    POWERS,
    R_ANSWERED_AT,
    R_CALL,
    R_FLAGS,
    R_FORM,
    R_KEPT,
    R_KEPT_BYTES,
    REPLY,
    S_DATA,
    S_KIND,
    S_MORE,
    S_SIZE,
    STEP_BYTES,
    TEXT_BYTES,
    TEXT_COUNT,
    TEXTS,
    TIMING,
    TIMINGS,
    TRANSPORT,
    UNSENT,
    UNSENT_COUNT,
    X_COUNT,
    X_KIND,
    X_NAMES,
    X_PREFIX,
    X_PREFIX_BYTES,
    X_STEPS,
    X_TAIL_BYTES,
)
from penstock_server.transport.layout import GUEST_READY, NOW

_send: Final[Callable[..., int]] = external("send", INT64, INT32, INT64, INT64, INT32)
_error: Final[Callable[..., int]] = external("__errno_location", INT64)
_QUIETLY: Final = 0x4040
"""MSG_NOSIGNAL and MSG_DONTWAIT."""
_AGAIN: Final = 11
_INTERRUPTED: Final = 4
_BAD: Final = -1
_ID: Final = 0x1A
_PARAMETER: Final = 0x22
_HEAD_END: Final = 0x0A0D0A0D
_QUOTE, _COMMA, _BACKSLASH = 34, 44, 92


@kernel
def varint_end(data: int, at: int, end: int) -> int:
    """Where the number ends that begins at `at`; -1 if it is longer than 62 bits, or than there is room."""
    for size in range(min(8, end - at)):
        if uint8(data + at + size) < 0x80:
            return at + size + 1
    return _BAD


@kernel
def varint(data: int, at: int, end: int) -> int:
    """The number of these bytes."""
    value = 0
    for place in range(end - at):
        value |= (uint8(data + at + place) & 0x7F) << 7 * place
    return value


@kernel
def timing_of(text: int, data: int, size: int) -> int:
    """Which number of the timing has this name; -1 if none has."""
    for number in range(TIMINGS):
        name = word(text + X_NAMES) + number * 16
        if word(name + 8) == size and compare(word(name), data, size) == 0:
            return number
    return _BAD


@kernel
def read_timing(state: int, text: int, data: int, at: int, end: int) -> int:
    """Reads a parameter that is one number of the timing; where it ends, or -1."""
    if end - at < 6 or uint8(data + at + 1) != end - at - 2 or uint8(data + at + 2) != 0x0A:
        return _BAD
    size = uint8(data + at + 3)
    value = at + 4 + size
    if value + 3 > end or uint8(data + value) != 0x12 or uint8(data + value + 2) != 0x10:
        return _BAD
    number = timing_of(text, data + at + 4, size)
    if number < 0 or varint_end(data, value + 3, end) != end or uint8(data + value + 1) != end - value - 2:
        return _BAD
    set_word(word(state + TIMING) + number * 8, varint(data, value + 3, end))
    return end


@kernel
def read_middle(state: int, text: int, data: int, at: int, end: int) -> int:
    """Reads the id and the timing; where the id is, 0 for none, -1 if something else is there. Its size is at NUMBER."""
    found, timings = 0, 0
    set_word(word(state + NUMBER), 0)
    while at < end:
        if end - at < 2:
            return _BAD
        size = uint8(data + at + 1)
        following = at + 2 + size
        if size >= 0x80 or following > end:
            return _BAD
        tag = uint8(data + at)
        if tag == _ID and found == 0 and size > 0:
            for place in range(size):
                character = uint8(data + at + 2 + place)
                if character < 32 or character >= 127 or character == _QUOTE or character == _BACKSLASH:
                    return _BAD
            found = at + 2
            set_word(word(state + NUMBER), size)
        elif tag == _PARAMETER:
            if read_timing(state, text, data, at, following) < 0:
                return _BAD
            timings += 1
        else:
            return _BAD
        at = following
    return found if timings == TIMINGS else _BAD


@kernel
def write_number(state: int, kind: int, data: int, out: int) -> int:
    """Writes an element of a tensor; where it ends, -1 if JSON cannot say it."""
    if kind <= 1:
        place = word(state + TIMING) + TIMINGS * 8
        set_double(place, double_at(data) if kind == 1 else single_at(data))
        return write_double(word(state + POWERS), out, word(place), place)
    value = uint8(data)
    if kind == 2:
        value -= (value & 0x80) << 1
    elif kind == 3:
        value |= uint8(data + 1) << 8
        value -= (value & 0x8000) << 1
    elif kind == 4:
        value = int32(data)
    elif kind == 5:
        value = word(data)
        if value < -(1 << 62):
            return _BAD
    elif kind == 7:
        value |= uint8(data + 1) << 8
    elif kind == 8:
        value = uint32(data)
    return write_integer(out, value)


@kernel
def write_numbers(state: int, step: int, data: int, out: int) -> int:
    kind = word(step + S_MORE)
    for number in range(word(step + S_SIZE)):
        if number:
            set_uint8(out, _COMMA)
            out += 1
        out = write_number(state, kind, data + number * KIND_BYTES[kind], out)
        if out < 0:
            return _BAD
    return out


@kernel
def largest(kind: int, count: int, data: int) -> int:
    """Where the largest of these numbers is."""
    size = KIND_BYTES[kind]
    found = data
    for number in range(1, count):
        at = data + number * size
        if (kind == 0 and single_at(at) > single_at(found)) or (kind == 1 and double_at(at) > double_at(found)):
            found = at
    return found


@kernel
def body_of(state: int, text: int, data: int, size: int) -> int:
    """Writes the body of an answer; where it ends, -1 if the reply has another text."""
    before, tail = word(text + X_PREFIX_BYTES), size - word(text + X_TAIL_BYTES)
    if tail < before or word(text + X_COUNT) == 0 or compare(data, word(text + X_PREFIX), before) != 0:
        return _BAD
    identifier = read_middle(state, text, data, before, tail)
    if identifier < 0:
        return _BAD
    out, at = word(state + REPLY) + HEAD_ROOM, tail
    for number in range(word(text + X_COUNT)):
        step = word(text + X_STEPS) + number * STEP_BYTES
        kind, given, length = word(step + S_KIND), word(step + S_DATA), word(step + S_SIZE)
        if kind == LITERAL:
            copy(out, given, length)
            out += length
        elif kind == NUMBERS:
            out = write_numbers(state, step, data + at, out)
            if out < 0:
                return _BAD
            at += length * KIND_BYTES[word(step + S_MORE)]
        elif kind == LARGEST:
            numbers = word(step + S_MORE)
            out = write_number(state, numbers, largest(numbers, length, data + at), out)
            if out < 0:
                return _BAD
        elif kind == EXPECT:
            if compare(data + at, given, length) != 0:
                return _BAD
            at += length
        elif kind == MICROSECONDS:
            out = write_integer(out, word(word(state + TIMING) + length * 8))
        elif kind == IDENTIFIED and identifier:
            copy(out, given, length)
            copy(out + length, data + identifier, word(word(state + NUMBER)))
            out += length + word(word(state + NUMBER))
            set_uint8(out, _QUOTE)
            set_uint8(out + 1, _COMMA)
            out += 2
    return out


@kernel
def find_body(state: int, form: int, data: int, size: int) -> int:
    """As `body_of`, of the text that has it."""
    first = word(form + F_TEXT)
    for turn in range(word(state + TEXT_COUNT) + 1):
        number = first if turn == 0 else turn - 1
        if turn and number == first:
            continue
        text = word(state + TEXTS) + number * TEXT_BYTES
        end = body_of(state, text, data, size) if word(text + X_KIND) == word(form + F_KIND) else _BAD
        if end > 0:
            set_word(form + F_TEXT, number)
            return end
    return _BAD


@kernel
def put_head(state: int, size: int) -> int:
    """Writes the head before the body; where it begins."""
    body, digits = word(state + REPLY) + HEAD_ROOM, digit_count(size)
    place = body - 4 - digits
    put_digits(place, size, digits)
    set_word(word(state + NUMBER), _HEAD_END)
    copy(body - 4, word(state + NUMBER), 4)
    place -= word(state + HEAD_BYTES)
    copy(place, word(state + HEAD), word(state + HEAD_BYTES))
    return place


@kernel
def send(state: int, connection: int, data: int, size: int) -> None:
    """Sends an answer. What the socket does not take is left to Python; so is a broken connection, which epoll tells of."""
    descriptor = (connection - word(state + CONNECTIONS)) // CONNECTION_BYTES
    sent = _send(INT32(descriptor), data, size, _QUIETLY)
    if sent == size:
        return
    if sent < 0:
        error = int32(_error())
        if error != _AGAIN and error != _INTERRUPTED:
            return
        sent = 0
    kept = allocate(size - sent)
    if kept == 0:
        return
    copy(kept, data + sent, size - sent)
    set_word(connection + R_FLAGS, 0)
    set_word(connection + R_KEPT, kept)
    set_word(connection + R_KEPT_BYTES, size - sent)
    count = word(state + UNSENT_COUNT)
    set_word(word(state + UNSENT) + count * 8, descriptor)
    set_word(state + UNSENT_COUNT, count + 1)
    set_word(word(state + TRANSPORT) + GUEST_READY, 1)


@kernel
def reply(state: int, connection: int, data: int, size: int) -> int:
    """Answers the request of a connection with this reply; 0 if that is left to Python."""
    form = form_at(state, word(connection + R_FORM))
    end = find_body(state, form, data, size)
    if end < 0:
        return 0
    set_word(connection + R_CALL, 0)
    set_word(form + F_CALLS, word(form + F_CALLS) - 1)
    set_word(connection + R_ANSWERED_AT, word(word(state + TRANSPORT) + NOW))
    start = put_head(state, end - word(state + REPLY) - HEAD_ROOM)
    send(state, connection, start, end - start)
    return 1
