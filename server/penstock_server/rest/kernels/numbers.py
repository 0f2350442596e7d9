"""Numbers in decimal: read to the nearest double, and written as the shortest text that is read as the same one.

Words are 64-bit integers whose bits are an unsigned number where a function says so. What is no plain number, or has more
digits than a word holds, is left to Python: -1 says so.

Sources: Lemire, "Number Parsing at a Gigabyte per Second", with the shorter proof of Mushtak and Lemire, "Fast Number
Parsing Without Fallback"; Giulietti, "The Schubfach Way to Render Doubles"; RFC 8259, 6.
"""

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import copy, set_double, set_uint8, set_word, uint8, word
from penstock_server.rest.layout import LEAST_POWER, POWER_BYTES

_HALF = 0xFFFFFFFF
_SIGN = -(1 << 63)
_UNSIGNED = (1 << 63) - 1
_HIDDEN = 1 << 52
_LARGEST = ((1 << 63) - 10) // 10
"""One more digit has room behind it."""
_MOST_DIGITS = 18
_MINUS, _PLUS, _POINT, _ZERO = 45, 43, 46, 48
_LOWER_E, _UPPER_E = 101, 69


@kernel
def product(one: int, other: int) -> int:
    """The upper half of the product of two unsigned words."""
    one_low, one_high = one & _HALF, (one >> 32) & _HALF
    other_low, other_high = other & _HALF, (other >> 32) & _HALF
    middle = one_high * other_low + ((one_low * other_low >> 32) & _HALF)
    other_middle = one_low * other_high + (middle & _HALF)
    return one_high * other_high + ((middle >> 32) & _HALF) + ((other_middle >> 32) & _HALF)


@kernel
def is_below(one: int, other: int) -> bool:
    """Whether an unsigned word is less than another."""
    return (one ^ _SIGN) < (other ^ _SIGN)


@kernel
def shifted(value: int, bits: int) -> int:
    """An unsigned word without its lowest bits, at least one."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


@kernel
def leading_zeros(value: int) -> int:
    """Of a word that is not 0."""
    count = 0
    step = 32
    while step:
        if value >> (64 - step) == 0:
            count += step
            value <<= step
        step >>= 1
    return count


@kernel
def nearest(powers: int, digits: int, power: int) -> int:
    """The bits of the double that is nearest to digits, at least 1, times a power of ten; -1 if it is no normal number."""
    if power < LEAST_POWER or power > 308:
        return -1
    zeros = leading_zeros(digits)
    digits <<= zeros
    row = powers + (power - LEAST_POWER) * POWER_BYTES
    low, high = digits * word(row), product(digits, word(row))
    if high & 0x1FF == 0x1FF:
        more = product(digits, word(row + 8))
        low += more
        if is_below(low, more):
            high += 1
    upper = (high >> 63) & 1
    mantissa = shifted(high, upper + 9)
    exponent = (217706 * power >> 16) + 63 + upper - zeros + 1023
    if exponent <= 0:
        return -1
    if (low == 0 or low == 1) and power >= -4 and power <= 23 and mantissa & 3 == 1 and mantissa << (upper + 9) == high:
        mantissa &= ~1  # half way between two: to the even one
    mantissa += mantissa & 1
    mantissa >>= 1
    if mantissa >= 2 * _HIDDEN:
        mantissa = _HIDDEN
        exponent += 1
    if exponent >= 0x7FF:
        return -1
    return (mantissa & ~_HIDDEN) | exponent << 52


@kernel
def read_exponent(data: int, at: int, end: int) -> int:
    """Where the exponent ends whose first sign or digit is at `at`; -1 if it is none, or has more than three digits."""
    if at < end and (uint8(data + at) == _MINUS or uint8(data + at) == _PLUS):
        at += 1
    first = at
    while at < end and uint8(data + at) >= _ZERO and uint8(data + at) <= _ZERO + 9:
        at += 1
    return at if at > first and at - first <= 3 else -1


@kernel
def exponent_of(data: int, at: int, end: int) -> int:
    """The exponent that `read_exponent` has read."""
    is_negative = uint8(data + at) == _MINUS
    if is_negative or uint8(data + at) == _PLUS:
        at += 1
    value = 0
    while at < end:
        value = value * 10 + uint8(data + at) - _ZERO
        at += 1
    return -value if is_negative else value


@kernel
def read_double(powers: int, data: int, at: int, end: int, place: int) -> int:
    """Reads the number that begins at `at` to a place; where it ends, -1 if it is left to Python."""
    is_negative = at < end and uint8(data + at) == _MINUS
    if is_negative:
        at += 1
    first = at
    digits, power = 0, 0
    while at < end and uint8(data + at) >= _ZERO and uint8(data + at) <= _ZERO + 9:
        if digits > _LARGEST:
            return -1
        digits = digits * 10 + uint8(data + at) - _ZERO
        at += 1
    if at == first or (at - first > 1 and uint8(data + first) == _ZERO):
        return -1
    if at < end and uint8(data + at) == _POINT:
        at += 1
        first = at
        while at < end and uint8(data + at) >= _ZERO and uint8(data + at) <= _ZERO + 9:
            if digits > _LARGEST:
                return -1
            digits = digits * 10 + uint8(data + at) - _ZERO
            at += 1
        if at == first:
            return -1
        power = first - at
    if at < end and (uint8(data + at) == _LOWER_E or uint8(data + at) == _UPPER_E):
        first = at + 1
        at = read_exponent(data, first, end)
        if at < 0:
            return -1
        power += exponent_of(data, first, at)
    if digits == 0:
        if is_negative:
            return -1  # a whole number has no negative zero, a fraction has one
        set_double(place, 0.0)
        return at
    bits = nearest(powers, digits, power)
    if bits < 0:
        return -1
    set_word(place, bits | _SIGN if is_negative else bits)
    return at


@kernel
def read_integer(data: int, at: int, end: int, place: int) -> int:
    """Reads the whole number that begins at `at` to a place; where it ends, -1 if it is left to Python."""
    is_negative = at < end and uint8(data + at) == _MINUS
    if is_negative:
        at += 1
    first = at
    value = 0
    while at < end and uint8(data + at) >= _ZERO and uint8(data + at) <= _ZERO + 9:
        value = value * 10 + uint8(data + at) - _ZERO
        at += 1
        if at - first > _MOST_DIGITS:
            return -1
    if at == first or (at - first > 1 and uint8(data + first) == _ZERO):
        return -1
    set_word(place, -value if is_negative else value)
    return at


@kernel
def digit_count(value: int) -> int:
    count = 1
    while value >= 10:
        value //= 10
        count += 1
    return count


@kernel
def put_digits(out: int, value: int, count: int) -> int:
    """Writes the last digits of a number; where they end."""
    at = out + count
    while at > out:
        at -= 1
        set_uint8(at, _ZERO + value % 10)
        value //= 10
    return out + count


@kernel
def put_zeros(out: int, count: int) -> int:
    for at in range(count):
        set_uint8(out + at, _ZERO)
    return out + count


@kernel
def write_integer(out: int, value: int) -> int:
    """Writes a whole number; where it ends."""
    if value < 0:
        set_uint8(out, _MINUS)
        out += 1
        value = -value
    return put_digits(out, value, digit_count(value))


@kernel
def rounded_to_odd(row: int, value: int) -> int:
    """The upper 64 bits of a power's mantissa times a word, of which the lowest is set if what is below them is not 0."""
    upper, lower = word(row + 16), word(row + 24)
    low, high = value * upper, product(value, upper)
    more = product(value, lower)
    low += more
    if is_below(low, more):
        high += 1
    return high | 1 if low & ~1 else high


