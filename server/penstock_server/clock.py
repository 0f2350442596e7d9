"""Time as the server knows it: float seconds of the monotonic clock, handed in so that tests can hold it still."""

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]

monotonic: Final[Clock] = time.monotonic
