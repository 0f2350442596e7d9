import math
from itertools import pairwise

import pytest

from bench.load.arrivals import ClosedLoop, PoissonArrivals, arrivals_of
from bench.load.plan import LoadPlan


def test_a_closed_pace_is_due_at_once_until_its_count_is_spent() -> None:
    arrivals = ClosedLoop(max_requests=2)
    assert [arrivals.take(7.0), arrivals.take(8.0), arrivals.take(9.0)] == [7.0, 8.0, None]
    assert arrivals.is_spent
    assert arrivals.next_due() == math.inf


def poisson(**changes) -> PoissonArrivals:
    return PoissonArrivals(
        **{"start": 10.0, "rate_per_s": 1000.0, "seconds": 5.0, "max_requests": 10**6, "seed": 3, **changes}
    )


def drain(arrivals: PoissonArrivals) -> list[float]:
    due = []
    while (each := arrivals.take(math.inf)) is not None:
        due.append(each)
    return due


def test_arrivals_are_poisson_of_the_mean_rate() -> None:
    due = drain(poisson())
    gaps = [later - earlier for earlier, later in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    assert len(due) == pytest.approx(5000, abs=5 * math.sqrt(5000))
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.15)
    assert due == sorted(due)
    assert 10.0 <= due[0] <= due[-1] < 15.0


def test_arrivals_are_given_out_when_due_and_keep_their_due_time() -> None:
    arrivals = poisson()
    first = arrivals.next_due()
    assert arrivals.take(first - 1e-9) is None
    assert arrivals.take(first + 1.0) == first
    assert arrivals.next_due() > first


def test_arrivals_repeat_with_their_seed_and_end_with_their_count() -> None:
    assert drain(poisson()) == drain(poisson())
    assert drain(poisson()) != drain(poisson(seed=4))
    assert len(drain(poisson(max_requests=12))) == 12


@pytest.mark.parametrize("arrivals", [ClosedLoop(max_requests=5), poisson()])
def test_a_stopped_pace_is_spent(arrivals) -> None:
    arrivals.stop()
    assert arrivals.is_spent
    assert arrivals.take(math.inf) is None
    assert arrivals.next_due() == math.inf


def test_a_plan_with_a_rate_has_an_open_pace() -> None:
    plan = LoadPlan("127.0.0.1:1", "/s/m", (b"",), rate_per_s=10.0)
    assert arrivals_of(plan, 0.0).is_open
    assert not arrivals_of(LoadPlan("127.0.0.1:1", "/s/m", (b"",)), 0.0).is_open
