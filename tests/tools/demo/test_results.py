import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.demo.results import Reply, Tally, percentile


def reply(version, role, at_s=0.0, rows=8, right=6, month=4):
    return Reply(at_s=at_s, took_s=0.002, month=month, version=version, role=role, rows=rows, right=right)


def promoted_tally():
    tally = Tally("2")
    for each in [reply("1", "champion", 1.0)] * 9 + [reply("2", "canary", 2.0, right=8)]:
        tally.answered(each)
    tally.promoted(3.0)
    tally.answered(reply("1", "champion", 3.5))
    tally.answered(reply("2", "champion", 4.0))
    tally.answered(reply("1", "champion", 4.1))
    tally.answered(reply("2", "champion", 4.2, right=0, month=5))
    return tally


def test_the_switch_is_the_first_reply_of_the_challenger_as_champion():
    tally = promoted_tally()
    assert (tally.promoted_s, tally.switched_s, tally.phase) == (3.0, 4.0, "after")


@pytest.mark.parametrize(("phase", "share"), [("before", 0.1), ("between", 0.0), ("after", 2 / 3), (None, 3 / 14)])
def test_shares_by_phase(phase, share):
    assert promoted_tally().share("2", phase) == pytest.approx(share)


def test_scores_by_phase_and_version():
    tally = promoted_tally()
    assert tally.score("2", "before").accuracy == 1.0
    assert tally.score("2").accuracy == pytest.approx(14 / 24)
    assert tally.score("1", "before").accuracy == 0.75
    assert tally.score("3").accuracy is None
    assert tally.score().rows == tally.rows == 14 * 8


def test_nothing_counted_has_no_share():
    assert Tally("2").share("2") is None
    assert promoted_tally().share("9") == 0.0
    assert Tally("2").phase == "before"


def test_a_canary_reply_is_no_switch_and_a_reply_may_come_before_the_promotion_returns():
    tally = Tally("2")
    tally.answered(reply("2", "canary", 1.0))
    assert tally.switched_s is None
    tally.answered(reply("2", "champion", 2.0))
    tally.promoted(2.5)
    assert (tally.promoted_s, tally.switched_s) == (2.0, 2.0)


def test_failures_are_requests_without_rows():
    tally = promoted_tally()
    tally.failed("no server")
    tally.failed("no server")
    tally.failed("too slow")
    assert (tally.requests, tally.failures, tally.rows) == (17, 3, 14 * 8)
    assert tally.errors.most_common(1) == [("no server", 2)]
    assert len(tally.durations) == 14


def test_the_month_never_goes_back():
    tally = Tally("2")
    for month in (4, 6, 5):
        tally.answered(reply("1", "champion", month=month))
    assert tally.month == 6


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_the_nearest_rank(values, percent):
    expected = np.percentile(values, percent, method="inverted_cdf")
    found = percentile(values, percent)
    assert found in values
    # One rank apart at most, where percent * count / 100 is a whole number but for rounding.
    at = sorted(values)
    assert abs(at.index(found) - at.index(expected)) <= max(1, at.count(found), at.count(expected))


@pytest.mark.parametrize(("percent", "expected"), [(1, 1.0), (50, 2.0), (51, 3.0), (99, 4.0), (100, 4.0)])
def test_percentiles_of_four(percent, expected):
    assert percentile([4.0, 1.0, 3.0, 2.0], percent) == expected
