import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.drift import page as pages
from penstock_tools.drift.page import page
from tests.tools.drift.drift_records import CANARY, CARRIER, CHAMPION, DELAY

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


def test_features_stand_by_significance_with_a_histogram_each():
    read = Reader(page(CHAMPION, WHEN))
    links = [attributes["href"] for attributes in read.all("a")]
    assert links == ["#f0", "#f1", "#f2"]
    assert [attributes["id"] for attributes in read.all("section")] == ["f0", "f1", "f2", "f3"]
    titles = [text for text in read.texts if re.match(r"(delay|carrier|gust|\(predictions\)): ", text)]
    assert titles == [
        "delay: drifted",
        "carrier: as in training",
        "gust: too few rows, 40 of 125",
        "(predictions): as in training",
    ]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in read.all("svg"))
    assert len(read.all("svg")) == 3 + 4
    assert "2026-05-01 12:30 UTC" in page(CHAMPION, WHEN)


def test_a_line_holds_the_numbers_of_the_record():
    read = Reader(page(replace(CHAMPION, columns=(DELAY,)), WHEN))
    values = [attributes["data-value"] for attributes in read.all("td") if "data-value" in attributes]
    assert values == [
        "delay",
        *map(str, (DELAY.p_value, DELAY.jensen_shannon, DELAY.psi_unbiased, DELAY.missing_ratio)),
        "",
        *map(str, (DELAY.out_of_range_ratio, DELAY.rows)),
    ]
    shown = ("<0.001", "0.310", "0.490", "10.0%", "2.0%", "900")
    assert [text for text in read.texts if text in shown] == list(shown)


def test_bars_are_as_high_as_shares():
    read = Reader(page(replace(CHAMPION, columns=(DELAY,), predictions=None), WHEN))
    heights = [float(rect["height"]) for rect in read.all("rect")][-14:]
    # The bars now, the outlines trained on, of which an empty cell has none, and what a pointer finds.
    assert heights == [20.0, 20.0, 20.0, 120.0, 20.0] + [50.0] * 4 + [120.0] * 5
    assert all(0 <= float(rect["y"]) <= 120 for rect in read.all("rect"))
    assert "missing: 0.00% in training, 10.00% now" in read.texts


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
    hostile = replace(DELAY, name=text, labels=(text,) * 5)
    few = replace(CANARY.columns[0], name=text, labels=(text,) * 5)
    version = replace(CHAMPION, model=text, version=text, columns=(hostile, few), alarmed=(text or "x",))
    read, plain = Reader(page(version, WHEN)), Reader(page(replace(CHAMPION, columns=(DELAY, few)), WHEN))
    assert [tag for tag, _ in read.elements] == [tag for tag, _ in plain.elements]


def test_a_wide_model_is_drawn_large_for_the_strongest_only(monkeypatch):
    monkeypatch.setattr(pages, "MOST_SECTIONS", 2)
    columns = tuple(replace(CARRIER, name=f"c{at}") for at in range(5))
    read = Reader(page(replace(CHAMPION, columns=columns, predictions=None), WHEN))
    assert (len(read.all("section")), len(read.all("a"))) == (2, 5)


def test_a_version_without_rows_has_a_page():
    assert "no rows were counted yet" in page(CANARY, WHEN)
    assert "no rows were counted yet" in page(replace(CANARY, columns=()), WHEN)
