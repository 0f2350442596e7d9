"""Which server takes the next call: decisions alone, with a clock that the test moves."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_client import Balancing
from penstock_client.balance import SERVING, Places
from penstock_client.steps import Failure

GONE = Failure(grpc.StatusCode.UNAVAILABLE, "gone")
BALANCING = Balancing(check_every_s=5.0, resolve_every_s=30.0)


def places(*keys, is_fixed=True):
    found = Places(BALANCING, is_fixed=is_fixed)
    found.update({key: lambda: None for key in keys}, 0.0)
    return found


def asked(found, times):
    """Which servers take so many calls that never end."""
    return [found.begin().key for _ in range(times)]


def test_calls_are_spread_evenly_over_servers_that_are_well():
    found = places("a", "b", "c")
    assert sorted(asked(found, 9)) == sorted("abc" * 3)


def test_calls_one_after_the_other_go_to_each_in_turn():
    found, keys = places("a", "b", "c"), []
    for _ in range(6):
        place = found.begin()
        keys.append(place.key)
        found.end(place, b"", 0.0)
    assert keys[:3] == keys[3:]
    assert sorted(keys[:3]) == ["a", "b", "c"]


def test_the_server_with_the_fewest_calls_in_flight_takes_the_next():
    found = places("a", "b")
    slow = found.begin()
    for _ in range(5):
        place = found.begin()
        assert place is not slow
        found.end(place, b"", 0.0)


def test_there_is_none_without_servers_or_beside_those_tried():
    assert places().begin() is None
    found = places("a")
    assert found.begin((found.begin(),)) is None


def failed(found, key, now=0.0):
    while True:
        place = found.begin()
        found.end(place, GONE if place.key == key else b"", now)
        if place.key == key:
            return place


def test_a_server_that_failed_is_left_out_until_a_check_finds_it_well():
    found = places("a", "b")
    place = failed(found, "a")
    assert set(asked(found, 4)) == {"b"}
    assert found.due(0.05) == []
    assert found.due(0.1) == [place]
    found.checked(place, GONE, 0.1)
    assert set(asked(found, 4)) == {"b"}
    found.checked(place, SERVING, 0.3)
    assert set(asked(found, 20)) == {"a", "b"}


def test_looks_become_rarer_and_never_rarer_than_at_servers_that_are_well():
    found = places("a", "b")
    place = failed(found, "a")
    waits, now = [], 0.0
    for _ in range(9):
        waits.append(round(place.check_at_s - now, 6))
        now = place.check_at_s
        found.checked(place, GONE, now)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_callers_that_fail_together_count_once():
    found = places("a")
    calls = [found.begin() for _ in range(5)]
    for place in calls:
        found.end(place, GONE, 1.0)
    assert calls[0].failures == 1
    assert calls[0].in_flight == 0


def test_where_all_are_out_they_are_asked_all_the_same():
    found = places("a", "b")
    for key in ("a", "b"):
        failed(found, key)
    assert set(asked(found, 2)) <= {"a", "b"}


@pytest.mark.parametrize(
    ("outcome", "is_well"),
    [
        (SERVING, True),
        (b"\x08\x02", False),
        (b"", False),
        (GONE, False),
        (Failure(grpc.StatusCode.DEADLINE_EXCEEDED), False),
        (Failure(grpc.StatusCode.UNIMPLEMENTED), True),
        (Failure(grpc.StatusCode.NOT_FOUND), True),
        (Failure(grpc.StatusCode.UNAUTHENTICATED), True),
    ],
)
def test_what_a_check_says(outcome, is_well):
    found = places("a")
    (place,) = found.all
    found.checked(place, outcome, 1.0)
    assert (place.failures == 0) is is_well
    assert place.check_at_s == (6.0 if is_well else 1.1)


def test_other_errors_say_nothing_about_the_server():
    found = places("a")
    for code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ):
        found.end(found.begin(), Failure(code), 0.0)
    assert found.all[0].failures == 0


def test_new_servers_join_old_ones_stay_and_those_gone_are_closed_when_their_calls_have_ended():
    found = places("a", "b")
    calls = {place.key: place for place in (found.begin(), found.begin())}
    found.end(calls["b"], b"", 1.0)
    closed = found.update({"c": lambda: "new"}, 1.0)
    assert closed == [calls["b"]]
    assert [place.key for place in found.all] == ["c"]
    assert found.end(calls["a"], b"", 1.0)
    kept = found.all[0]
    assert found.update({"c": lambda: None, "d": lambda: None}, 2.0) == []
    assert found.all[0] is kept


def test_names_are_asked_for_every_so_often_and_soon_after_a_failure():
    found = places("a", "b", is_fixed=False)
    assert found.resolve_at_s() == 30.0
    failed(found, "a", 10.0)
    assert found.resolve_at_s() == 1.0
    found.unresolved(10.0)
    assert found.resolve_at_s() == 11.0
    found.update({"a": lambda: None}, 11.0)
    assert found.resolve_at_s() == 41.0


def test_the_next_look_is_the_first_thing_to_do():
    assert places().next_look_s() == float("inf")
    assert places("a").next_look_s() == 5.0
    assert places(is_fixed=False).next_look_s() == 30.0


def test_a_forked_process_has_no_call_in_flight():
    found = places("a")
    found.begin()
    found.forget()
    assert found.all[0].in_flight == 0


@given(st.lists(st.tuples(st.sampled_from("be"), st.booleans()), max_size=60))
def test_no_server_has_two_calls_more_than_another_that_is_as_well(moves):
    found, calls = places("a", "b", "c"), []
    for move, _ in moves:
        if move == "b" or not calls:
            calls.append(found.begin())
        else:
            most = max(calls, key=lambda place: place.in_flight)
            calls.remove(most)
            found.end(most, b"", 0.0)
        in_flight = [place.in_flight for place in found.all]
        assert sum(in_flight) == len(calls)
        assert max(in_flight) - min(in_flight) <= 1


@pytest.mark.parametrize("name", ["check_every_s", "check_timeout_s", "resolve_every_s"])
def test_times_are_checked_on_construction(name):
    with pytest.raises(ValueError, match="expected times above 0"):
        Balancing(**{name: 0})
