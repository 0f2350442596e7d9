import doctest
from dataclasses import replace

import pytest

from penstock_server.drift.report import DriftAlarm
from penstock_tools.drift import sentences
from tests.tools.drift.drift_records import ANSWERS, CANARY, CARRIER, CHAMPION, DELAY


def test_examples():
    found = doctest.testmod(sentences)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    ("version", "line"),
    [
        (
            CHAMPION,
            "1 of 2 features drifted; 1 more have too few rows (about 5% of those called drifted may be wrong)",
        ),
        (CANARY, "no verdict yet: no feature has enough rows"),
        (
            replace(CHAMPION, columns=(CARRIER, DELAY)),
            "1 of 2 features drifted (about 5% of those called drifted may be wrong)",
        ),
    ],
)
def test_the_verdict(version, line):
    assert sentences.verdict(version) == line


def test_the_lines_for_rows_and_answers():
    assert sentences.rows_line(CHAMPION) == "900 counted rows in the window, which holds about 10,000 per worker"
    assert sentences.rows_line(CANARY) == "no rows were counted yet; send requests, for example with `penstock predict`"
    assert sentences.predictions_line(CHAMPION) == "the answers: as in training (distance 0.020, p 0.970)"
    assert "published without a baseline" in sentences.predictions_line(CANARY)
    few = replace(CHAMPION, predictions=replace(ANSWERS, enough_rows=False, rows=3))
    assert sentences.predictions_line(few) == "the answers: too few rows, 3 of 125"
    assert sentences.title(CANARY) == "flights version 2 (canary, shadow)"
    assert sentences.title(replace(CANARY, roles=())) == "flights version 2 (no role)"


def test_the_line_for_alarms():
    assert sentences.alarms_line(CHAMPION) == (
        "alarm: (predictions) drifts since 2026-01-01 00:00 UTC (by chance once in more than 1,000,000,000,000 looks); "
        "delay has more unknown values than in training since 2026-01-02 00:00 UTC (by chance once in 40,000,000 looks)"
    )
    assert sentences.alarms_line(CANARY) == sentences.alarms_line(replace(CHAMPION, alarms=())) == ""


def test_a_column_drifts_since_the_first_of_its_alarms():
    later = replace(CHAMPION, alarms=(*CHAMPION.alarms, DriftAlarm("delay", "shares", 1767225600.0, 1e9)))
    assert sentences.since(CHAMPION, DELAY) == 1767312000.0
    assert sentences.since(later, DELAY) == sentences.since(CHAMPION, ANSWERS) == 1767225600.0
    assert sentences.since(CHAMPION, CARRIER) is None


def test_expected_accuracy_is_told_with_its_assumption():
    assert sentences.expected_line(CHAMPION) == (
        "expected accuracy, if the relation held: 81.2% (79.0% to 83.0%); of the hold-out's 5,000 rows 85.1% were right; "
        "it says nothing about 1.2% of the rows now"
    )
    inside = replace(CHAMPION, expected_accuracy=replace(CHAMPION.expected_accuracy, outside_ratio=0.0))
    assert sentences.expected_line(inside).endswith("85.1% were right")
    assert "It holds if the relation between features and truth held" in sentences.assumption(CHAMPION)
    assert (sentences.expected_line(CANARY), sentences.assumption(CANARY)) == ("", "")


def test_how_many_alarms_are_on():
    looked = replace(CHAMPION, looks=1200)
    assert sentences.alarms_head(looked) == "2 alarms are on, after 1,200 looks"
    assert sentences.alarms_head(replace(CHAMPION, alarms=CHAMPION.alarms[:1])) == "1 alarm is on"
    assert sentences.alarms_head(replace(looked, alarms=(), alarmed=())) == "no alarm is on, after 1,200 looks"
    important = replace(CHAMPION, alarms=CHAMPION.alarms[:1], alarmed_importance=0.62)
    carry = "; the alarmed features carry 62.0% of the importance to the model"
    assert sentences.alarms_head(important) == f"1 alarm is on{carry}"
    assert sentences.alarms_line(important).endswith(f"looks){carry}")
    assert sentences.alarms_head(CANARY) == "nothing looks for drift alarms of this version"


def test_the_order_of_the_sample_is_told_where_something_follows_from_it():
    assert sentences.order_line(CHAMPION) == sentences.order_line(replace(CHAMPION, order="time")) == ""
    assert "may be called drift" in sentences.order_line(replace(CHAMPION, order="shuffled"))
    by = replace(CHAMPION, order="sorted", ordered_by=("day", "x\x1b", "z", "other"))
    assert "sorted by day and x\ufffd and z. If" in sentences.order_line(by)
