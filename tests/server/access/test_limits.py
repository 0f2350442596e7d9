import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.access.limits import PLACES, WORDS, CallerBuckets, key_of
from penstock_server.access.policy import Limit
from penstock_server.errors import LimitedError

SECOND = 1_000_000_000


class Time:
    def __init__(self) -> None:
        self.ns = 5 * SECOND

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def time() -> Time:
    return Time()


def taken(buckets: CallerBuckets, name: str, limit: Limit) -> float:
    """0 if a call was let through, else the seconds until one is."""
    try:
        buckets.take(name, limit)
    except LimitedError as error:
        return error.retry_after_s
    return 0.0


def test_so_many_at_once_and_then_one_for_each_interval(time: Time) -> None:
    buckets, limit = CallerBuckets(now_ns=time), Limit(10, 3)
    assert [taken(buckets, "a", limit) for _ in range(4)] == [0, 0, 0, pytest.approx(0.1)]
    assert taken(buckets, "b", limit) == 0
    time.ns += SECOND // 10
    assert taken(buckets, "a", limit) == 0
    assert taken(buckets, "a", limit) == pytest.approx(0.1)
    time.ns += 100 * SECOND
    assert [taken(buckets, "a", limit) for _ in range(4)][-1] > 0


def test_a_slow_limit_lets_the_first_call_through(time: Time) -> None:
    assert taken(CallerBuckets(now_ns=time), "a", Limit(0.01, 1)) == 0


def test_workers_share_a_file(tmp_path: Path, time: Time) -> None:
    one, other = (CallerBuckets(tmp_path / "limits", now_ns=time) for _ in range(2))
    assert taken(one, "a", Limit(1, 1)) == 0
    assert taken(other, "a", Limit(1, 1)) == pytest.approx(1)


def test_a_full_bucket_gives_its_place_to_another(time: Time) -> None:
    buckets = CallerBuckets(now_ns=time)
    first = buckets.place("a")
    taken(buckets, "a", Limit(1, 1))
    other = next(f"n{number}" for number in range(10**6) if key_of(f"n{number}") % PLACES == key_of("a") % PLACES)
    assert buckets.place(other) != first
    time.ns += 2 * SECOND
    another = next(f"m{number}" for number in range(10**6) if key_of(f"m{number}") % PLACES == key_of("a") % PLACES)
    assert buckets.place(another) == first
    assert buckets.words[first] == key_of(another)
    assert first % WORDS == 0


def test_where_a_bucket_is_for_kernels(time: Time) -> None:
    buckets = CallerBuckets(now_ns=time)
    taken(buckets, "a", Limit(1, 1))
    words = (ctypes.c_int64 * WORDS).from_address(buckets.address_of("a"))
    assert list(words) == [key_of("a"), time.ns + SECOND]
    words[1] = 0
    assert taken(buckets, "a", Limit(1, 1)) == 0


def test_many_identities_have_buckets_of_their_own(time: Time) -> None:
    buckets = CallerBuckets(now_ns=time)
    names = [str(number) for number in range(5000)]
    assert [taken(buckets, name, Limit(1, 1)) for name in names] == [0] * len(names)
    assert all(taken(buckets, name, Limit(1, 1)) > 0 for name in names)
    assert len({buckets.place(name) for name in names}) == len(names)


def test_where_no_bucket_is_free_two_identities_share_one(time: Time) -> None:
    buckets = CallerBuckets(now_ns=time)
    for at in range(0, len(buckets.words), WORDS):
        buckets.words[at], buckets.words[at + 1] = -1, time.ns + SECOND
    assert buckets.place("a") == key_of("a") % PLACES * WORDS
    assert taken(buckets, "a", Limit(1, 1)) == 0


@given(st.lists(st.integers(0, SECOND // 2), max_size=60), st.integers(1, 20), st.integers(1, 5))
def test_never_more_than_the_limit_in_any_time(pauses: list[int], per_s: int, at_once: int) -> None:
    time = Time()
    buckets, times = CallerBuckets(now_ns=time), []
    for pause in pauses:
        time.ns += pause
        if taken(buckets, "a", Limit(per_s, at_once)) == 0:
            times.append(time.ns)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= at_once + per_s * (times[last] - times[first]) / SECOND + 1e-6
