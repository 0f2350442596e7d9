import doctest
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import wire
from penstock.wire import BYTES, FIXED32, FIXED64, VARINT, MalformedError, read_field, read_varint, signed, varint

NUMBERS = st.integers(1, 2**29 - 1)
FIELDS = st.one_of(
    st.tuples(NUMBERS, st.just(VARINT), st.integers(0, 2**64 - 1)),
    st.tuples(NUMBERS, st.just(FIXED64), st.binary(min_size=8, max_size=8)),
    st.tuples(NUMBERS, st.just(BYTES), st.binary(max_size=300)),
    st.tuples(NUMBERS, st.just(FIXED32), st.binary(min_size=4, max_size=4)),
)


def written(number, kind, value):
    content = varint(value) if kind == VARINT else varint(len(value)) + value if kind == BYTES else value
    return varint(number << 3 | kind) + content


def read(content, at, end):
    """The fields of a message, with their contents."""
    found = []
    while at < end:
        number, kind, start, stop, at = read_field(content, at, end)
        size = {FIXED32: 4, FIXED64: 8}.get(kind, stop - start)
        found.append((number, kind, start if kind == VARINT else content[start : start + size]))
    return found


def test_the_examples() -> None:
    found = doctest.testmod(wire)
    assert (found.failed, found.attempted) == (0, 4)


@given(value=st.integers(0, 2**64 - 1))
def test_varint_holds_seven_bits_per_byte(value: int) -> None:
    encoded = varint(value)
    assert sum((byte & 127) << (7 * at) for at, byte in enumerate(encoded)) == value
    assert [byte > 127 for byte in encoded] == [True] * (len(encoded) - 1) + [False]
    assert len(encoded) == max(1, -(-value.bit_length() // 7))


@given(fields=st.lists(FIELDS, max_size=6), before=st.binary(max_size=3), after=st.binary(max_size=3))
def test_fields_are_read_as_they_were_written(fields, before, after) -> None:
    message = b"".join(written(*each) for each in fields)
    assert read(before + message + after, len(before), len(before) + len(message)) == fields


@given(st.binary(min_size=1, max_size=20))
def test_any_bytes_are_fields_to_the_end_or_malformed(content) -> None:
    """What is read never lies beyond the message, even where more bytes follow."""
    try:
        found = read(content + b"\x01" * 20, 0, len(content))
    except MalformedError:
        return
    assert sum(len(value) for _, kind, value in found if kind != VARINT) <= len(content)
    assert all(number > 0 for number, *_ in found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x08", "a number at byte 1 does not end"),
        (b"\x08\x80", "a number at byte 2 does not end"),
        (b"\x88", "a number at byte 1 does not end"),
        (b"\x08" + b"\x80" * 10 + b"\x00", "a number at byte 11 does not end"),
        (b"\x12\x03ab", "a field ends at byte 5, beyond its message, which ends at 4"),
        (b"\x0d123", "a field ends at byte 5"),
        (b"\x091234567", "a field ends at byte 9"),
        (b"\x00\x00", "a field ends at byte 2"),
        (b"\x0b", "byte 0 begins no field"),
    ],
)
def test_what_is_no_field_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(MalformedError, match=said):
        read_field(content, 0, len(content))


@given(st.integers(-(2**63), 2**63 - 1))
def test_signs_are_those_of_64_bits(value: int) -> None:
    encoded = varint(value & (2**64 - 1))
    found, end = read_varint(encoded, 0, len(encoded))
    assert (signed(found), end) == (value, len(encoded))
    assert signed(struct.unpack("<Q", struct.pack("<q", value))[0]) == value
