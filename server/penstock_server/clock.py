"""The server's clock: float seconds of the monotonic clock, passed in so that tests control it."""

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]

monotonic: Final[Clock] = time.monotonic
