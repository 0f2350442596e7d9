import math
from itertools import pairwise

import pytest

from bench.load.arrivals import ClosedPace, PoissonPace, pace_of
from bench.load.plan import LoadPlan


def test_a_closed_pace_is_due_at_once_until_its_count_is_spent() -> None:
    pace = ClosedPace(max_requests=2)
    assert [pace.take(7.0), pace.take(8.0), pace.take(9.0)] == [7.0, 8.0, None]
    assert pace.is_spent
    assert pace.next_due() == math.inf


def poisson(**changes) -> PoissonPace:
    return PoissonPace(
        **{"start": 10.0, "rate_per_s": 1000.0, "seconds": 5.0, "max_requests": 10**6, "seed": 3, **changes}
    )


def drain(pace: PoissonPace) -> list[float]:
    due = []
    while (each := pace.take(math.inf)) is not None:
        due.append(each)
    return due


def test_arrivals_are_poisson_of_the_asked_rate() -> None:
    due = drain(poisson())
    gaps = [later - earlier for earlier, later in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    assert len(due) == pytest.approx(5000, abs=5 * math.sqrt(5000))
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.15)
    assert due == sorted(due)
    assert 10.0 <= due[0] <= due[-1] < 15.0


def test_arrivals_are_given_out_when_due_and_keep_their_due_time() -> None:
    pace = poisson()
    first = pace.next_due()
    assert pace.take(first - 1e-9) is None
    assert pace.take(first + 1.0) == first
    assert pace.next_due() > first


def test_arrivals_repeat_with_their_seed_and_end_with_their_count() -> None:
    assert drain(poisson()) == drain(poisson())
    assert drain(poisson()) != drain(poisson(seed=4))
    assert len(drain(poisson(max_requests=12))) == 12


@pytest.mark.parametrize("pace", [ClosedPace(max_requests=5), poisson()])
def test_a_stopped_pace_is_spent(pace) -> None:
    pace.stop()
    assert pace.is_spent
    assert pace.take(math.inf) is None
    assert pace.next_due() == math.inf


def test_a_plan_with_a_rate_has_an_open_pace() -> None:
    plan = LoadPlan("127.0.0.1:1", "/s/m", (b"",), rate_per_s=10.0)
    assert pace_of(plan, 0.0).is_open
    assert not pace_of(LoadPlan("127.0.0.1:1", "/s/m", (b"",)), 0.0).is_open
