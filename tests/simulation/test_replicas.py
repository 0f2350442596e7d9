"""A small fleet on one registry; `python -m tests.simulation --replicas 100` has a large one."""

import pytest

from tests.simulation.replicas import PACE, Convergence, converge

REPLICAS = 25


@pytest.fixture(scope="module")
def fleet() -> Convergence:
    found = converge("1", REPLICAS)
    assert found.violations == []
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("told_by", "known_s"), [("poll", PACE.poll_s + 0.5), ("webhook", 0.5), ("return of the registry", 15.5)]
)
def test_all_servers_follow_an_alias(fleet: Convergence, told_by: str, known_s: float) -> None:
    following = fleet.following[told_by]
    assert len(following.known_s) == len(following.answered_s) == REPLICAS
    assert max(following.known_s) < known_s


@pytest.mark.long
@pytest.mark.parametrize(
    ("when", "mean_hz", "busiest_hz"),
    [
        ("steady", 1.25 * REPLICAS / PACE.poll_s, 1.5 * REPLICAS),
        # Each server reads the list, and what it fetches in two requests more, beside the polls that it makes anyway.
        ("a webhook to all", 2 * REPLICAS, 4 * REPLICAS),
        ("registry away", REPLICAS / 8, REPLICAS / 2),
        ("registry back", 1.5 * REPLICAS, 2 * REPLICAS),
    ],
)
def test_what_servers_ask_of_their_registry_is_bounded(
    fleet: Convergence, when: str, mean_hz: float, busiest_hz: float
) -> None:
    load = fleet.loads[when]
    assert 0 < load.mean_hz <= mean_hz
    assert load.busiest_hz <= busiest_hz


@pytest.mark.long
def test_all_servers_send_a_key_to_the_same_version(fleet: Convergence) -> None:
    (share,) = fleet.shares
    assert share == pytest.approx(0.2, abs=0.04)
