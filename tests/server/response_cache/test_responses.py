import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.models.servable import Outputs
from penstock_server.models.signature import GivenTensor
from penstock_server.response_cache.responses import ResponseCache, VersionResponses, size_bytes
from tests.examples import examples

TAKES = size_bytes([np.zeros(1)])


class Counts:
    def __init__(self) -> None:
        self.bytes = 0
        self.evictions = 0

    def cached(self, size_bytes: int) -> None:
        self.bytes += size_bytes

    def evicted(self) -> None:
        self.evictions += 1


def outputs(value: float = 0.0) -> Outputs:
    return Outputs([np.full(1, value)], 0.0, 0.0)


def value_of(responses: VersionResponses, key: bytes) -> float | None:
    found = responses.get(key)
    return None if found is None else found.arrays[0][0]


SMALL = st.binary(max_size=3)
PARTS = st.tuples(
    st.lists(SMALL, max_size=3),
    st.integers(0, 3),
    st.none() | st.lists(st.lists(st.integers(0, 3), max_size=2).map(tuple), max_size=2),
    st.lists(st.builds(GivenTensor, st.sampled_from("ab"), SMALL, st.just(()) | st.just((1,))), max_size=2),
)


@examples(300)
@given(PARTS, PARTS)
def test_a_key_stands_for_all_that_is_asked(one: Any, other: Any) -> None:
    responses = ResponseCache(1).version(Counts())
    assert responses.key(*one) == responses.key(*one)
    assert (responses.key(*one) == responses.key(*other)) == (one == other)


def test_bytes_do_not_move_from_one_input_to_the_next() -> None:
    responses = ResponseCache(1).version(Counts())
    cuts = [[b"ab", b"c"], [b"a", b"bc"], [b"abc", b""], [b"abc"]]
    assert len({responses.key(blocks, 1, None, ()) for blocks in cuts}) == len(cuts)


def test_versions_find_nothing_of_each_other() -> None:
    cache = ResponseCache(1 << 20)
    old, new = cache.version(Counts()), cache.version(Counts())
    asked = ([b"row"], 1, None, ())
    assert old.key(*asked) != new.key(*asked)
    old.put(old.key(*asked), outputs(1))
    assert new.get(new.key(*asked)) is None
    assert value_of(old, old.key(*asked)) == 1


def test_answers_of_one_version_make_room_for_those_of_another() -> None:
    cache, counts, others = ResponseCache(2 * TAKES), Counts(), Counts()
    one, other = cache.version(counts), cache.version(others)
    for key in (b"a", b"b"):
        one.put(key, outputs())
    one.get(b"a")
    other.put(b"c", outputs())
    assert (value_of(one, b"a"), value_of(one, b"b"), value_of(other, b"c")) == (0, None, 0)
    assert (counts.bytes, counts.evictions, others.bytes, others.evictions) == (TAKES, 1, TAKES, 0)
    one.close()
    assert (counts.bytes, counts.evictions, cache.size_bytes) == (0, 1, TAKES)


def test_the_same_rows_twice_at_once_are_kept_once() -> None:
    cache, counts = ResponseCache(1 << 20), Counts()
    responses = cache.version(counts)
    responses.put(b"a", outputs(1))
    responses.put(b"a", outputs(2))
    assert (value_of(responses, b"a"), counts.bytes, cache.size_bytes, counts.evictions) == (2, TAKES, TAKES, 0)


def test_what_is_larger_than_the_memory_is_not_kept() -> None:
    cache, counts = ResponseCache(TAKES - 1), Counts()
    responses = cache.version(counts)
    responses.put(b"a", outputs())
    assert (responses.get(b"a"), counts.bytes, counts.evictions, cache.size_bytes) == (None, 0, 0, 0)
    responses.close()


def test_a_version_that_is_unloaded_leaves_nothing_and_keeps_nothing_more() -> None:
    cache, counts = ResponseCache(1 << 20), Counts()
    responses = cache.version(counts)
    responses.put(b"a", outputs())
    responses.close()
    assert (counts.bytes, cache.size_bytes, responses.get(b"a")) == (0, 0, None)
    responses.put(b"a", outputs())  # of a batch that ran meanwhile
    assert (counts.bytes, cache.size_bytes, responses.get(b"a")) == (0, 0, None)
    responses.close()


@examples(50)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 40), st.booleans()), max_size=40))
def test_bytes_are_counted_to_the_last_whatever_happens(steps: list[tuple[int, int, int, bool]]) -> None:
    cache, counts = ResponseCache(5 * TAKES), (Counts(), Counts())
    versions = [cache.version(each) for each in counts]
    for which, key, numbers, is_last in steps:
        version = versions[which]
        version.put(version.key([bytes([key])], 1, None, ()), Outputs([np.zeros(numbers)], 0.0, 0.0))
        if is_last:
            version.close()
            versions[which] = cache.version(counts[which])
        assert sum(each.bytes for each in counts) == cache.size_bytes <= 5 * TAKES
        assert min(each.bytes for each in counts) >= 0
    for version in versions:
        version.close()
    assert cache.size_bytes == 0


def _numbers(at: int) -> list[Any]:
    return [np.full((1,), at), np.full((1, 3), at, np.float32)]


def _texts(at: int) -> list[Any]:
    return [np.array([[f"the answer to request number {at}"]], object)]


@pytest.mark.parametrize("arrays", [_numbers, _texts])
def test_what_counts_is_what_is_taken(arrays: Any) -> None:
    cache = ResponseCache(1 << 30)
    responses = cache.version(Counts())
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for at in range(3000):
            responses.put(responses.key([b"%d" % at], 1, None, ()), Outputs(arrays(at), at / 7, at / 3))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.8 * cache.size_bytes < taken <= cache.size_bytes
