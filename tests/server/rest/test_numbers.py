"""Numbers in kernels: each is read as `float` reads it, and written as `msgspec` writes it, or left to Python.

hypothesis draws those that are rare, and makes what fails as short as it can; but an example of it takes milliseconds. Nearly
all numbers are drawn by a seed, for which a kernel and Python take microseconds.
"""

import ctypes
import json
import struct
from collections.abc import Iterator
from math import isfinite
from random import Random
from typing import Final

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock_server.kernels import compiled
from penstock_server.rest import layout
from penstock_server.rest.kernel_set import KERNELS
from penstock_server.rest.powers import powers
from tests.examples import examples

LARGEST: Final = struct.unpack("<d", struct.pack("<Q", 0x7FEFFFFFFFFFFFFF))[0]
LEAST_NORMAL: Final = 2.0**-1022


class Numbers:
    """The kernels, with room for a number."""

    def __init__(self) -> None:
        self._kernels = compiled.library(KERNELS).brief
        self._powers = powers()
        self._state = np.zeros(layout.STATE_BYTES // 8, np.int64)
        self._state[layout.POWERS // 8] = self._powers.ctypes.data
        self._place = np.zeros(1, np.float64)
        self._text = ctypes.create_string_buffer(64)

    def read(self, text: bytes) -> tuple[float, int] | None:
        """The number at a text's beginning, and how long it is; None if it is left to Python."""
        end = self._kernels["number_read"](self._state.ctypes.data, text, len(text), self._place.ctypes.data)
        return None if end < 0 else (float(self._place[0]), end)

    def write(self, value: float) -> bytes | None:
        bits = struct.unpack("<q", struct.pack("<d", value))[0]
        start = ctypes.addressof(self._text)
        end = self._kernels["number_written"](self._state.ctypes.data, bits, start, self._place.ctypes.data)
        return None if end < 0 else self._text.raw[: end - start]


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return Numbers()


def same(one: float, other: float) -> bool:
    return struct.pack("<d", one) == struct.pack("<d", other)


DOUBLES: Final = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-1000, 1000),
    st.integers(-(10**18), 10**18).map(float),
    st.builds(lambda digits, power: float(f"{digits}e{power}"), st.integers(1, 10**17), st.integers(-40, 40)),
)
SEEDS: Final = st.integers(0, 2**32)
DRAWN: Final = 1000
"""As many numbers are drawn by a seed."""


def whole(draw: Random, most_digits: int) -> int:
    """As often a short number as a long one."""
    return draw.randrange(10 ** draw.randint(1, most_digits))


def doubles(seed: int) -> Iterator[float]:
    """Of any bits, and such as people write."""
    draw = Random(seed)
    for at in range(DRAWN):
        match at % 5:
            case 0:
                value = struct.unpack("<d", draw.randbytes(8))[0]
            case 1:
                value = struct.unpack("<f", draw.randbytes(4))[0]
            case 2:
                value = round(draw.uniform(-1000, 1000), draw.randint(0, 14))
            case 3:
                value = float(draw.choice((-1, 1)) * whole(draw, 18))
            case _:
                value = float(f"{whole(draw, 17)}e{draw.randint(-40, 40)}")
        if isfinite(value):
            yield value


def decimals(seed: int) -> Iterator[bytes]:
    """Texts that JSON takes for numbers, most of them with more digits than a double has."""
    draw = Random(seed)
    for _ in range(DRAWN):
        text = draw.choice(("", "-")) + str(whole(draw, 20))
        if draw.random() < 0.6:
            text += "." + str(whole(draw, 20)).zfill(draw.randint(1, 20))
        if draw.random() < 0.5:
            text += draw.choice("eE") + draw.choice(("", "+", "-")) + str(whole(draw, 3)).zfill(draw.randint(1, 3))
        yield text.encode()


def damaged(seed: int) -> Iterator[bytes]:
    """Texts of what numbers are written with."""
    draw = Random(seed)
    return (bytes(draw.choices(b"-+0123456789.eE, ", k=draw.randint(1, 8))) for _ in range(DRAWN))


def is_written_as_msgspec_writes_it(numbers: Numbers, value: float) -> None:
    assert numbers.write(value) == msgspec.json.encode(value)


