"""How much a stream may have on its way: what it received and has not answered, and what it answered and has not sent.

A transport receives the next message of a stream only while the window is open; meanwhile HTTP/2 slows the sender. So a
caller that sends and never reads costs a bounded amount of memory. Both transports keep this account.
"""

from collections import deque
from typing import Final

WINDOW_MESSAGES: Final = 64
"""Messages of one stream that were received, and whose answers have not left."""
WINDOW_BYTES: Final = 4 * 1024 * 1024
"""The bytes of these messages and their answers; one message is always let in, however large."""
FIRST_REPLY_BYTES: Final = WINDOW_BYTES // 8
"""What an answer is expected to take before the first one is known: few messages of a stream may be large surprises."""
UNSENT_MESSAGES: Final = 1024
"""Messages that a handler may send unasked while their caller does not read; beyond that the stream fails."""


class StreamWindow:
    """The account of one stream; it has no lock, and the stream's owner guards it.

    An answer's size is known only when it is there. Until then it is expected to be as large as the last one, or half of
    what was expected before, whichever is more: a stream starts with few messages, and its window opens with each small answer.
    """

    __slots__ = ("_received", "_received_bytes", "_reply_bytes", "_unsent", "_unsent_bytes")

    def __init__(self) -> None:
        self._received: deque[int] = deque()
        self._received_bytes = 0
        self._unsent: deque[int] = deque()
        self._unsent_bytes = 0
        self._reply_bytes = FIRST_REPLY_BYTES

    @property
    def is_open(self) -> bool:
        """Whether the next message may be received."""
        unanswered = len(self._received)
        count = unanswered + len(self._unsent)
        if count == 0:
            return True
        expected = self._received_bytes + self._unsent_bytes + (unanswered + 1) * self._reply_bytes
        return count < WINDOW_MESSAGES and expected <= WINDOW_BYTES

    @property
    def is_quiet(self) -> bool:
        """Whether every message is answered, and every answer sent."""
        return not self._received and not self._unsent

    @property
    def is_overrun(self) -> bool:
        """Whether more answers wait for the caller to read them than a stream may have."""
        return len(self._unsent) > UNSENT_MESSAGES

    def received(self, size: int) -> None:
        """A message came."""
        self._received.append(size)
        self._received_bytes += size

    def replied(self, size: int) -> None:
        """An answer waits to be sent; it answers the oldest message, if there is one."""
        if self._received:
            self._received_bytes -= self._received.popleft()
            self._reply_bytes = max(size, self._reply_bytes // 2)
        self._unsent.append(size)
        self._unsent_bytes += size

    def sent(self) -> None:
        """The oldest answer has left."""
        self._unsent_bytes -= self._unsent.popleft()
