import doctest
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from penstock_server.drift.report import DriftAlarm
from penstock_server.errors import NotFoundError
from penstock_tools.drift import table
from tests.tools.drift.drift_records import CANARY, CHAMPION, DELAY, JOINT, PAIR


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
    order = [text.rindex(f" {name} ") for name in ("delay", "carrier", "gust", "(predictions)", "confidence")]
    assert order == sorted(order)
    headings = next(line for line in text.splitlines() if "feature " in line and "PSI" in line)
    assert headings.split() == [
        "feature", "since", "(UTC)", "training", "now", "JS", "PSI", "p", "detects", "missing", "new", "effective",
    ]  # fmt: skip
    assert line_of(text, "delay").split() == [
        "▲", "delay", "01-02", "00:00", "▄▄▄▄", "▂▂▂█▂", "0.310", "0.490", "<0.001", "0.17", "10.0%", "2.0%", "125",
    ]  # fmt: skip
    assert line_of(text, "carrier").split() == [
        "carrier",
        "█▅▄",
        "█▅▃",
        "0.020",
        "-0.001",
        "0.970",
        "0.17",
        "0.3%",
        "125",
    ]
    assert line_of(text, "(predictions)").split()[:4] == ["▲", "(predictions)", "01-01", "00:00"]
    assert line_of(text, "gust").split()[-5:] == ["40", "of", "125", "45.0%", "40"]
    assert text.count("effective: so many rows") == 1
    assert "alarm: (predictions) drifts since 2026-01-01 00:00 UTC" in text


def test_expected_accuracy_stands_with_its_assumption():
    words = " ".join(drawn(table.overview(CHAMPION)).split())
    assert "expected accuracy, if the relation held: 81.2%" in words
    assert "if the relation between features and truth held" in words
    assert "expected accuracy" not in drawn(table.overview(CANARY)).lower()


def test_no_rows_are_no_error():
    text = drawn(table.overview(CANARY))
    assert "no rows were counted yet" in text
    assert "no verdict yet" in text
    assert "alarm:" not in text
    assert "since (UTC)" not in text
    assert "effective" not in text


def test_what_drifted_without_an_alarm_has_a_mark_of_its_own():
    assert line_of(drawn(table.overview(replace(CHAMPION, alarms=()))), "delay").split()[:2] == ["●", "delay"]


def test_the_order_of_the_sample_is_told_where_it_is_not_to_be_trusted():
    assert "shuffled" not in drawn(table.overview(CHAMPION))
    assert "sample looked shuffled" in drawn(table.overview(replace(CHAMPION, order="shuffled")))


@pytest.mark.parametrize(
    ("width", "histogram"), [(80, "███████▆"), (100, "███████▆"), (112, "███████████▄"), (140, "█" * 23)]
)
def test_it_fits_a_terminal(width, histogram):
    wide = replace(DELAY, name="a" * 15, labels=("x",) * 23, reference=(1 / 23,) * 23, current=(1 / 23,) * 23)
    text = drawn(table.overview(replace(CHAMPION, columns=(wide,), alarms=()), width), width)
    assert line_of(text, "a" * 15).split() == [
        "●", "a" * 15, *[histogram] * 2, "0.310", "0.490", "<0.001",
        *(["0.17"] if width > 80 else []), "10.0%", "2.0%", *(["125"] if width > 80 else []),
    ]  # fmt: skip
    assert ("Not shown for want of width: detects, effective." in " ".join(text.split())) is (width == 80)
    text = drawn(table.feature(replace(CHAMPION, columns=(wide,)), wide.name), width)
    assert "…" not in text


NAMES = st.text("abcdefgh_", min_size=1, max_size=40)


