import doctest
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.drift import bars
from penstock_tools.drift import format as words
from tests.tools.drift.drift_records import ANSWERS, CANARY, CARRIER, CHAMPION, DELAY, SILENT

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@pytest.mark.parametrize("module", [words, bars])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@given(text=st.text(max_size=60))
def test_names_cannot_steer_a_terminal(text):
    shown = words.safe(text)
    assert shown.isprintable()
    assert len(shown) <= words.LONGEST_NAME


def test_the_strongest_evidence_comes_first():
    close = replace(CARRIER, name="close", p_value=1e-9, jensen_shannon=0.5)
    assert [column.name for column in words.ranked([SILENT, CARRIER, DELAY, close])] == [
        "close",
        "delay",
        "carrier",
        "gust",
    ]


@pytest.mark.parametrize(
    ("version", "line"),
    [
        (
            CHAMPION,
            "1 of 2 features drifted; 1 more have too few rows to say (of those called drifted about 5% may be wrong)",
        ),
        (CANARY, "nothing can be said yet: no feature has enough rows"),
        (
            replace(CHAMPION, columns=(CARRIER, DELAY)),
            "1 of 2 features drifted (of those called drifted about 5% may be wrong)",
        ),
    ],
)
def test_the_verdict(version, line):
    assert words.verdict(version) == line


def test_rows_and_answers_are_told():
    assert words.rows_line(CHAMPION) == "900 rows in the window, which holds about 10,000 of each worker"
    assert (
        words.rows_line(CANARY) == "no rows were counted yet; ask for predictions, for example with `penstock predict`"
    )
    assert words.predictions_line(CHAMPION) == "the answers: as in training (distance 0.020, p 0.970)"
    assert "published without a reference" in words.predictions_line(CANARY)
    few = replace(CHAMPION, predictions=replace(ANSWERS, enough_rows=False, rows=3))
    assert words.predictions_line(few) == "the answers: too few rows to say, 3 of 125"
    assert words.title(CANARY) == "flights version 2 (canary, shadow)"
    assert words.title(replace(CANARY, roles=())) == "flights version 2 (no role)"


def test_alarms_are_told():
    assert words.alarms_line(CHAMPION) == "alarm, two windows in a row: delay, (predictions)"
    assert words.alarms_line(CANARY) == words.alarms_line(replace(CHAMPION, alarmed=())) == ""


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (CHAMPION, True),
        (CANARY, False),
        (replace(CHAMPION, drifted=0), False),
        (replace(CHAMPION, drifted=0, predictions=replace(ANSWERS, drifted=True)), True),
    ],
)
def test_features_and_answers_can_drift(version, expected):
    assert words.has_drifted(version) is expected


@given(reference=SHARES, current=SHARES, widest=st.integers(1, 30))
def test_a_pair_is_drawn_to_one_scale(reference, current, widest):
    size = min(len(reference), len(current))
    sides = reference[:size], current[:size]
    known, now = bars.pair(*sides, widest)
    assert len(known) == len(now) <= widest
    heights = []
    for shares, drawn in zip(sides, (known, now), strict=True):
        groups = bars.narrowed(shares, widest)
        assert sum(groups) == pytest.approx(sum(shares))
        assert [block == " " for block in drawn] == [share == 0 for share in groups]
        heights += zip(groups, map(bars.BLOCKS.index, drawn), strict=True)
    assert [height for _, height in sorted(heights)] == sorted(height for _, height in heights)


@given(share=st.floats(0, 1), largest=st.floats(0, 1), width=st.integers(1, 40))
def test_a_bar_is_never_longer_than_its_room(share, largest, width):
    assert len(bars.bar(share, largest, width)) <= width
