import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift.report import DriftAlarm
from penstock_tools.drift import page as pages
from penstock_tools.drift.page import page
from tests.tools.drift.drift_records import CANARY, CARRIER, CHAMPION, DELAY, JOINT, PAIR, SEGMENT, SILENT

WHEN = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
VOID = {"meta"}


class Reader(HTMLParser):
    """What a browser sees: elements, attributes and text; demands that every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.elements = []
        self.texts = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]


def test_features_stand_by_concern_with_a_histogram_each():
    read = Reader(page(CHAMPION, WHEN))
    links = [attributes["href"] for attributes in read.all("a")]
    assert links == ["#f0", "#f1", "#f2", "#f3", "#f4"]
    assert [one["id"] for one in read.all("section") if "id" in one] == ["f0", "f1", "f2", "f3", "f4"]
    titles = [text for text in read.texts if re.match(r"(delay|carrier|gust|confidence|\(predictions\)): ", text)]
    assert titles == [
        "delay: drifted",
        "carrier: as in training",
        "gust: too few rows, 40 of 125",
        "(predictions): as in training",
        "confidence: as in training",
    ]
    lines = [one["data-value"] for one in read.all("td") if "data-label" not in one and "data-value" in one]
    assert lines == ["delay", "carrier", "gust", "(predictions)", "confidence"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in read.all("svg"))
    names = {attributes["id"] for attributes in read.all("h2")}
    assert all(
        attributes.get("aria-label") or attributes["aria-labelledby"] in names for attributes in read.all("section")
    )
    assert len(read.all("svg")) == 5 + 5
    assert "2026-05-01 12:30 UTC" in page(CHAMPION, WHEN)


def test_a_line_holds_the_numbers_of_the_record():
    read = Reader(page(replace(CHAMPION, columns=(DELAY,), predictions=None, answers=()), WHEN))
    cells = [attributes for attributes in read.all("td") if "data-value" in attributes]
    assert [cell["data-value"] for cell in cells] == [
        "delay", "1767312000.0",
        *map(str, (DELAY.p_value, DELAY.jensen_shannon, DELAY.psi_unbiased, DELAY.detectable, DELAY.missing_ratio)),
        *map(str, (DELAY.out_of_range_ratio, DELAY.rows)),
    ]  # fmt: skip
    labels = [cell["data-label"] for cell in cells[1:]]
    assert labels == ["since (UTC)", "p", "JS", "PSI", "detects", "missing", "new", "rows"]
    assert [text for text in read.texts if text in labels][: len(labels)] == labels
    shown = ["2026-01-02 00:00", "<0.001", "0.310", "0.490", "0.17", "10.0%", "2.0%", "900 like 125"]
    at = read.texts.index("2026-01-02 00:00")
    assert [text for text in read.texts[at:] if text.strip()][: len(shown)] == shown


def test_shares_are_told_before_there_are_rows_enough():
    read = Reader(page(replace(CHAMPION, columns=(SILENT, CARRIER), predictions=None, answers=(), alarms=()), WHEN))
    shares = [cell["data-value"] for cell in read.all("td") if cell.get("data-label") in {"missing", "new"}]
    assert shares == ["0.0", "0.003", "0.45", "0.0"]
    assert "40 of 125" in read.texts


def test_alarms_stand_in_a_band_before_anything_else():
    read = Reader(page(CHAMPION, WHEN))
    bands = [one for one in read.all("section") if "band" in one["class"]]
    assert [one["class"] for one in bands] == ["band alarm", "band"]
    assert "▲ 2 alarms are on" in read.texts
    (items,) = [[text for text in read.texts if " since 2026-01-0" in text and "chance" in text]]
    assert [item.split(" ")[0] for item in items] == ["(predictions)", "delay"]
    marked = [text for text in read.texts if text.startswith("▲ alarm, since")]
    assert marked == ["▲ alarm, since 2026-01-02 00:00 UTC", "▲ alarm, since 2026-01-01 00:00 UTC"]


def test_expected_accuracy_stands_with_its_assumption():
    texts = Reader(page(CHAMPION, WHEN)).texts
    at = next(at for at, text in enumerate(texts) if text.startswith("expected accuracy, if the relation held: 81.2%"))
    assert any("if the relation between features and truth held" in text for text in texts[at + 1 : at + 4])
    assert "expected accuracy" not in page(CANARY, WHEN).lower()


def test_a_version_without_alarms_says_so():
    read = Reader(page(replace(CHAMPION, alarms=(), alarmed=(), looks=1200), WHEN))
    assert "no alarm is on, after 1,200 looks" in read.texts
    assert "since (UTC)" not in read.texts
    assert not any("▲" in text for text in read.texts)
    assert "nothing looks for drift alarms of this version" in page(CANARY, WHEN)


def test_what_follows_from_the_samples_order_is_told():
    assert "band warn" not in page(CHAMPION, WHEN)
    read = Reader(page(replace(CHAMPION, order="shuffled"), WHEN))
    assert any("sample looked shuffled" in text for text in read.texts)


def test_names_below_a_histogram_are_those_that_fit():
    many = replace(
        CARRIER, labels=tuple(f"airport {at}" for at in range(30)), reference=(1 / 30,) * 30, current=(1 / 30,) * 30
    )
    read = Reader(page(replace(CHAMPION, columns=(many,), predictions=None), WHEN))
    texts = [text for text in read.texts if text.startswith("airport ") and ":" not in text]
    assert texts == [f"airport {at}" for at in (*range(0, 27, 2), 29)]
    assert len([text for text in read.texts if text.startswith("airport ") and "now" in text]) == 2 * 30
    assert all("rotate(-45)" in one["transform"] for one in read.all("text") if one.get("text-anchor") == "end")


def colours(text):
    """The page's colours by name: in the light, and in the dark."""
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]+)", one)) for one in (light, dark)]


