"""Reads a `ModelInferRequest` as far as a plain request needs it: protobuf's wire format, nothing of its meaning.

All of a message but its id, its raw contents, the values of three parameters and its number of rows goes into its
*skeleton*. Two messages with one skeleton are decoded in the same way, so what Python found out about the first holds for
all that follow. A parameter that means something in streams alone is passed over. What is not plain (fields twice, out of
order or unknown, typed contents, other parameters) is left to the general path, and so is every doubt: this reader refuses
nothing.

Every length is checked against what is left of its field before it is used.

Source: Protocol Buffers, "Encoding"; field numbers of `ModelInferRequest`.
"""

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import copy, set_uint8, set_word, uint8, word
from penstock_server.plain.layout import (
    F_HASH,
    F_ID_AT,
    F_ID_SIZE,
    F_INPUTS,
    F_KEY_AT,
    F_KEY_SIZE,
    F_PRIORITY,
    F_RAW_AT,
    F_ROWS,
    F_SIZE,
    F_TIMEOUT,
    MAX_INPUTS,
    MAX_KEY_BYTES,
    MAX_SKELETON,
    NONE,
)

_MODEL = 0x0A
_VERSION = 0x12
_ID = 0x1A
_PARAMETER = 0x22
_INPUT = 0x2A
_OUTPUT = 0x32
_RAW = 0x3A
_BAD = -1
_MAX_VARINT_BYTES = 5
"""Longer ones are beyond any size here, or are no plain way to write a number."""


@kernel
def varint(data: int, at: int, end: int) -> int:
    """The number that begins at `at`, of up to five bytes and in its shortest form; -1 if there is none."""
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        if at + place >= end:
            return _BAD
        byte = uint8(data + at + place)
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value if byte or place == 0 else _BAD
    return _BAD


@kernel
def varint_bytes(value: int) -> int:
    """How many bytes the shortest form of a number takes."""
    size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


@kernel
def write_varint(place: int, value: int) -> int:
    """Writes a number; how many bytes it took."""
    size = 0
    while value >= 0x80:
        set_uint8(place + size, value & 0x7F | 0x80)
        value >>= 7
        size += 1
    set_uint8(place + size, value)
    return size + 1


@kernel
def begin(data: int, at: int, end: int) -> int:
    """Where the bytes of a length-delimited field begin whose length is at `at`; -1 if they are not all there."""
    size = varint(data, at, end)
    first = at + varint_bytes(size)
    return _BAD if size < 0 or size > end - first else first


@kernel
def is_ascii(data: int, size: int) -> bool:
    for at in range(size):
        if uint8(data + at) >= 0x80:
            return False
    return True


@kernel
def keep(found: int, skeleton: int, data: int, size: int) -> bool:
    """Adds bytes to the skeleton, behind their number; false if there is no room."""
    at = word(found + F_SIZE)
    if at + 8 + size > MAX_SKELETON:
        return False
    set_word(skeleton + at, size)
    copy(skeleton + at + 8, data, size)
    set_word(found + F_SIZE, at + 8 + size)
    return True


@kernel
def keep_number(found: int, skeleton: int, value: int) -> bool:
    at = word(found + F_SIZE)
    if at + 8 > MAX_SKELETON:
        return False
    set_word(skeleton + at, value)
    set_word(found + F_SIZE, at + 8)
    return True


@kernel
def text_field(data: int, at: int, end: int, tag: int) -> int:
    """Where a field with this tag begins that is to come next; -1 if it does not."""
    return begin(data, at + 1, end) if at < end and uint8(data + at) == tag else _BAD


@kernel
def input_dimensions(found: int, skeleton: int, data: int, at: int, end: int) -> bool:
    """The packed shape of a tensor: the rows, the same for every tensor, then what goes into the skeleton."""
    rows = varint(data, at, end)
    if rows <= 0 or (word(found + F_ROWS) not in (NONE, rows)):
        return False
    set_word(found + F_ROWS, rows)
    at += varint_bytes(rows)
    while at < end:
        size = varint(data, at, end)
        if size < 0 or not keep_number(found, skeleton, size):
            return False
        at += varint_bytes(size)
    return keep_number(found, skeleton, NONE)


@kernel
def take_input(found: int, skeleton: int, data: int, at: int, end: int) -> bool:
    """One tensor's name, datatype and shape, in this order and nothing else."""
    if not keep_number(found, skeleton, _INPUT):
        return False
    name = text_field(data, at, end, 0x0A)
    if name < 0:
        return False
    size = varint(data, at + 1, end)
    if not keep(found, skeleton, data + name, size):
        return False
    at = name + size
    datatype = text_field(data, at, end, 0x12)
    if datatype < 0:
        return False
    size = varint(data, at + 1, end)
    if not keep(found, skeleton, data + datatype, size):
        return False
    at = datatype + size
    shape = text_field(data, at, end, 0x1A)
    if shape < 0 or shape + varint(data, at + 1, end) != end:
        return False
    set_word(found + F_INPUTS, word(found + F_INPUTS) + 1)
    return word(found + F_INPUTS) <= MAX_INPUTS and input_dimensions(found, skeleton, data, shape, end)


@kernel
def is_named(data: int, size: int, first: int, second: int, length: int) -> bool:
    """Whether bytes are a name of up to sixteen letters, given as two words."""
    if size != length:
        return False
    for at in range(size):
        packed = first if at < 8 else second
        if uint8(data + at) != (packed >> 8 * (at & 7)) & 255:
            return False
    return True


