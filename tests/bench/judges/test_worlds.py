import numpy as np
import pytest

from bench.judges import worlds
from bench.judges.worlds import MINUTES, PER_MINUTE, RAMP, WORLDS, Keyed, Shadow, Traffic, World


def world(name: str) -> World:
    return next(each for each in WORLDS if each.name == name)


def test_there_are_enough_worlds() -> None:
    assert len({each.name for each in WORLDS}) == len(WORLDS)
    assert sum(each.has_fault for each in WORLDS) == 12
    assert sum(not each.has_fault for each in WORLDS) == 13


@pytest.mark.parametrize("each", WORLDS, ids=lambda each: each.name)
def test_what_is_seen_has_its_shape_and_adds_up(each: World) -> None:
    seen = each.simulate(np.random.default_rng(0), 3)
    assert seen.requests.shape == seen.errors.shape == (2, 3, MINUTES)
    assert (seen.errors <= seen.requests).all()
    assert (seen.latency.sum(axis=-1) == seen.requests).all()
    assert seen.errors_before.shape == (3, MINUTES)
    if each.has_canary:
        assert (seen.requests[1].sum(axis=0) / seen.requests.sum(axis=(0, 1))).mean() == pytest.approx(
            RAMP.mean(), rel=0.1
        )


@pytest.mark.long
@pytest.mark.parametrize(
    "each", [each for each in WORLDS if not each.has_fault and each.has_canary], ids=lambda each: each.name
)
def test_without_a_fault_both_versions_fail_alike(each: World) -> None:
    seen = each.simulate(np.random.default_rng(0), 60 if isinstance(each.simulate, Keyed) else 400)
    share = seen.errors.sum(axis=1) / seen.requests.sum(axis=1)
    steps = share.reshape(2, 3, -1).mean(axis=2)
    assert steps[1] == pytest.approx(steps[0], rel=0.4 if each.is_repeating else 0.2)


def test_latencies_are_as_described() -> None:
    cells = Traffic().cells(0)[0]
    below = np.concatenate([[0], worlds.EDGES_MS])
    median, p99 = (np.interp(share, np.cumsum(cells)[:-1], worlds.EDGES_MS) for share in (0.5, 0.99))
    assert (median, p99) == pytest.approx((85, 272), rel=0.1)
    assert len(cells) == len(below)
    tail = Traffic(tail=0.03).cells(1)[0]
    assert np.interp(0.99, np.cumsum(tail)[:-1], worlds.EDGES_MS) > 1.8 * p99
    heavy = Traffic(heavy=True).cells(0)[0]
    assert heavy.sum() == pytest.approx(1)
    assert heavy[-1] > 100 * cells[-1]


def test_failures_of_keys_are_counted_as_the_server_does() -> None:
    assert worlds._counted(np.array([7, 3, 7, 7, 3])).tolist() == [1, 1, 2, 3, 2]
    assert worlds._counted(np.array([], np.int64)).tolist() == []


def test_each_key_has_one_first_error_and_keeps_its_side() -> None:
    seen = Keyed(keys=50, failing_keys=1.0)(np.random.default_rng(0), 20)
    assert seen.errors_by_key is not None
    first, fourth, counted = seen.errors_by_key
    assert (first.sum(axis=(0, 2)) <= 50).all()
    assert (first.sum(axis=(0, 2)) >= 45).all()
    assert (fourth.sum(axis=(0, 2)) <= first.sum(axis=(0, 2))).all()
    assert (first + fourth <= counted).all()
    assert (counted <= seen.errors).all()


def test_of_a_broken_client_few_errors_count() -> None:
    without, seen = (Keyed(broken=broken)(np.random.default_rng(0), 20) for broken in (0, 2000))
    assert (without.errors.sum(axis=(0, 2)) < 2000).all()
    assert (seen.errors.sum(axis=(0, 2)) > 3000).all()
    assert seen.errors_by_key is not None
    assert (seen.errors_by_key[2].sum(axis=(0, 2)) < 2100).all()


def test_of_a_worse_canary_only_its_own_requests_fail_more() -> None:
    usual, worse = (Keyed(worse=factor)(np.random.default_rng(0), 20).errors.sum(axis=(1, 2)) for factor in (1.0, 3.0))
    assert (worse / usual).tolist() == pytest.approx([1.0, 3.0], rel=0.1)


def test_retries_come_together() -> None:
    seen = Keyed(retries=5)(np.random.default_rng(0), 5)
    assert (seen.errors % 6 == 0).all()
    assert seen.errors.sum() / seen.requests.sum() == pytest.approx(worlds.FAILING, rel=0.1)
    assert (seen.errors_before % 6 == 0).all()


def test_a_canary_fails_those_that_it_is_said_to_fail() -> None:
    seen = Keyed(affected=0.5)(np.random.default_rng(0), 5)
    share = seen.errors.sum(axis=(1, 2)) / seen.requests.sum(axis=(1, 2))
    assert share[1] == pytest.approx(0.5, abs=0.05)
    assert share[0] == pytest.approx(worlds.FAILING, rel=0.2)


def test_a_shadow_has_pairs_alone() -> None:
    seen = Shadow(0.02, 0.03)(np.random.default_rng(0), 10)
    assert seen.pairs is not None
    assert seen.pairs.sum(axis=-1).tolist() == [[worlds.LABELS] * MINUTES] * 10
    assert seen.requests.sum() == 0


def test_a_fault_may_come_later() -> None:
    later = world("later")
    seen = later.simulate(np.random.default_rng(0), 50)
    share = seen.errors[1].sum(axis=0) / seen.requests[1].sum(axis=0)
    assert share[:30].mean() == pytest.approx(worlds.FAILING, rel=0.1)
    assert share[30:].mean() == pytest.approx(3 * worlds.FAILING, rel=0.1)
    assert later.faulty.argmax() == 30
    assert PER_MINUTE == 6000
