import doctest
from itertools import pairwise
from math import cos, radians, sin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.drift import axis as axes
from penstock_tools.drift.axis import axis, text_width

LABELS = st.lists(st.text(max_size=30) | st.sampled_from(["ORD", "< 1.5", "1.5 to 2.25", "(missing)"]), max_size=60)
WIDTHS = st.floats(150, 800)


def test_examples():
    found = doctest.testmod(axes)
    assert found.attempted > 0
    assert found.failed == 0


@given(labels=LABELS, width=WIDTHS, is_ordered=st.booleans())
def test_names_never_touch_and_stay_in_the_drawing(labels, width, is_ordered):
    found = axis(labels, width, is_ordered=is_ordered)
    for tick in found.ticks:
        assert tick.place == pytest.approx(found.left + (tick.bin + 0.5) * found.step)
        assert len(tick.text) <= (14 if found.is_slanted else 26)
        length = text_width(tick.text)
        start = tick.x - length * (cos(radians(axes.SLANT)) if found.is_slanted else 0.5)
        assert start >= -1e-6
        assert tick.x + (0 if found.is_slanted else length / 2) <= width + 1e-6
    for before, after in pairwise(found.ticks):
        assert before.bin < after.bin
        if found.is_slanted:
            assert (after.x - before.x) * sin(radians(axes.SLANT)) >= 1.15 * axes.FONT - 1e-6
        else:
            halves = (text_width(before.text) + text_width(after.text)) / 2
            assert after.x - before.x >= halves + 4 - 1e-6
    if labels:
        assert found.left + len(labels) * found.step == pytest.approx(width - (6 if found.is_slanted else 0))


@given(labels=LABELS.filter(bool), width=WIDTHS, is_ordered=st.booleans())
def test_the_last_bin_has_its_name_and_slanted_names_fit_below(labels, width, is_ordered):
    found = axis(labels, width, is_ordered=is_ordered)
    if found.ticks or found.is_slanted:
        assert found.ticks[-1].bin == len(labels) - 1
    else:
        assert text_width(labels[-1][:26]) > width - 12
    assert found.is_slanted <= (not is_ordered)
    if found.is_slanted:
        longest = max(text_width(tick.text) for tick in found.ticks)
        assert found.height >= longest * sin(radians(axes.SLANT)) + axes.FONT


@pytest.mark.parametrize(
    ("labels", "is_ordered", "shown", "is_slanted"),
    [
        (["UA", "DL", "B6"], False, [0, 1, 2], False),
        ([f"airport {at}" for at in range(12)], False, list(range(12)), True),
        ([f"airport {at}" for at in range(40)], False, [*range(0, 37, 2), 39], True),
        (["< 1", "1 to 2", "2 to 3", ">= 3", "(missing)"], True, [0, 1, 2, 3, 4], False),
        ([f"{at}.25 to {at + 1}.25" for at in range(20)], True, [0, 5, 10, 19], False),
        (["x"], True, [0], False),
        ([], True, [], False),
        ([], False, [], False),
    ],
)
def test_as_many_names_as_fit(labels, is_ordered, shown, is_slanted):
    found = axis(labels, 400, is_ordered=is_ordered)
    assert ([tick.bin for tick in found.ticks], found.is_slanted) == (shown, is_slanted)


def test_letters_that_are_not_known_count_as_wide():
    assert text_width("漢字") > text_width("ab")
    assert text_width("é") >= text_width("e")
    assert text_width("e\u0301") == text_width("e")
