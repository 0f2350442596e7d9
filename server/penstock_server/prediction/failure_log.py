"""Logs the failures of one version at a bounded rate: callers decide how often a model fails, and each line costs."""

from typing import Final

import structlog

from penstock.names import VersionKey
from penstock_server.clock import Clock

log = structlog.get_logger(__name__)

PAUSE_S: Final = 1.0
"""The shortest time between two lines."""
_MOST_CHARACTERS: Final = 500


class FailureLog:
    """One version's failures; its user calls it from one thread."""

    def __init__(self, key: VersionKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._next_s = float("-inf")
        self._left_out = 0

    def failed(self, event: str, error: BaseException | None, *, with_traceback: bool = False) -> None:
        """Logs a failure, or counts it for the next line when the last line is less than `PAUSE_S` ago."""
        now_s = self._clock()
        if now_s < self._next_s:
            self._left_out += 1
            return
        self._next_s = now_s + PAUSE_S
        log.warning(
            event,
            model=self._key[0],
            version=self._key[1],
            cause=repr(error)[:_MOST_CHARACTERS],
            left_out=self._left_out,
            **({"exc_info": error} if with_traceback and error is not None else {}),
        )
        self._left_out = 0
