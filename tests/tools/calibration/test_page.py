import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from penstock_tools.calibration import page
from penstock_tools.calibration.report import Moment
from tests.tools.calibration.shifted_rows import CHECK

MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_page_is_whole_and_asks_the_network_for_nothing():
    html = page.page(CHECK, MADE)
    assert "2 alarms in 5,000 rows" in html
    assert "2026-03-01 12:00 UTC" in html
    assert not re.search(r"https?://|src=|url\(", html)
    assert "amount&lt;b&gt;" in html
    assert "amount<b>" not in html


def test_an_alarm_is_drawn_from_its_beginning_to_its_end():
    (first,), (second,) = (list(page.bars(CHECK, name)) for name in ("amount<b>", "city"))
    room = page.WIDTH - page.LEFT - page.RIGHT
    assert [first.since, first.noticed, first.ended] == pytest.approx(
        [page.LEFT + room * day / 40 for day in (1, 4, 9)]
    )
    assert second.ended == page.LEFT + room


def test_labels_do_not_collide():
    long = tuple(replace(CHECK.months[0], name=f"{2020 + at // 12}-{at % 12 + 1:02}") for at in range(60))
    ends = {"first": Moment(0, 1_577_836_800.0), "last": Moment(4999, 1_735_603_200.0)}
    for check in (
        CHECK,
        replace(CHECK, months=long, **ends),
        replace(CHECK, months=(), first=Moment(0), last=Moment(4999)),
    ):
        places = [tick.x for tick in page.ticks(check)]
        assert len(places) >= 2
        assert all(after - before >= 45 for before, after in pairwise(places))
        assert places[0] >= page.LEFT


def test_delays_are_dots_on_a_scale_of_powers_of_ten():
    dots = list(page.dots(CHECK, 0))
    assert [dot.is_found for dot in dots] == [True] * 3
    assert dots[0].x > dots[1].x > dots[2].x
    (late,) = page.dots(CHECK, 1)
    assert (late.is_found, late.title) == (False, "PSI 0.25: > 40,000 rows")
    assert [tick.label for tick in page.powers(CHECK)] == ["100 rows", "1,000 rows", "10,000 rows", "40,000"]


def test_without_alarms_and_delays_only_the_columns_are_left():
    columns = tuple(replace(column, alarms=0, delays=()) for column in CHECK.columns)
    html = page.page(replace(CHECK, alarms=(), columns=columns, months=(), indexes=()), MADE)
    assert "<h2>Columns</h2>" in html
    assert "When alarms were on" not in html
    assert "How soon" not in html
