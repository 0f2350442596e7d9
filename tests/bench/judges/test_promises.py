"""What Penstock's tests promise of rollouts, on simulated hours."""

import numpy as np
import pytest

from bench.judges import rules, table
from bench.judges.worlds import FAILING, MINUTES, PER_MINUTE, RAMP, WORLDS, Keyed, Shadow, Traffic, World
from penstock_server.rollout import sequential
from penstock_server.rollout.sequential import Split, threshold

RUNS = 250
QUIET = [world for world in WORLDS if not world.has_fault]


def outcome(world: World) -> table.Outcome:
    return next(table.outcomes([world], RUNS, seed=1))


@pytest.mark.long  # 250 hours by all judges; tests/server/rollout/test_sequential.py compares each test with an oracle
@pytest.mark.parametrize("world", QUIET, ids=lambda world: world.name)
def test_no_more_good_versions_are_rolled_back_than_promised(world: World) -> None:
    found = {each.judge: each for each in outcome(world).judges}
    assert found["Penstock"].is_within_alpha
    if not world.is_repeating:
        assert found["Penstock, every error"].is_within_alpha


@pytest.mark.long
def test_the_dispersion_before_keeps_the_promise_over_retries() -> None:
    retries = next(world for world in QUIET if world.name == "retries")
    found = {each.judge: each for each in outcome(retries).judges}
    assert found["Penstock, dispersion"].is_within_alpha
    assert not found["Penstock, every error"].is_within_alpha


@pytest.mark.long
@pytest.mark.parametrize("name", ["failing users", "broken client"])
def test_keys_that_fail_over_and_over_cost_good_versions_if_every_error_counts(name: str) -> None:
    found = {each.judge: each for each in outcome(next(world for world in QUIET if world.name == name)).judges}
    assert not found["Penstock, every error"].is_within_alpha
    assert not found["Penstock, dispersion"].is_within_alpha


@pytest.mark.long
@pytest.mark.parametrize(("keys", "most"), [(5000, 0.1), (300, 0.1)])
def test_a_faulty_version_is_seldom_promoted_where_keys_fail_again(keys: int, most: float) -> None:
    """Twice the errors of users of whom nearly all fail sooner or later: as many keys fail in the end, but not as often."""
    seen = Keyed(keys, worse=2.0)(np.random.default_rng(7), 100)
    assert np.isfinite(rules.promoted(seen)).mean() <= most


@pytest.mark.long  # 2,000 hours each
@pytest.mark.parametrize("name", ["errors rise", "errors fall", "a day's cycle"])
def test_a_base_rate_that_moves_is_no_reason_to_roll_back(name: str) -> None:
    world = next(world for world in QUIET if world.name == name)
    minutes = rules.penstock(world.simulate(np.random.default_rng(2), 2000))
    assert np.isfinite(minutes).mean() <= 0.016 + 3 * (0.016 * 0.984 / 2000) ** 0.5


@pytest.mark.long
@pytest.mark.parametrize(
    ("traffic", "most"),
    [(Traffic(worse=2.0), 9), (Traffic(tail=0.03), 6), (Shadow(0.02, 0.03), 9)],
    ids=["twice the errors", "twice the p99", "shadow a point worse"],
)
def test_faults_are_seen_soon(traffic, most: float) -> None:
    minutes = rules.penstock(traffic(np.random.default_rng(3), 1000))
    assert np.median(minutes) <= most


@pytest.mark.long
@pytest.mark.parametrize("traffic", [Traffic(), Shadow(0.02, 0.02)], ids=["canary", "shadow"])
def test_an_equal_version_is_promoted_within_the_hour(traffic) -> None:
    seen = traffic(np.random.default_rng(4), 1000)
    worse, within = rules.penstock(seen), rules.promoted(seen)
    assert (np.isfinite(within) & (within < worse)).mean() >= 0.95


def test_a_version_at_the_margin_is_seldom_promoted() -> None:
    seen = Traffic(worse=1.5)(np.random.default_rng(5), 1000)
    evidence = sequential.log_e_within(rules.splits(seen, seen.errors), 1.5)
    assert np.isfinite(rules.first(evidence >= threshold(0.05))).mean() <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_intervals_hold_the_truth_at_every_look() -> None:
    """The ratio is in its interval at all of an hour's looks in 95 % of hours, and known to a third at the end."""
    rng, missed, widths, truth = np.random.default_rng(6), 0, [], 1.4
    for _ in range(40):
        seen = Traffic(worse=truth)(rng, 1)
        looks = []
        for end in range(10, MINUTES + 1, 10):
            so_far = [
                Split(float(share), *(int(seen.errors[side, 0, :end][RAMP[:end] == share].sum()) for side in (1, 0)))
                for share in np.unique(RAMP[:end])
            ]
            looks.append(sequential.ratio_interval(so_far, 0.05))
        missed += any(not low <= truth <= high for low, high in looks)
        widths.append(looks[-1].high / looks[-1].low)
    assert missed <= 2 + 3 * (40 * 0.05 * 0.95) ** 0.5
    assert np.median(widths) < 1.5
    assert PER_MINUTE * FAILING == 30
