"""Which version answers a request that names none: the champion, or one of the canaries for its share of the routing keys.

The place of a key is that of `rollout.plan.key_place` to the bit: a BLAKE2b of eight bytes, salted with the model's name.
Without a key, a place is drawn. Shares are whole numbers of places, of which there are 2 ** 53.

Source: RFC 7693; "BLAKE2: simpler, smaller, fast as MD5" for the salt's place among the parameters.
"""

from typing import Final

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import copy, set_word, uint8, word, wrapped
from penstock_server.plain.layout import (
    F_ID_AT,
    F_ID_SIZE,
    F_KEY_AT,
    F_KEY_SIZE,
    HASH_INITIAL,
    HASH_MESSAGE,
    HASH_ORDER,
    HASH_STATE,
    P_SALT,
    P_SHARES,
    PLAN_BYTES,
    Q_END,
    Q_PLAN,
    SHARE_BYTES,
    T_HASHING,
    T_PLANS,
    T_RANDOM,
)

_ROUNDS: Final = 12
_ORDERS: Final = 10
_BLOCK_BYTES: Final = 128
_PARAMETERS: Final = 0x01010008
"""A digest of eight bytes, without a key, in one node."""
_GOLDEN: Final = -7046029254386353131
_FIRST: Final = -4658895280553007687
_SECOND: Final = -7723592293110705685


@kernel
def turned(value: int, bits: int) -> int:
    """A word with its lowest bits turned to its highest."""
    return wrapped((value >> bits) & ((1 << (64 - bits)) - 1) | value << (64 - bits))


@kernel
def mixed(a: int, b: int, c: int, d: int, one: int, other: int) -> tuple[int, int, int, int]:
    """Four words of the state with two words of the message mixed into them."""
    a = wrapped(a + b + one)
    d = turned(d ^ a, 32)
    c = wrapped(c + d)
    b = turned(b ^ c, 24)
    a = wrapped(a + b + other)
    d = turned(d ^ a, 16)
    c = wrapped(c + d)
    b = turned(b ^ c, 63)
    return a, b, c, d


@kernel
def part(message: int, order: int, at: int) -> int:
    """The word of the message that a round takes as its `at`th."""
    return word(message + 8 * uint8(order + at))


@kernel
def flip(place: int, bits: int) -> None:
    """Turns these bits of a word around."""
    set_word(place, word(place) ^ bits)


@kernel
def compress(hashing: int, counted: int, is_last: bool) -> None:
    """Takes a block of the message into the hash; so many bytes were taken with it."""
    # The sixteen words of the work are variables, which stay in registers: in memory they take a third longer.
    state, message, initial = hashing + HASH_STATE, hashing + HASH_MESSAGE, hashing + HASH_INITIAL
    a0, a1, a2, a3 = word(state), word(state + 8), word(state + 16), word(state + 24)
    b0, b1, b2, b3 = word(state + 32), word(state + 40), word(state + 48), word(state + 56)
    c0, c1, c2, c3 = word(initial), word(initial + 8), word(initial + 16), word(initial + 24)
    d0, d1, d2, d3 = word(initial + 32) ^ counted, word(initial + 40), word(initial + 48), word(initial + 56)
    if is_last:
        d2 ^= -1
    for step in range(_ROUNDS):
        order = hashing + HASH_ORDER + step % _ORDERS * 16
        # Four columns, then four diagonals.
        a0, b0, c0, d0 = mixed(a0, b0, c0, d0, part(message, order, 0), part(message, order, 1))
        a1, b1, c1, d1 = mixed(a1, b1, c1, d1, part(message, order, 2), part(message, order, 3))
        a2, b2, c2, d2 = mixed(a2, b2, c2, d2, part(message, order, 4), part(message, order, 5))
        a3, b3, c3, d3 = mixed(a3, b3, c3, d3, part(message, order, 6), part(message, order, 7))
        a0, b1, c2, d3 = mixed(a0, b1, c2, d3, part(message, order, 8), part(message, order, 9))
        a1, b2, c3, d0 = mixed(a1, b2, c3, d0, part(message, order, 10), part(message, order, 11))
        a2, b3, c0, d1 = mixed(a2, b3, c0, d1, part(message, order, 12), part(message, order, 13))
        a3, b0, c1, d2 = mixed(a3, b0, c1, d2, part(message, order, 14), part(message, order, 15))
    flip(state, a0 ^ c0)
    flip(state + 8, a1 ^ c1)
    flip(state + 16, a2 ^ c2)
    flip(state + 24, a3 ^ c3)
    flip(state + 32, b0 ^ d0)
    flip(state + 40, b1 ^ d1)
    flip(state + 48, b2 ^ d2)
    flip(state + 56, b3 ^ d3)


@kernel
def digest(hashing: int, salt: int, text: int, size: int) -> int:
    """The BLAKE2b of eight bytes of a text that is not empty, as a little-endian word."""
    state, message = hashing + HASH_STATE, hashing + HASH_MESSAGE
    copy(state, hashing + HASH_INITIAL, 64)
    set_word(state, word(state) ^ _PARAMETERS)
    set_word(state + 32, word(state + 32) ^ word(salt))
    set_word(state + 40, word(state + 40) ^ word(salt + 8))
    at = 0
    while at < size:
        taken = min(_BLOCK_BYTES, size - at)
        for place in range(0, _BLOCK_BYTES, 8):
            set_word(message + place, 0)
        copy(message, text + at, taken)
        at += taken
        compress(hashing, at, at == size)
    return word(state)


@kernel
def key_place(hashing: int, salt: int, key: int, size: int) -> int:
    """The place of a routing key, which is not empty."""
    digest(hashing, salt, key, size)
    place = 0
    for byte in range(8):
        place = place << 8 | uint8(hashing + HASH_STATE + byte)
    return (place >> 11) & ((1 << 53) - 1)


@kernel
def random_word(state: int) -> int:
    """A word at random (SplitMix64)."""
    value = word(state + T_RANDOM) + _GOLDEN
    set_word(state + T_RANDOM, value)
    value = word(state + T_RANDOM)
    value = (value ^ (value >> 30) & ((1 << 34) - 1)) * _FIRST
    value = (value ^ (value >> 27) & ((1 << 37) - 1)) * _SECOND
    return value ^ (value >> 31) & ((1 << 33) - 1)


@kernel
def any_place(state: int) -> int:
    """A place at random."""
    return (random_word(state) >> 11) & ((1 << 53) - 1)


@kernel
def drawn(state: int, plan: int, found: int, data: int) -> int:
    """The plan of the version that answers a request of this plan, by its routing key, else by its id, else by chance."""
    at, size = word(found + F_KEY_AT), word(found + F_KEY_SIZE)
    if size == 0:
        at, size = word(found + F_ID_AT), word(found + F_ID_SIZE)
    place = any_place(state) if size == 0 else key_place(word(state + T_HASHING), plan + P_SALT, data + at, size)
    share = word(plan + P_SHARES)
    while word(share + Q_END) <= place:
        share += SHARE_BYTES
    return word(state + T_PLANS) + word(share + Q_PLAN) * PLAN_BYTES
