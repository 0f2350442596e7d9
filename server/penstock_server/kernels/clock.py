"""The system's clocks, for kernels."""

from collections.abc import Callable
from typing import Final

from penstock_server.kernels.base import INT32, INT64, external, kernel
from penstock_server.kernels.memory import word

_clock: Final[Callable[..., int]] = external("clock_gettime", INT32, INT32, INT64)
_SINCE_1970: Final = 0
_MONOTONIC: Final = 1


@kernel
def clock_ns(place: int) -> int:
    """The time in nanoseconds on the monotonic clock; `place` has room for two words."""
    _clock(_MONOTONIC, place)
    return word(place) * 1_000_000_000 + word(place + 8)


@kernel
def unix_ns(place: int) -> int:
    """The time in nanoseconds since 1970; `place` has room for two words."""
    _clock(_SINCE_1970, place)
    return word(place) * 1_000_000_000 + word(place + 8)
