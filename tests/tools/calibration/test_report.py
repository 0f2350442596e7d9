from dataclasses import replace

import numpy as np

from penstock_tools.calibration import report
from penstock_tools.calibration.replay import Episode, Replay
from tests.tools.calibration.shifted_rows import CHECK, DAY_S, FIRST_S


def test_alarms_are_told_per_month():
    assert report.rate_line(CHECK) == "2 alarms in 5,000 rows, 2026-01-01 00:00 to 2026-02-10 00:00: 1.5 per month"
    assert report.months_line(CHECK) == "an alarm was on in 2 of 2 months, and one went on in 2"


def test_without_times_they_are_told_per_thousand_looks():
    nowhere = replace(CHECK, first=report.Moment(0), last=report.Moment(4999), months=(), alarms=CHECK.alarms[:1])
    assert report.rate_line(nowhere) == "1 alarm in 50 looks at 5,000 rows: 20 per 1,000 looks"
    assert report.months_line(nowhere) == ""
    assert "in a day" not in report.delays_line(nowhere)


def test_over_less_than_a_day_nothing_is_told_per_month():
    short = replace(CHECK, last=report.Moment(4999, FIRST_S + 3600.0))
    assert short.alarms_per_month is None
    assert "per 1,000 looks" in report.rate_line(short)


def test_the_pace_and_the_delays_are_told():
    assert "about 125 come in a day" in report.delays_line(CHECK)
    columns = tuple(replace(column, delays=()) for column in CHECK.columns)
    assert report.delays_line(replace(CHECK, columns=columns)) == ""
    told = [report.delay_told(one, 40_000) for column in CHECK.columns for one in column.delays]
    assert told == ["4,000", "600", "200", "> 40,000", "on before", "–"]


def test_an_alarm_is_on_in_each_month_that_it_touches():
    seconds = FIRST_S + DAY_S * np.arange(90)  # 31, 28 and 31 days
    episodes = [Episode("a", "shares", 10, 20, 40), Episode("b", "unseen", 58, 60, None)]
    found = list(report.months(episodes, seconds))
    assert [(month.name, month.rows, month.began, month.on) for month in found] == [
        ("2026-01", 31, 1, ("a",)),
        ("2026-02", 28, 0, ("a",)),
        ("2026-03", 31, 1, ("b",)),
    ]
    first, second = report.told(Replay(90, 1, 90, tuple(episodes)), seconds)
    assert (first.since, first.ended) == (report.Moment(10, seconds[10]), report.Moment(39, seconds[39]))
    assert second.ended is None