def contrast(one, other):
    """As the Web Content Accessibility Guidelines compute it."""

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_bars_can_be_seen(theme):
    found = colours(page(CHAMPION, WHEN))[theme]
    pairs = [
        *((text, paper, 4.5) for text in ("ink", "soft", "bad") for paper in ("card", "paper")),
        *((text, paper, 4.5) for text in ("ink", "bad") for paper in ("alarm", "warn")),
        *((bar, "card", 3) for bar in ("now", "hit", "known")),
    ]
    for one, other, least in pairs:
        assert contrast(found[one], found[other]) >= least, (one, other)


def test_bars_are_as_high_as_shares():
    read = Reader(page(replace(CHAMPION, columns=(DELAY,), predictions=None), WHEN))
    large = read.all("svg")[-1]
    assert large["viewbox"].startswith(f"0 0 {large['width']} ")
    heights = [float(rect["height"]) for rect in read.all("rect")][-14:]
    # The bars now, the outlines trained on, of which an empty cell has none, and what a pointer finds.
    assert heights == [20.0, 20.0, 20.0, 120.0, 20.0] + [50.0] * 4 + [120.0] * 5
    assert all(14 <= float(rect["y"]) <= 134 for rect in read.all("rect")[-14:])
    assert "60%" in read.texts
    assert "missing: 0.00% in training, 10.00% now" in read.texts


def test_pairs_and_segments_that_drifted_are_drawn():
    read = Reader(page(replace(CHAMPION, joint=JOINT), WHEN))
    assert "1 of 2 pairs of columns go together in another way" in "".join(read.texts)
    labels = [one.get("aria-label") for one in read.all("section")]
    assert ("delay and gust" in labels, "delay and carrier" in labels) == (True, False)
    assert ("carrier UA" in labels, "carrier DL" in labels) == (True, False)
    assert "delay < 2, gust >= 30: 20.00%" in read.texts
    darkest = [float(one["fill-opacity"]) for one in read.all("rect") if "fill-opacity" in one]
    assert darkest == [1.0, 0.25, 0.25, 1.0, 0.75, 0.5, 0.5, 0.75]
    assert len(read.all("svg")) == len(Reader(page(CHAMPION, WHEN)).all("svg")) + 2


def test_as_many_pairs_and_segments_are_drawn_as_one_can_look_at(monkeypatch):
    monkeypatch.setattr(pages, "MOST_TOGETHER", 2)
    joint = replace(JOINT, pairs=(PAIR,) * 3, segments=(SEGMENT,) * 3)
    drawn = Reader(page(replace(CHAMPION, joint=joint), WHEN)).all("svg")
    assert len(drawn) == len(Reader(page(CHAMPION, WHEN)).all("svg")) + 4


def test_it_is_self_contained():
    text = page(CHAMPION, WHEN)
    read = Reader(text)
    for _, attributes in read.elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = [one["content"] for one in read.all("meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none'")


@given(
    text=st.text(max_size=30)
    | st.sampled_from(["</script><script>alert(1)</script>", '"><img src=x onerror=y>', "&amp;"])
)
def test_names_are_text_and_nothing_else(text):
    def elements(name, labels):
        hostile = replace(DELAY, name=name, labels=labels)
        few = replace(CANARY.columns[0], name=name, labels=labels)
        alarms = (DriftAlarm(name, "shares", 1e9, 1e9),)
        version = replace(CHAMPION, model=name, version=name, columns=(hostile, few), alarms=alarms, alarmed=(name,))
        return Reader(page(replace(version, order="sorted", ordered_by=(name,)), WHEN)).elements

    found, plain = elements(text or "x", (text,) * 5), elements("x", ("x",) * 5)
    # How many names fit below a histogram depends on them.
    tags = [[tag for tag, _ in one if tag not in {"text", "path"}] for one in (found, plain)]
    assert tags[0] == tags[1]
    assert not {"onerror", "src"} & {name for _, attributes in found for name in attributes}


def test_a_wide_model_is_drawn_large_for_the_strongest_only(monkeypatch):
    monkeypatch.setattr(pages, "MOST_SECTIONS", 2)
    columns = tuple(replace(CARRIER, name=f"c{at}") for at in range(5))
    read = Reader(page(replace(CHAMPION, columns=columns, predictions=None), WHEN))
    cards = [one for one in read.all("section") if one["class"].startswith("card")]
    # What the model answers is always drawn.
    links = [one["href"] for one in read.all("a")]
    assert (len(cards), links, len(read.all("tr"))) == (3, ["#f0", "#f1", "#f5"], 1 + 6)


def test_a_version_without_rows_has_a_page():
    assert "no rows were counted yet" in page(CANARY, WHEN)
    assert "no rows were counted yet" in page(replace(CANARY, columns=()), WHEN)