def _packed(text: str) -> tuple[int, ...]:
    """The letters as words, at least two."""
    raw = text.encode().ljust(max(16, -(-len(text) // 8) * 8), b"\0")
    return tuple(int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8))


_ROUTING_KEY = _packed("routing_key")
_TIMEOUT = _packed("timeout")
_PRIORITY = _packed("priority")
_OF_STREAMS = "triton_enable_empty_final_response"
_OF_STREAMS_SIZE = len(_OF_STREAMS)
_OF_STREAMS_WORDS = _packed(_OF_STREAMS)


@kernel
def is_of_streams(data: int, size: int) -> bool:
    """Whether bytes are the name of the parameter that means something in streams alone; perf_analyzer always sends it."""
    if size != _OF_STREAMS_SIZE:
        return False
    for at in range(size):
        if uint8(data + at) != (_OF_STREAMS_WORDS[at >> 3] >> 8 * (at & 7)) & 255:
            return False
    return True


@kernel
def take_parameter(found: int, data: int, at: int, end: int) -> bool:
    """One entry of the map of parameters: a key, then a value with one field, both known here."""
    name = text_field(data, at, end, 0x0A)
    if name < 0:
        return False
    size = varint(data, at + 1, end)
    at = name + size
    value = text_field(data, at, end, 0x12)
    if value < 0 or value + varint(data, at + 1, end) != end or value >= end:
        return False
    tag = uint8(data + value)
    if is_named(data + name, size, _ROUTING_KEY[0], _ROUTING_KEY[1], 11):
        text = begin(data, value + 1, end)
        if tag != 0x1A or text < 0 or word(found + F_KEY_AT) != NONE:
            return False
        length = end - text
        if varint(data, value + 1, end) != length or length > MAX_KEY_BYTES or not is_ascii(data + text, length):
            return False
        set_word(found + F_KEY_AT, text)
        set_word(found + F_KEY_SIZE, length)
        return True
    number = varint(data, value + 1, end)
    if number < 0 or value + 1 + varint_bytes(number) != end:
        return False
    if tag == 0x08:
        return is_of_streams(data + name, size)
    if tag != 0x10:
        return False
    if is_named(data + name, size, _TIMEOUT[0], _TIMEOUT[1], 7) and word(found + F_TIMEOUT) == NONE:
        set_word(found + F_TIMEOUT, number)
        return True
    if is_named(data + name, size, _PRIORITY[0], _PRIORITY[1], 8) and word(found + F_PRIORITY) == NONE:
        set_word(found + F_PRIORITY, number)
        return True
    return False


@kernel
def hashed(data: int, size: int) -> int:
    """A hash of the skeleton, which is compared as a whole afterwards; its size is a multiple of no number."""
    value = 0x1F83D9ABFB41BD6B ^ size
    at = 0
    while at + 8 <= size:
        value = (value ^ word(data + at)) * -7046029254386353131
        value ^= (value >> 29) & 0x7FFFFFFFF
        at += 8
    while at < size:
        value = (value ^ uint8(data + at)) * -7046029254386353131
        at += 1
    return value ^ ((value >> 32) & 0xFFFFFFFF)


@kernel
def take_field(found: int, skeleton: int, data: int, tag: int, at: int, end: int) -> bool:
    """One field of the message before the raw contents; false if the message is not plain."""
    if tag == _INPUT:
        return take_input(found, skeleton, data, at, end)
    if tag == _PARAMETER:
        return take_parameter(found, data, at, end)
    if tag == _ID:
        if word(found + F_ID_AT) != NONE or end - at > MAX_KEY_BYTES or not is_ascii(data + at, end - at):
            return False
        set_word(found + F_ID_AT, at)
        set_word(found + F_ID_SIZE, end - at)
        return True
    if tag in (_MODEL, _VERSION, _OUTPUT):
        return keep_number(found, skeleton, tag) and keep(found, skeleton, data + at, end - at)
    return False


@kernel
def scan(found: int, skeleton: int, data: int, size: int) -> bool:
    """Reads a message; whether it is plain. Its fields are to come in the order of their numbers."""
    set_word(found + F_SIZE, 0)
    set_word(found + F_ROWS, NONE)
    set_word(found + F_INPUTS, 0)
    set_word(found + F_ID_AT, NONE)
    set_word(found + F_ID_SIZE, 0)
    set_word(found + F_KEY_AT, NONE)
    set_word(found + F_KEY_SIZE, 0)
    set_word(found + F_TIMEOUT, NONE)
    set_word(found + F_PRIORITY, NONE)
    at = 0
    last = 0
    while at < size:
        tag = uint8(data + at)
        if tag == _RAW:
            break
        if tag < last or (tag == last and tag in (_MODEL, _VERSION)):
            return False
        last = tag
        first = begin(data, at + 1, size)
        if first < 0:
            return False
        end = first + varint(data, at + 1, size)
        if not take_field(found, skeleton, data, tag, first, end):
            return False
        at = end
    set_word(found + F_RAW_AT, at)
    set_word(found + F_HASH, hashed(skeleton, word(found + F_SIZE)))
    return are_raws(data, at, size, word(found + F_INPUTS))


@kernel
def are_raws(data: int, at: int, size: int, inputs: int) -> bool:
    """Whether there are raw contents for each tensor, and nothing else."""
    count = 0
    while at < size:
        if uint8(data + at) != _RAW:
            return False
        first = begin(data, at + 1, size)
        if first < 0:
            return False
        at = first + varint(data, at + 1, size)
        count += 1
    return count == inputs and count > 0