@kernel
def shortest(powers: int, fraction: int, exponent: int, place: int) -> int:
    """The digits of the shortest decimal number that is read as this double; its power of ten goes to a place.

    Args:
        powers: the table.
        fraction: the lower 52 bits.
        exponent: the next 11, not all set; not all bits are 0.
        place: where the power goes.
    """
    significand, two = fraction, -1074
    if exponent:
        significand, two = fraction | _HIDDEN, exponent - 1075
        if two <= 0 and two > -53 and significand & ((1 << -two) - 1) == 0:
            set_word(place, 0)
            return significand >> -two
    is_odd = significand & 1
    is_closer = 1 if fraction == 0 and exponent > 1 else 0
    power = (two * 1262611 - 524031 * is_closer) >> 22
    shift = two + ((-power * 1741647) >> 19) + 1
    row = powers + (-power - LEAST_POWER) * POWER_BYTES
    lower = rounded_to_odd(row, (4 * significand - 2 + is_closer) << shift) + is_odd
    exact = rounded_to_odd(row, (4 * significand) << shift)
    upper = rounded_to_odd(row, (4 * significand + 2) << shift) - is_odd
    quarter = exact >> 2
    if quarter >= 10:
        tens = quarter // 10
        is_down, is_up = lower <= 40 * tens, 40 * tens + 40 <= upper
        if is_down != is_up:
            set_word(place, power + 1)
            return tens + 1 if is_up else tens
    set_word(place, power)
    is_down, is_up = lower <= 4 * quarter, 4 * quarter + 4 <= upper
    if is_down != is_up:
        return quarter + 1 if is_up else quarter
    middle = 4 * quarter + 2
    return quarter + 1 if exact > middle or (exact == middle and quarter & 1) else quarter


@kernel
def write_double(powers: int, out: int, bits: int, place: int) -> int:
    """Writes a double as JSON has it; where it ends, -1 for what JSON cannot say. A place is used for a word."""
    if bits < 0:
        set_uint8(out, _MINUS)
        out += 1
        bits &= _UNSIGNED
    exponent = bits >> 52
    if exponent == 0x7FF:
        return -1
    digits, power = 0, 0
    if bits:
        digits = shortest(powers, bits & (_HIDDEN - 1), exponent, place)
        power = word(place)
        while digits % 10 == 0:
            digits //= 10
            power += 1
    count = digit_count(digits)
    largest = count + power - 1
    if largest < -5 or largest >= 16:
        return write_scientific(out, digits, count, largest)
    if power >= 0:
        out = put_zeros(put_digits(out, digits, count), power)
        set_uint8(out, _POINT)
        set_uint8(out + 1, _ZERO)
        return out + 2
    if largest >= 0:
        put_digits(out + 1, digits, count)
        for at in range(largest + 1):
            set_uint8(out + at, uint8(out + at + 1))
        set_uint8(out + largest + 1, _POINT)
        return out + count + 1
    set_uint8(out, _ZERO)
    set_uint8(out + 1, _POINT)
    return put_digits(put_zeros(out + 2, -largest - 1), digits, count)


@kernel
def write_scientific(out: int, digits: int, count: int, largest: int) -> int:
    """Writes digits with a point behind the first, and an exponent."""
    if count == 1:
        out = put_digits(out, digits, 1)
    else:
        put_digits(out + 1, digits, count)
        copy(out, out + 1, 1)
        set_uint8(out + 1, _POINT)
        out += count + 1
    set_uint8(out, _LOWER_E)
    return write_integer(out + 1, largest)
