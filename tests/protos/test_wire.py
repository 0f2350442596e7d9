import doctest

from hypothesis import given
from hypothesis import strategies as st

from penstock import wire
from penstock.wire import varint


def test_the_examples() -> None:
    found = doctest.testmod(wire)
    assert (found.failed, found.attempted) == (0, 1)


@given(value=st.integers(0, 2**64 - 1))
def test_varint_holds_seven_bits_per_byte(value: int) -> None:
    encoded = varint(value)
    assert sum((byte & 127) << (7 * at) for at, byte in enumerate(encoded)) == value
    assert [byte > 127 for byte in encoded] == [True] * (len(encoded) - 1) + [False]
    assert len(encoded) == max(1, -(-value.bit_length() // 7))
