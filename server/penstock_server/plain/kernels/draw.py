"""Which version answers a request that names none: the champion, or one of the canaries for its share of the routing keys.

The place of a key is that of `rollout.plan.key_place` to the bit: a BLAKE2b of eight bytes, salted with the model's name.
Without a key, a place is drawn. Shares are whole numbers of places, of which there are 2 ** 53.

Source: RFC 7693; "BLAKE2: simpler, smaller, fast as MD5" for the salt's place among the parameters.
"""

from typing import Final

from penstock_server.kernels.base import inlined, kernel
from penstock_server.kernels.memory import copy, set_word, uint8, word, wrapped
from penstock_server.plain.layout import (
    F_ID_AT,
    F_ID_SIZE,
    F_KEY_AT,
    F_KEY_SIZE,
    HASH_INITIAL,
    HASH_MESSAGE,
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

_BLOCK_BYTES: Final = 128
Work = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]
"""Sixteen words, which stay in registers."""
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


@inlined
def mixed_round(
    message: int, work: Work,
    m0: int, m1: int, m2: int, m3: int, m4: int, m5: int, m6: int, m7: int,
    m8: int, m9: int, m10: int, m11: int, m12: int, m13: int, m14: int, m15: int,
) -> Work:  # fmt: skip
    """The work after a round, which takes the words of the message in this order: four columns, then four diagonals."""
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = work
    a0, b0, c0, d0 = mixed(a0, b0, c0, d0, word(message + 8 * m0), word(message + 8 * m1))
    a1, b1, c1, d1 = mixed(a1, b1, c1, d1, word(message + 8 * m2), word(message + 8 * m3))
    a2, b2, c2, d2 = mixed(a2, b2, c2, d2, word(message + 8 * m4), word(message + 8 * m5))
    a3, b3, c3, d3 = mixed(a3, b3, c3, d3, word(message + 8 * m6), word(message + 8 * m7))
    a0, b1, c2, d3 = mixed(a0, b1, c2, d3, word(message + 8 * m8), word(message + 8 * m9))
    a1, b2, c3, d0 = mixed(a1, b2, c3, d0, word(message + 8 * m10), word(message + 8 * m11))
    a2, b3, c0, d1 = mixed(a2, b3, c0, d1, word(message + 8 * m12), word(message + 8 * m13))
    a3, b0, c1, d2 = mixed(a3, b0, c1, d2, word(message + 8 * m14), word(message + 8 * m15))
    return a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3


@kernel
def mixed_rounds(message: int, work: Work) -> Work:
    """The work after all rounds. Their orders are written out, since looking them up takes a third of the time."""
    work = mixed_round(message, work, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    work = mixed_round(message, work, 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)
    work = mixed_round(message, work, 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4)
    work = mixed_round(message, work, 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8)
    work = mixed_round(message, work, 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13)
    work = mixed_round(message, work, 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9)
    work = mixed_round(message, work, 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11)
    work = mixed_round(message, work, 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10)
    work = mixed_round(message, work, 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5)
    work = mixed_round(message, work, 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0)
    work = mixed_round(message, work, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    return mixed_round(message, work, 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)


@kernel
def flip(place: int, bits: int) -> None:
    """Turns these bits of a word around."""
    set_word(place, word(place) ^ bits)


@kernel
def compress(hashing: int, counted: int, is_last: bool) -> None:
    """Takes a block of the message into the hash; so many bytes were taken with it."""
    state, initial = hashing + HASH_STATE, hashing + HASH_INITIAL
    work = (
        word(state), word(state + 8), word(state + 16), word(state + 24),
        word(state + 32), word(state + 40), word(state + 48), word(state + 56),
        word(initial), word(initial + 8), word(initial + 16), word(initial + 24),
        word(initial + 32) ^ counted, word(initial + 40), word(initial + 48) ^ (-1 if is_last else 0), word(initial + 56),
    )  # fmt: skip
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = mixed_rounds(hashing + HASH_MESSAGE, work)
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
