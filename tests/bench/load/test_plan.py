import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.plan import LoadPlan, LoadResult, endpoint, merge, split


def plan(**settings) -> LoadPlan:
    return LoadPlan(**{"address": "127.0.0.1:1", "path": "/s/m", "messages": (b"",), **settings})


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("127.9.9.9:65535", ("127.9.9.9", 65535)), ("[::1]:9", ("::1", 9))],
)
def test_loopback_addresses_are_taken(address, expected) -> None:
    assert endpoint(address) == expected


@pytest.mark.parametrize("address", ["10.0.0.1:80", "8.8.8.8:443", "example.com:80", "0.0.0.0:80", "[::]:80", ":80"])
def test_other_machines_are_refused(address) -> None:
    with pytest.raises(ValueError, match="loopback addresses only"):
        plan(address=address)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:65536"])
def test_malformed_addresses_are_refused(address) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        endpoint(address)


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": ()},
        {"connections": 0},
        {"streams": -1},
        {"duration_s": 0},
        {"duration_s": float("nan")},
        {"max_requests": 0},
        {"warmup_s": -0.1},
        {"grace_s": -1},
        {"rate_per_s": 0},
        {"timeout_s": 0},
    ],
)
def test_a_plan_is_checked_when_made(wrong) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        plan(**wrong)


@given(st.integers(1, 64), st.integers(1, 64))
def test_shares_add_up_and_differ_by_one_connection_at_most(connections, processes) -> None:
    whole = plan(connections=connections, rate_per_s=100.0)
    if processes > connections:
        with pytest.raises(ValueError, match="cannot be shared"):
            split(whole, processes)
        return
    parts = split(whole, processes)
    shares = [part.connections for part in parts]
    assert sum(shares) == connections
    assert max(shares) - min(shares) <= 1
    assert sum(part.rate_per_s for part in parts) == pytest.approx(100.0)
    assert len({part.seed for part in parts}) == processes


def test_merge_adds_counts_and_joins_latencies() -> None:
    first = LoadResult(5, 3, {"a": 2}, 1.0, np.array([1.0, 2.0]), probed=0.5)
    second = LoadResult(3, 1, {"a": 1, "b": 1}, 3.0, np.array([4.0]), probed=0.6)
    both = merge([first, second])
    assert (both.attempted, both.succeeded, both.failures, both.failed) == (8, 4, {"a": 3, "b": 1}, 4)
    assert both.latencies_s.tolist() == [1.0, 2.0, 4.0]
    assert (both.window_s, both.probed, both.requests_per_s) == (2.0, 0.5, 1.5)
