"""Which version answers a request that names none: the champion, or one of the canaries for its share of the routing keys.

The place of a key is that of `rollout.plan.key_place` to the bit: a BLAKE2b of eight bytes, salted with the model's name.
Without a key, a place is drawn. Shares are whole numbers of places, of which there are 2 ** 53.

Source: RFC 7693; "BLAKE2: simpler, smaller, fast as MD5" for the salt's place among the parameters.
"""

from typing import Final

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import copy, set_word, uint8, word
from penstock_server.plain.layout import (
    F_ID_AT,
    F_ID_SIZE,
    F_KEY_AT,
    F_KEY_SIZE,
    HASH_INITIAL,
    HASH_MESSAGE,
    HASH_ORDER,
    HASH_STATE,
    HASH_WORK,
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
    return (value >> bits) & ((1 << (64 - bits)) - 1) | value << (64 - bits)


@kernel
def mix(work: int, a: int, b: int, c: int, d: int, one: int, other: int) -> None:
    """Mixes two words of the message into four of the state."""
    at, bt, ct, dt = work + 8 * a, work + 8 * b, work + 8 * c, work + 8 * d
    set_word(at, word(at) + word(bt) + one)
    set_word(dt, turned(word(dt) ^ word(at), 32))
    set_word(ct, word(ct) + word(dt))
    set_word(bt, turned(word(bt) ^ word(ct), 24))
    set_word(at, word(at) + word(bt) + other)
    set_word(dt, turned(word(dt) ^ word(at), 16))
    set_word(ct, word(ct) + word(dt))
    set_word(bt, turned(word(bt) ^ word(ct), 63))


@kernel
def compress(hashing: int, counted: int, is_last: bool) -> None:
    """Takes a block of the message into the hash; so many bytes were taken with it."""
    state, work, message = hashing + HASH_STATE, hashing + HASH_WORK, hashing + HASH_MESSAGE
    copy(work, state, 64)
    copy(work + 64, hashing + HASH_INITIAL, 64)
    set_word(work + 8 * 12, word(work + 8 * 12) ^ counted)
    if is_last:
        set_word(work + 8 * 14, word(work + 8 * 14) ^ -1)
    for step in range(_ROUNDS):
        order = hashing + HASH_ORDER + step % _ORDERS * 16
        for column in range(8):
            # Four columns, then four diagonals.
            shift = column // 4
            one = word(message + 8 * uint8(order + 2 * column))
            other = word(message + 8 * uint8(order + 2 * column + 1))
            at = column % 4
            mix(work, at, 4 + (at + shift) % 4, 8 + (at + 2 * shift) % 4, 12 + (at + 3 * shift) % 4, one, other)
    for at in range(0, 64, 8):
        set_word(state + at, word(state + at) ^ word(work + at) ^ word(work + 64 + at))


@kernel
def key_place(hashing: int, salt: int, key: int, size: int) -> int:
    """The place of a routing key, which is not empty."""
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
        copy(message, key + at, taken)
        at += taken
        compress(hashing, at, at == size)
    place = 0
    for byte in range(8):
        place = place << 8 | uint8(state + byte)
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