@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True), width=st.integers(80, 200), matters=st.booleans())
def test_no_line_of_the_table_wraps_or_is_cut_but_in_its_name(names, width, matters):
    columns = tuple(replace(DELAY, name=name, rows=10_000, importance=12.345, p_value=0.5) for name in names)
    few = replace(columns[0], enough_rows=False, rows=10_000, rows_needed=12_500)
    alarms = tuple(DriftAlarm(name, "shares", 1e9, 1e12) for name in names)
    measure = "AUC lost" if matters else ""
    version = replace(CHAMPION, columns=(*columns, few), alarms=alarms, importance_measure=measure)
    text = drawn(table.overview(version, width), width)
    start = next(at for at, line in enumerate(text.splitlines()) if "feature" in line and "PSI" in line)
    lines = text.splitlines()[start + 1 :][: len(names)]
    for line in lines:
        words = line.split()
        assert words[0] == table._ALARM
        assert words[1][:13].rstrip("…") in {name[: len(words[1][:13].rstrip("…"))] for name in names}
        assert words[2:4] == ["09-09", "01:46"]
        assert {"0.490", "10.0%", "2.0%"} <= set(words)
        assert "…" not in line.split(None, 2)[2]


@pytest.mark.parametrize(
    ("width", "kept"),
    [(100, "abcde"), (28, "abcde"), (27, "abce"), (22, "abce"), (21, "abe"), (16, "abe"), (15, "ae"), (1, "ae")],
)
def test_the_least_telling_columns_are_left_out_first(width, kept):
    cells = [Text("four")]
    fields = [
        table.Field(name, cells, left_out) for name, left_out in zip("abcde", (0, 1, 2, 3, 0), strict=True)
    ]  # four characters each, and two between
    assert "".join(field.heading for field in table.fitting(fields, width)) == kept


def test_one_feature_in_full():
    text = drawn(table.feature(CHAMPION, "delay"))
    assert "delay, a number: drifted" in text
    assert "Wasserstein distance, deviations: 0.7000" in text
    cells = {line.strip().split("  ")[0]: line for line in text.splitlines() if "█" in line}
    assert list(cells) == ["< 1", "1 to 2", "2 to 5", ">= 5", "missing"]
    assert cells[">= 5"].split()[2] == "25.0%"
    assert cells[">= 5"].count("█") == 20 + 8
    assert "smallest true PSI that four of five such windows show: 0.1700" in text
    assert "delay has more unknown values than in training since 2026-01-02 00:00 UTC" in text
    assert "(predictions) drifts" not in text
    assert "(predictions) drifts since 2026-01-01 00:00 UTC" in drawn(table.feature(CHAMPION, "label"))
    quiet = drawn(table.feature(CHAMPION, "gust"))
    assert "missing: 45.0%" in quiet
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


def test_pairs_and_segments_that_drifted_are_told():
    text = drawn(table.overview(replace(CHAMPION, joint=JOINT), 112))
    assert "1 of 2 pairs of columns go together in another way; 1 of 1 segments get other answers (a sample of" in text
    assert "  delay and gust: association 0.10, in training 0.60 (PSI 0.40)" in text
    assert "  where carrier is UA: 0 75.0%, in training 90.0% (PSI 0.12)" in text
    assert "delay and carrier" not in text
    assert "pairs" not in drawn(table.overview(CHAMPION, 112))


def test_five_are_told_and_the_others_counted():
    pairs = tuple(replace(PAIR, second=f"c{at}", psi_unbiased=0.1 + at / 100) for at in range(8))
    text = drawn(table.overview(replace(CHAMPION, joint=replace(JOINT, pairs=pairs, segments=())), 112))
    assert [line.split()[2] for line in text.splitlines() if line.startswith("  delay and")] == [
        "c7:", "c6:", "c5:", "c4:", "c3:",
    ]  # fmt: skip
    assert "and 3 more" in text


def test_too_few_rows_are_told():
    text = drawn(table.overview(replace(CHAMPION, joint=replace(JOINT, rows=7, pairs=(), segments=())), 112))
    assert "how columns go together is not known yet: a sample of 7 rows is too few" in text


def test_a_feature_tells_what_it_goes_together_with():
    version = replace(CHAMPION, joint=JOINT)
    text = drawn(table.feature(version, "carrier"))
    assert "  delay and carrier: association 0.10, in training 0.60 (PSI 0.00)" in text
    assert "● where carrier is UA: 0 75.0%, in training 90.0% (PSI 0.12)" in text
    assert "  where carrier is DL: 0 too few rows, in training 90.0%" in text
    assert "delay and gust" not in text
    assert "● delay and gust" in drawn(table.feature(version, "delay"))
