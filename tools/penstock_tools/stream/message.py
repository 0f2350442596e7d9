"""A message as it came, and one that goes out."""

from typing import NamedTuple

Headers = list[tuple[str, bytes | None]]


class Message(NamedTuple):
    """A message of the topic that is read.

    Attributes:
        partition, offset: where it stands.
        key: as it was sent; None for none.
        value: as it was sent; None for a message that has none.
        timestamp_ms: when it was made, or when the broker got it, in milliseconds since 1970; None if nobody said.
        headers: as they were sent.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None = None
    headers: Headers | None = None

    @property
    def size_bytes(self) -> int:
        """The bytes of its key and its value."""
        return len(self.key or b"") + len(self.value or b"")


class Outgoing(NamedTuple):
    """A message to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None
