from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock_server.response_cache.lru import KeptEntry, LeastRecentlyUsed
from tests.examples import examples

KEYS = st.integers(0, 6)
SIZES = st.integers(0, 12)


def test_what_was_asked_for_longest_ago_makes_room() -> None:
    lru: LeastRecentlyUsed[str, int] = LeastRecentlyUsed(3)
    assert [lru.put(key, at, 1) for at, key in enumerate("abc")] == [[], [], []]
    assert lru.get("a") == 0
    assert lru.put("d", 3, 2) == [("b", KeptEntry(1, 1)), ("c", KeptEntry(2, 1))]
    assert (lru.get("a"), lru.get("b"), lru.get("d")) == (0, None, 3)


def test_what_is_too_large_makes_no_room() -> None:
    lru: LeastRecentlyUsed[str, int] = LeastRecentlyUsed(3)
    lru.put("a", 0, 3)
    assert lru.put("b", 1, 4) is None
    assert lru.put("a", 2, 4) is None
    assert (lru.get("a"), lru.get("b"), lru.size_bytes) == (0, None, 3)


class Walk(RuleBasedStateMachine):
    """Any steps, beside a list in the order of use that is searched each time."""

    @initialize(max_bytes=st.integers(0, 30))
    def begin(self, max_bytes: int) -> None:
        self.lru: LeastRecentlyUsed[int, int] = LeastRecentlyUsed(max_bytes)
        self.kept: list[tuple[int, int, int]] = []
        self.puts = 0

    def pop(self, key: int) -> tuple[int, int, int] | None:
        found = next((each for each in self.kept if each[0] == key), None)
        if found is not None:
            self.kept.remove(found)
        return found

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        found = self.pop(key)
        if found is not None:
            self.kept.append(found)
        assert self.lru.get(key) == (None if found is None else found[1])

    @rule(key=KEYS, size=SIZES)
    def put(self, key: int, size: int) -> None:
        self.puts += 1
        evicted = self.lru.put(key, self.puts, size)
        if size > self.lru.max_bytes:
            assert evicted is None
            return
        self.pop(key)
        self.kept.append((key, self.puts, size))
        gone = []
        while sum(size for _, _, size in self.kept) > self.lru.max_bytes:
            gone.append(self.kept.pop(0))
        assert evicted == [(key, KeptEntry(value, size)) for key, value, size in gone]

    @rule(key=KEYS)
    def discard(self, key: int) -> None:
        found = self.pop(key)
        assert self.lru.discard(key) == (None if found is None else KeptEntry(*found[1:]))

    @invariant()
    def the_bytes_are_those_of_its_entries(self) -> None:
        assert self.lru.size_bytes == sum(size for _, _, size in self.kept) <= self.lru.max_bytes
        assert len(self.lru) == len(self.kept)


TestWalk = Walk.TestCase
TestWalk.settings = examples(100, stateful_step_count=40)
