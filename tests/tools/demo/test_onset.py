from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.demo.onset import HIGH, Drift, DriftLog, highest

SCORES = st.dictionaries(st.sampled_from(["temp", "dest", "humid"]), st.floats(0, 1))


def test_the_first_high_month_and_the_highest_are_kept():
    log = DriftLog()
    for month, score in [(4, 0.1), (5, HIGH), (6, 0.9), (7, 0.1), (8, 0.5)]:
        log.look(month, {"temp": score, "dest": 0.05})
    assert log.top(2) == [Drift("temp", 0.9, 6, 5), Drift("dest", 0.05, 4, None)]


def test_nothing_seen_has_no_top():
    assert DriftLog().top(3) == []


@given(st.lists(st.tuples(st.integers(4, 12), SCORES)))
def test_the_log_agrees_with_looking_at_everything_again(looks):
    log = DriftLog()
    for month, scores in looks:
        log.look(month, scores)
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
