"""Recent requests, among which one is found again: a retry or a probe, which says nothing new about the traffic.

As `plain.kernels.lanes.is_repeat` does for plain requests.
"""

from collections.abc import Sequence

from penstock_server.plain.layout import SEEN, SEEN_BYTES, WAYS


class RecentRequests:
    """What the last few thousand requests held, by hashes: one that came long ago gives its place to another."""

    def __init__(self) -> None:
        self._seen: list[list[int]] = [[] for _ in range(SEEN // WAYS)]

    def has(self, blocks: Sequence[bytes]) -> bool:
        """Whether a request with these raw contents is among them, which it is from now on."""
        value = hash(tuple(map(_part, blocks)))
        alike = self._seen[value % len(self._seen)]
        if value in alike:
            return True
        alike.insert(0, value)
        del alike[WAYS:]
        return False


def _part(block: bytes) -> bytes | tuple[int, bytes, bytes]:
    """What is compared of a block: of a longer one its beginning, its end and its length."""
    return block if len(block) <= 2 * SEEN_BYTES else (len(block), block[:SEEN_BYTES], block[-SEEN_BYTES:])
