import doctest
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from penstock_server.errors import NotFoundError
from penstock_tools.drift import table
from tests.tools.drift.drift_records import CANARY, CHAMPION, DELAY


def drawn(renderable, width=110):
    console = Console(width=width, record=True, file=None, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def line_of(text, name):
    lines = [line for line in text.splitlines() if name in line.split()]
    return lines[-1]  # alarms, before the table, name columns too


def test_a_line_for_each_feature_by_significance():
    text = drawn(table.overview(CHAMPION, 112))
    assert text.splitlines()[0].strip() == "flights version 1 (champion)"
    order = [text.rindex(f" {name} ") for name in ("delay", "carrier", "gust", "(predictions)")]
    assert order == sorted(order)
    assert line_of(text, "delay").split() == [
        "●", "delay", "▄▄▄▄", "▂▂▂█▂", "0.310", "0.490", "<0.001", "10.0%", "2.0%",
    ]  # fmt: skip
    assert line_of(text, "carrier").split() == ["carrier", "█▅▄", "█▅▃", "0.020", "-0.001", "0.970", "0.3%"]
    assert line_of(text, "gust").split()[-4:] == ["40", "of", "125", "rows"]
    assert "alarm: (predictions) drifts since 2026-01-01 00:00 UTC" in text


def test_no_rows_are_no_error():
    text = drawn(table.overview(CANARY))
    assert "no rows were counted yet" in text
    assert "no verdict yet" in text
    assert "alarm" not in text


@pytest.mark.parametrize("width", [80, 100, 112, 140])
def test_it_fits_a_terminal(width):
    wide = replace(DELAY, name="a" * 15, labels=("x",) * 23, reference=(1 / 23,) * 23, current=(1 / 23,) * 23)
    text = drawn(table.overview(replace(CHAMPION, columns=(wide,)), width), width)
    assert line_of(text, "a" * 15).split() == [
        "●", "a" * 15, *["█" * 23 if width >= table.NARROW else "███████▆"] * 2, "0.310", "0.490", "<0.001", "10.0%", "2.0%"
    ]  # fmt: skip
    text = drawn(table.feature(replace(CHAMPION, columns=(wide,)), wide.name), width)
    assert "…" not in text


def test_one_feature_in_full():
    text = drawn(table.feature(CHAMPION, "delay"))
    assert "delay, a number: drifted" in text
    assert "Wasserstein distance, deviations: 0.7000" in text
    cells = {line.strip().split("  ")[0]: line for line in text.splitlines() if "█" in line}
    assert list(cells) == ["< 1", "1 to 2", "2 to 5", ">= 5", "missing"]
    assert cells[">= 5"].split()[2] == "25.0%"
    assert cells[">= 5"].count("█") == 20 + 8
    quiet = drawn(table.feature(CHAMPION, "gust"))
    assert "gust, a number: too few rows, 40 of 125" in quiet
    assert drawn(table.feature(CHAMPION, "label")).count("a class") == 1


def test_the_error_for_an_unknown_feature_lists_the_known():
    with pytest.raises(NotFoundError, match="watches no feature 'dealy'; it watches gust, carrier, delay, label"):
        table.feature(CHAMPION, "dealy")
    many = replace(CANARY, columns=tuple(replace(DELAY, name=f"c{at}") for at in range(22)))
    with pytest.raises(NotFoundError, match="c19 and 2 more"):
        table.named(many, "x")


def test_hostile_names_stay_text():
    hostile = replace(DELAY, name="\x1b[2J[red]x[/red]", labels=("\x07", "[bold]", "c", "d", "e"))
    text = drawn(table.overview(replace(CHAMPION, columns=(hostile,)))) + drawn(
        table.feature(replace(CHAMPION, columns=(hostile,)), hostile.name)
    )
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "�[2J[red]x[/red]" in text
    assert "[bold]" in text


def test_examples():
    found = doctest.testmod(table)
    assert found.attempted > 0
    assert found.failed == 0


SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@given(reference=SHARES, current=SHARES, widest=st.integers(1, 30))
def test_a_pair_is_drawn_to_one_scale(reference, current, widest):
    size = min(len(reference), len(current))
    sides = reference[:size], current[:size]
    known, now = table.pair(*sides, widest)
    assert len(known) == len(now) <= widest
    heights = []
    for shares, drawn in zip(sides, (known, now), strict=True):
        groups = table.narrowed(shares, widest)
        assert sum(groups) == pytest.approx(sum(shares))
        assert [block == " " for block in drawn] == [share == 0 for share in groups]
        heights += zip(groups, map(table.BLOCKS.index, drawn), strict=True)
    assert [height for _, height in sorted(heights)] == sorted(height for _, height in heights)


@given(share=st.floats(0, 1), largest=st.floats(0, 1), width=st.integers(1, 40))
def test_a_bar_is_never_longer_than_its_room(share, largest, width):
    assert len(table.bar(share, largest, width)) <= width
