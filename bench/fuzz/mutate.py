"""Damages a conversation: its bytes, its frames and their order, its messages, and where it is cut into reads."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

HEAD_BYTES: Final = 9
_NUMBERS: Final = tuple(
    number.to_bytes(4, "big")
    for number in (
        0,
        1,
        2,
        0x7F,
        0x80,
        0xFF,
        0x3FFF,
        0x4000,
        0x4001,
        0xFFFF,
        1 << 24,
        (1 << 31) - 1,
        1 << 31,
        (1 << 32) - 1,
    )
)
_BYTES: Final = bytes((0, 1, 2, 4, 5, 8, 0x10, 0x20, 0x40, 0x7F, 0x80, 0xBE, 0xFE, 0xFF))

Frames = list[bytes]


def _resized(frame: bytes, payload: bytes) -> bytes:
    """The frame with another payload, and a length that fits it."""
    return len(payload).to_bytes(3, "big") + frame[3:HEAD_BYTES] + payload


_Damage = Callable[[Random, bytes, int], bytes]
_DAMAGES: Final[tuple[_Damage, ...]] = (
    lambda random, data, at: data[:at] + bytes((data[at] ^ 1 << random.getrandbits(3),)) + data[at + 1 :],
    lambda random, data, at: data[:at] + bytes((data[at] ^ 1 << random.getrandbits(3),)) + data[at + 1 :],
    lambda random, data, at: data[:at] + bytes((random.choice(_BYTES),)) + data[at + 1 :],
    lambda random, data, at: data[:at] + random.choice(_NUMBERS) + data[at + 4 :],
    lambda random, data, at: data[:at] + data[at + 1 + random.getrandbits(4) :],
    lambda random, data, at: data[:at] + random.randbytes(1 + random.getrandbits(4)) + data[at:],
    lambda random, data, at: data[:at] + data[at : at + 32] * (1 + random.getrandbits(2)) + data[at:],
    lambda _, data, at: data[:at],
)
"""A flipped bit, a telling byte or number, bytes left out, put in or repeated, and an early end."""


def _damaged(random: Random, data: bytes) -> bytes:
    """The bytes with one change."""
    if not data:
        return random.randbytes(1 + random.getrandbits(3))
    return random.choice(_DAMAGES)(random, data, random.randrange(len(data)))


def _somewhere(random: Random, frames: Sequence[bytes]) -> int:
    """A frame; the opening, without which nothing else is looked at, seldom."""
    return 0 if len(frames) == 1 or random.random() < 0.03 else random.randrange(1, len(frames))


def _bytes(random: Random, frames: Frames) -> None:
    """Anywhere in a frame, so that its length may be wrong."""
    at = _somewhere(random, frames)
    frames[at] = _damaged(random, frames[at])


def _payload(random: Random, frames: Frames) -> None:
    """What a frame carries, with a length that fits."""
    at = _somewhere(random, frames)
    frames[at] = _resized(frames[at], _damaged(random, frames[at][HEAD_BYTES:]))


def _message(random: Random, frames: Frames) -> None:
    """A message inside DATA, with lengths that fit."""
    data = [at for at, one in enumerate(frames) if len(one) > HEAD_BYTES + 5 and one[3] == 0 and at]
    if data:
        at = random.choice(data)
        content = _damaged(random, frames[at][HEAD_BYTES + 5 :])
        prefix = frames[at][HEAD_BYTES : HEAD_BYTES + 1] + len(content).to_bytes(4, "big")
        frames[at] = _resized(frames[at], prefix + content)


def _head(random: Random, frames: Frames) -> None:
    """A frame's length, type, flags or stream."""
    at = _somewhere(random, frames)
    head = bytearray(frames[at][:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"))
    match random.getrandbits(2):
        case 0:
            head[:3] = random.choice(_NUMBERS)[1:]
        case 1:
            head[3] = random.randrange(12)
        case 2:
            head[4] ^= random.choice((1, 4, 8, 32, 255))
        case _:
            head[5:9] = random.randrange(16).to_bytes(4, "big") if random.getrandbits(1) else random.choice(_NUMBERS)
    frames[at] = bytes(head) + frames[at][HEAD_BYTES:]


def _leave_out(random: Random, frames: Frames) -> None:
    del frames[_somewhere(random, frames)]


def _repeat(random: Random, frames: Frames) -> None:
    at = _somewhere(random, frames)
    frames[at : at + 1] = frames[at : at + 1] * (2 if random.getrandbits(3) else 1 + random.getrandbits(6))


def _exchange(random: Random, frames: Frames) -> None:
    one, other = _somewhere(random, frames), _somewhere(random, frames)
    frames[one], frames[other] = frames[other], frames[one]


def _cut(random: Random, frames: Frames) -> None:
    at = _somewhere(random, frames)
    frames[at] = frames[at][: random.randrange(len(frames[at]) + 1)]
    del frames[at + 1 :]


_CHANGES: Final[tuple[Callable[[Random, Frames], None], ...]] = (
    _bytes, _bytes, _payload, _payload, _message, _message, _head, _head, _leave_out, _repeat, _exchange, _cut,
)  # fmt: skip


def _splice(random: Random, frames: Frames, other: Sequence[bytes]) -> None:
    """Puts frames of another conversation in."""
    begin = random.randrange(len(other))
    at = random.randrange(len(frames) + 1)
    frames[at:at] = other[begin : begin + 1 + random.getrandbits(1)]


def mutated(random: Random, conversations: Sequence[Sequence[bytes]]) -> tuple[list[bytes], int]:
    """One of the conversations with one to four changes, in the pieces in which it is to be read; how many changes.

    A quarter of them are right but for their messages.
    """
    frames = list(random.choice(conversations))
    kinds = _CHANGES if random.getrandbits(2) else (_message,)
    changes = 1 + random.getrandbits(2)
    for _ in range(changes):
        if not frames:
            break
        if kinds is _CHANGES and random.random() < 0.08:
            _splice(random, frames, random.choice(conversations))
        else:
            random.choice(kinds)(random, frames)
    if random.getrandbits(1):
        return [b"".join(frames)], changes
    if random.getrandbits(1):
        return [piece for piece in frames if piece], changes
    whole = b"".join(frames)
    at = random.randrange(len(whole) + 1)
    return [piece for piece in (whole[:at], whole[at : at + 1], whole[at + 1 :]) if piece], changes
