"""Several servers, one tag, clocks of their own, delays and freezes: at most one of them acts at any time."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.rollout.lease import LEASE_S, ModelLease, holder_of, next_value

SETTLE_S = LEASE_S / 4


@dataclass
class Server:
    name: str
    tag: list[str]
    offset_s: float = 0.0
    lease: ModelLease = field(default_factory=ModelLease)
    frozen_until_s: float = 0.0

    def look(self, now_s: float) -> bool:
        """One look; whether it acts."""
        if now_s < self.frozen_until_s:
            return False
        own_s = now_s + self.offset_s
        self.lease = self.lease.seen(self.tag[0], self.name, own_s, LEASE_S)
        move = self.lease.move(self.name, own_s, LEASE_S)
        if move in {"take", "renew"}:
            # As the controller does it: under the condition that the tag is as it was seen.
            self.lease = self.lease.written(self.name, own_s)
            self.tag[0] = self.lease.value
        return move in {"act", "renew"} and self.lease.is_own


def test_a_lone_server_acts_once_its_name_has_stood_long_enough() -> None:
    tag = [""]
    server = Server("a", tag)
    acted = [now for now in range(60) if server.look(float(now))]
    assert acted[0] == pytest.approx(SETTLE_S, abs=1)
    assert acted == list(range(acted[0], 60))
    assert holder_of(tag[0]) == "a"


def test_another_one_waits_as_long_as_the_holder_lives_and_takes_over_when_it_ends() -> None:
    tag = [""]
    first, second = Server("a", tag), Server("b", tag, offset_s=1000.0)
    for now in range(200):
        first.look(float(now))
        assert not second.look(now + 0.5)
    acted = [now for now in range(200, 400) if second.look(float(now))]  # the first has ended
    assert LEASE_S <= acted[0] - 199 <= LEASE_S + SETTLE_S + 2
    assert holder_of(tag[0]) == "b"


def test_a_holder_that_was_frozen_acts_no_more_when_it_wakes() -> None:
    tag = [""]
    first, second = Server("a", tag), Server("b", tag)
    for now in range(50):
        first.look(float(now))
        second.look(now + 0.5)
    first.frozen_until_s = 50 + 3 * LEASE_S
    for now in range(50, 50 + 3 * int(LEASE_S)):
        second.look(now + 0.5)
    assert holder_of(tag[0]) == "b"
    assert not first.look(first.frozen_until_s)


def test_a_holder_that_slept_for_half_of_its_lease_waits_even_if_nobody_took_it() -> None:
    server = Server("a", [""])
    for now in range(30):
        server.look(float(now))
    assert server.look(30.0)
    assert not server.look(30 + LEASE_S / 2 + LEASE_S / 4)


def test_a_name_that_an_earlier_run_left_is_nobodys() -> None:
    tag = ["a 7"]
    server = Server("a", tag)
    assert not any(server.look(float(now)) for now in range(int(LEASE_S)))
    assert any(server.look(float(now)) for now in range(int(LEASE_S), int(LEASE_S + 2 * SETTLE_S)))


@pytest.mark.parametrize("value", ["", "a 1", "a x", "nonsense", "a 999999999999999999999"])
def test_the_next_value_differs_whatever_stands_there(value: str) -> None:
    following = next_value(value, "a")
    assert following != value
    assert holder_of(following) == "a"


schedules = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0.1, 8.0), st.booleans()), min_size=30, max_size=200
)  # who looks next, after how long, and whether it freezes afterwards


@pytest.mark.long
@settings(max_examples=200)
@given(schedules, st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
def test_never_do_two_act_at_once(schedule: list[tuple[int, float, bool]], offsets: list[float]) -> None:
    """One that acts is out of date at the latest when half of its lease is over, and nobody takes it before all of it is."""
    tag = [""]
    servers = [Server(name, tag, offset) for name, offset in zip("abc", offsets, strict=True)]
    now_s = 0.0
    acts: list[tuple[str, float]] = []
    for who, pause_s, freezes in schedule:
        now_s += pause_s
        if servers[who].look(now_s):
            acts.append((servers[who].name, now_s))
        if freezes:
            servers[who].frozen_until_s = now_s + 1.5 * LEASE_S
    for (one, at), (other, then) in pairwise(acts):
        if one != other:
            assert then - at > SETTLE_S
