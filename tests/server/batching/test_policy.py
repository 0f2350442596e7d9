from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.batching.policy import RequestPolicy
from penstock_server.batching.priorities import DEFAULT, HIGHEST, LOWEST

LEVELS = st.integers(1, 40).flatmap(lambda levels: st.tuples(st.just(levels), st.integers(1, levels)))


@given(LEVELS)
def test_levels_keep_their_order_and_the_default_is_the_middle(levels: tuple[int, int]) -> None:
    count, default = levels
    policy = RequestPolicy(count, default)
    found = [policy.priority(level) for level in range(1, count + 1)]
    assert all(HIGHEST <= one <= LOWEST for one in found)
    assert all(one <= other for one, other in pairwise(found))
    assert found[default - 1] == policy.priority(0) == policy.priority(count + 1) == DEFAULT
    assert policy.merges_levels is (len(set(found)) < count)


@pytest.mark.parametrize(
    ("policy", "asked_s", "expected_s"),
    [
        (RequestPolicy(), 3.0, 3.0),
        (RequestPolicy(), inf, inf),
        (RequestPolicy(timeout_s=2.0), inf, 2.0),
        (RequestPolicy(timeout_s=2.0), 1.0, 1.0),
        (RequestPolicy(timeout_s=2.0), 3.0, 2.0),
        (RequestPolicy(timeout_s=2.0, takes_timeouts=False), 1.0, 2.0),
        (RequestPolicy(takes_timeouts=False), 1.0, inf),
    ],
)
def test_a_request_may_shorten_a_timeout_where_it_may_say_one(
    policy: RequestPolicy, asked_s: float, expected_s: float
) -> None:
    assert policy.timeout_s_of(asked_s) == expected_s
