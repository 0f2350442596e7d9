import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.demo import results
from penstock_tools.demo.results import (
    HIGH,
    DemoMetrics,
    DriftLog,
    FeatureDrift,
    Reply,
    ShadowMetrics,
    Tally,
    highest,
    metrics_excerpt,
    percentile,
    read_metrics,
)


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


SCORES = st.dictionaries(st.sampled_from(["temp", "dest", "humid"]), st.floats(0, 1))


def test_the_first_high_month_and_the_highest_are_kept():
    log = DriftLog()
    for month, score in [(4, 0.1), (5, HIGH), (6, 0.9), (7, 0.1), (8, 0.5)]:
        log.add(month, {"temp": score, "dest": 0.05})
    assert log.top(2) == [FeatureDrift("temp", 0.9, 6, 5), FeatureDrift("dest", 0.05, 4, None)]


def test_nothing_seen_has_no_top():
    assert DriftLog().top(3) == []


@given(st.lists(st.tuples(st.integers(4, 12), SCORES)))
def test_the_log_agrees_with_looking_at_everything_again(looks):
    log = DriftLog()
    for month, scores in looks:
        log.add(month, scores)
    for drift in log.top(9):
        seen = [(month, scores[drift.feature]) for month, scores in looks if drift.feature in scores]
        assert drift.highest == max(score for _, score in seen)
        assert drift.highest_month == next(month for month, score in seen if score == drift.highest)
        assert drift.began == next((month for month, score in seen if score >= HIGH), None)


@given(SCORES, st.integers(0, 4))
def test_the_highest_scores_come_first(scores, count):
    found = highest(scores, count)
    assert len(found) == min(count, len(scores))
    assert [score for _, score in found] == sorted(scores.values(), reverse=True)[:count]


TEXT = """
# TYPE data_drift_score gauge
data_drift_score{feature_name="temp",model_name="flights",model_version="1"} 0.9
data_drift_score{feature_name="dest",model_name="flights",model_version="1"} 0.1
data_drift_score{feature_name="temp",model_name="flights",model_version="2"} 0.5
data_drift_score{feature_name="age",model_name="fares",model_version="1"} 0.8
# TYPE penstock_drift_window_rows gauge
penstock_drift_window_rows{model_name="flights",model_version="1"} 150.0
penstock_drift_window_rows{model_name="flights",model_version="2"} 20.0
# TYPE penstock_model_role gauge
penstock_model_role{model_name="flights",model_version="1",role="champion"} 1.0
penstock_model_role{model_name="flights",model_version="2",role="shadow"} 1.0
penstock_model_role{model_name="fares",model_version="7",role="champion"} 1.0
# TYPE penstock_shadow_comparisons_total counter
penstock_shadow_comparisons_total{model_name="flights",model_version="2",result="agree"} 90.0
penstock_shadow_comparisons_total{model_name="flights",model_version="2",result="disagree"} 10.0
penstock_shadow_comparisons_total{model_name="flights",model_version="2",result="failed"} 5.0
# TYPE penstock_shadow_agreement_ratio gauge
penstock_shadow_agreement_ratio{model_name="flights",model_version="2"} 0.9
# TYPE penstock_shadow_score_distance histogram
penstock_shadow_score_distance_bucket{le="0.1",model_name="flights",model_version="2"} 60.0
penstock_shadow_score_distance_bucket{le="+Inf",model_name="flights",model_version="2"} 100.0
penstock_shadow_score_distance_count{model_name="flights",model_version="2"} 100.0
penstock_shadow_score_distance_sum{model_name="flights",model_version="2"} 12.5
# TYPE penstock_shadow_latency_ratio gauge
penstock_shadow_latency_ratio{model_name="flights",model_version="2"} 2.5
"""


def test_everything_of_one_model_is_read():
    assert read_metrics(TEXT, "flights") == DemoMetrics(
        champion="1",
        shadow=ShadowMetrics(version="2", compared=100, agreement=0.9, distance=0.125, latency_ratio=2.5),
        drift={"1": {"temp": 0.9, "dest": 0.1}, "2": {"temp": 0.5}},
        window_rows={"1": 150, "2": 20},
    )


@pytest.mark.parametrize("text", ["", "# TYPE up gauge\nup 1.0\n"])
def test_what_is_not_said_is_absent(text):
    assert read_metrics(text, "flights") == DemoMetrics(champion=None, shadow=None, drift={}, window_rows={})


def test_a_shadow_without_rows_has_no_agreement():
    text = 'penstock_shadow_comparisons_total{model_name="m",model_version="2",result="agree"} 0.0\n'
    assert read_metrics(text, "m").shadow == ShadowMetrics("2", 0, None, None, None)


@pytest.mark.parametrize(("least", "features"), [(0, {"temp", "dest"}), (150, {"temp", "dest"}), (151, set())])
def test_drift_is_settled_once_the_champions_window_holds_enough(least, features):
    assert read_metrics(TEXT, "flights").settled_drift(least).keys() == features


def test_no_champion_has_no_drift():
    assert DemoMetrics().settled_drift(1) == {}


def test_an_excerpt_has_the_highest_lines_of_each_family_in_the_order_asked():
    assert metrics_excerpt(TEXT, ["penstock_model_role", "data_drift_score", "nothing"], 2) == [
        'penstock_model_role{model_name="flights",model_version="1",role="champion"} 1.0',
        'penstock_model_role{model_name="flights",model_version="2",role="shadow"} 1.0',
        'data_drift_score{feature_name="temp",model_name="flights",model_version="1"} 0.9',
        'data_drift_score{feature_name="age",model_name="fares",model_version="1"} 0.8',
    ]


def test_an_excerpt_takes_whole_names():
    assert metrics_excerpt("penstock_rows_total 3\npenstock_rows 2\n", ["penstock_rows"], 9) == ["penstock_rows 2"]


def test_examples():
    found = doctest.testmod(results)
    assert found.attempted > 0
    assert found.failed == 0