def is_read_as_it_was_written(numbers: Numbers, value: float) -> None:
    text = msgspec.json.encode(value)
    found = numbers.read(text)
    if value == 0.0 or abs(value) < LEAST_NORMAL:
        assert found is None or (same(found[0], value) and found[1] == len(text)), value
    else:
        assert found is not None, value
        assert same(found[0], value), value
        assert found[1] == len(text), value


def is_read_to_the_nearest_double(numbers: Numbers, text: bytes) -> None:
    found = numbers.read(text)
    if found is not None:
        assert same(found[0], float(text)), text
        assert found[1] == len(text), text
        assert isfinite(found[0]), text


def is_read_as_far_as_json_takes_it(numbers: Numbers, text: bytes) -> None:
    found = numbers.read(text)
    if found is not None:
        value, end = found
        assert same(float(json.loads(text[:end])), value), text


@given(value=DOUBLES)
@example(value=5e-324)
@example(value=LARGEST)
@example(value=LEAST_NORMAL)
@example(value=2.0**-1022 - 5e-324)
@example(value=-0.0)
@example(value=9007199254740993.0)
@example(value=1e16)
@example(value=9.5e15)
@example(value=0.00001)
@example(value=0.0000099)
@example(value=1e23)
@example(value=2.0**60)
@examples(300)
def test_a_double_is_written_as_msgspec_writes_it(numbers: Numbers, value: float) -> None:
    is_written_as_msgspec_writes_it(numbers, value)


@given(seed=SEEDS)
@examples(20)
def test_doubles_are_written_as_msgspec_writes_them(numbers: Numbers, seed: int) -> None:
    for value in doubles(seed):
        is_written_as_msgspec_writes_it(numbers, value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_left(numbers: Numbers, value: float) -> None:
    assert numbers.write(value) is None


@given(value=DOUBLES)
@example(value=5e-324)
@example(value=LARGEST)
@example(value=LEAST_NORMAL)
@example(value=1.0)
@examples(300)
def test_what_is_written_is_read_as_the_same(numbers: Numbers, value: float) -> None:
    is_read_as_it_was_written(numbers, value)


@given(seed=SEEDS)
@examples(20)
def test_doubles_that_are_written_are_read_as_the_same(numbers: Numbers, seed: int) -> None:
    for value in doubles(seed):
        is_read_as_it_was_written(numbers, value)


DECIMALS: Final = st.from_regex(rb"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(text=DECIMALS)
@example(text=b"9007199254740993")
@example(text=b"9007199254740992.5")
@example(text=b"4503599627370496.5")
@example(text=b"4503599627370497.5")
@example(text=b"1.7976931348623158e308")
@example(text=b"1.7976931348623159e308")
@example(text=b"2.2250738585072011e-308")
@example(text=b"0.000000000000000000000000000000000001")
@example(text=b"-0")
@example(text=b"-0.0")
@examples(100)
def test_a_decimal_is_read_to_the_nearest_double(numbers: Numbers, text: bytes) -> None:
    is_read_to_the_nearest_double(numbers, text)


@given(seed=SEEDS)
@examples(20)
def test_decimals_are_read_to_the_nearest_double(numbers: Numbers, seed: int) -> None:
    for text in decimals(seed):
        is_read_to_the_nearest_double(numbers, text)


@given(text=st.from_regex(rb"[-+0-9.eE, ]{1,8}", fullmatch=True))
@example(text=b"01")
@example(text=b"1.")
@example(text=b".5")
@example(text=b"-")
@example(text=b"1e")
@example(text=b"1e+")
@example(text=b"+1")
@examples(100)
def test_what_json_does_not_take_is_not_read_to_its_end(numbers: Numbers, text: bytes) -> None:
    is_read_as_far_as_json_takes_it(numbers, text)


@given(seed=SEEDS)
@examples(20)
def test_texts_of_what_numbers_are_written_with_are_read_as_far_as_json_takes_them(numbers: Numbers, seed: int) -> None:
    for text in damaged(seed):
        is_read_as_far_as_json_takes_it(numbers, text)


def test_the_table_holds_each_power_exactly_or_rounded() -> None:
    rows = powers().view(np.uint64)
    for power in range(layout.LEAST_POWER, layout.MOST_POWER + 1):
        read, written = (int(high) << 64 | int(low) for high, low in rows[power - layout.LEAST_POWER].reshape(2, 2))
        assert read.bit_length() == written.bit_length() == 128
        assert 0 <= written - read <= 1
