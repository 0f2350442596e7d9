"""How many messages are taken at once: as many as have come, within bounds of number and of bytes. Pure.

Messages stay with Kafka's client, which has a bound of its own, until they are asked for. So a process that is slow is a
process that takes no more, and nothing grows.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intake:
    """What a batch may hold.

    Attributes:
        most_messages: in one batch.
        most_bytes: about so many in one batch; a batch has one message at least, of any size.
        wait_s: the longest that a message waits for others.
        message_bytes: the mean size of a message, as far as it is known.
    """

    most_messages: int
    most_bytes: int
    wait_s: float
    message_bytes: float = 0.0

    @property
    def ask_for(self) -> int:
        """How many messages to ask for next."""
        if self.message_bytes * self.most_messages <= self.most_bytes:
            return self.most_messages
        return max(1, int(self.most_bytes / self.message_bytes))

    def seen(self, messages: int, size_bytes: int) -> "Intake":
        """After a batch. A larger size counts at once and a smaller one by a fifth, so that one large batch is the last."""
        if not messages:
            return self
        found = size_bytes / messages
        mean = found if found > self.message_bytes else self.message_bytes + (found - self.message_bytes) / 5
        return Intake(self.most_messages, self.most_bytes, self.wait_s, mean)
