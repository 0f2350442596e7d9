import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.autoscaling import Rule, main, simulate, ten_times, wanted


@pytest.mark.parametrize(
    ("replicas", "ready", "ratio", "expected"),
    [
        (2, 2, 0.6, 2),
        (2, 2, 0.65, 2),  # within the tolerance
        (2, 2, 0.9, 3),
        (2, 2, 2.0, 6),  # three times as many at most
        (10, 10, 2.0, 20),  # the most that may be
        (10, 10, 0.3, 5),
        (4, 4, 0.0, 2),  # the fewest that may be
    ],
)
def test_the_rule(replicas: int, ready: int, ratio: float, expected: int) -> None:
    assert wanted(Rule(), replicas, ready, ratio) == expected


@pytest.mark.parametrize("start_s", [1, 20, 60])
def test_ten_times_the_load_is_answered_by_ten_times_the_replicas(start_s: int) -> None:
    run = list(simulate(Rule(start_s=start_s, most=30), ten_times, 1200))
    assert [second.ready for second in run[:60]] == [2] * 60
    # Three times as many at each look; the tolerance lets one more stay.
    assert 20 <= run[599].ready <= 22
    assert all(second.refused == 0 for second in run[60 + 45 + 2 * start_s : 600])
    # What was wanted within five minutes stays.
    assert all(second.ready >= 20 for second in run[600:880])
    assert run[-1].ready <= 3


@given(st.lists(st.floats(0, 30), min_size=3, max_size=3), st.integers(1, 60))
def test_replicas_stay_within_their_bounds_and_settle(loads: list[float], start_s: int) -> None:
    rule = Rule(start_s=start_s, most=30)
    run = list(simulate(rule, lambda at: loads[at // 600], 1800))
    assert all(rule.least <= second.wanted <= rule.most and second.ready > 0 for second in run)
    assert all(second.refused == 0 for second in (run[599], run[1199], run[1799]))


def test_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert capsys.readouterr().out.count("all is answered") == 3
