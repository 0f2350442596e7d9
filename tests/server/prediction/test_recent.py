import os

import pytest

from penstock_server.plain.layout import SEEN
from penstock_server.prediction.recent import RecentRequests


def test_a_request_is_known_when_it_comes_again() -> None:
    recent = RecentRequests()
    assert [recent.has((b"a", b"b")) for _ in range(3)] == [False, True, True]
    assert not recent.has((b"ab", b""))
    assert not recent.has((b"a",))


@pytest.mark.parametrize(
    ("at", "expected"), [(0, False), (511, False), (5000, True), (9_999 - 511, False), (9_999, False)]
)
def test_of_a_long_block_beginning_and_end_are_compared(at: int, expected: bool) -> None:
    recent, block = RecentRequests(), bytearray(10_000)
    recent.has((bytes(block),))
    block[at] = 1
    assert recent.has((bytes(block),)) is expected
    assert not recent.has((bytes(10_001),))


def test_what_came_long_ago_gives_its_place_to_others() -> None:
    recent = RecentRequests()
    assert not recent.has((b"",))
    for _ in range(20 * SEEN):
        recent.has((os.urandom(16),))
    assert sum(map(len, recent._seen)) <= SEEN
    assert not recent.has((b"",))
