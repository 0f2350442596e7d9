import doctest

import pytest
from google.protobuf import wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from penstock import wire
from penstock.wire import varint


def test_examples() -> None:
    found = doctest.testmod(wire)
    assert (found.attempted, found.failed) == (1, 0)


@given(st.one_of(st.integers(1, 2**64 - 1), st.integers(0, 64).map(lambda bits: max(1, 2**bits - 1))))
def test_protobuf_reads_it_and_writes_the_same(value: int) -> None:
    message = b"\x08" + varint(value)
    assert wrappers_pb2.UInt64Value.FromString(message).value == value
    assert wrappers_pb2.UInt64Value(value=value).SerializeToString() == message


@pytest.mark.parametrize(("value", "size"), [(0, 1), (127, 1), (128, 2), (2**14 - 1, 2), (2**14, 3), (2**63, 10)])
def test_a_byte_holds_seven_bits(value: int, size: int) -> None:
    assert len(varint(value)) == size
