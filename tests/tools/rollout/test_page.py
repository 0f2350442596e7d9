from datetime import UTC, datetime
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.rollout.fetch import Served
from penstock_tools.rollout.page import WIDTH, Whisker, page, whisker
from tests.tools.drift.test_page import Reader
from tests.tools.rollout.served import BOTH, EXPERIMENT, MISMATCHED, NAME, ROLLOUT

WHEN = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)


def test_stages_gates_history_and_versions_are_there():
    read = Reader(page(BOTH, WHEN))
    here = [attributes for attributes in read.all("li") if attributes.get("class") == "here"]
    assert len(here) == 1
    texts = " ".join(text.strip() for text in read.texts)
    for words in ("Version 4: running", "shadow", "25 %", "errors", "5 canary", "10 %", "2026-05-01 12:30 UTC"):
        assert words in texts
    labels = [attributes["aria-label"] for attributes in read.all("svg")]
    # Two bars a gate, the intervals of two gates, those of version 4 and, without a label, the one of version 5.
    assert len(labels) == 3 * 2 + 2 + 6 + 1
    assert "the requests were shared as the weights say" in texts


def test_names_are_text_and_the_network_is_left_alone():
    text = page(BOTH, WHEN)
    read = Reader(text)
    assert not read.all("b")
    assert not read.all("script")
    assert not read.all("i")
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in read.all("meta")[1]["content"]


@pytest.mark.parametrize(
    ("served", "there", "missing"),
    [
        (Served(NAME, ROLLOUT, None), "History", "share the traffic"),
        (Served(NAME, None, EXPERIMENT), "share the traffic", "History"),
        (Served(NAME, None, MISMATCHED), "were not shared by the weights", "as the weights say"),
    ],
)
def test_only_what_is_known_is_shown(served, there, missing):
    text = page(served, WHEN)
    assert there in text
    assert missing not in text


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        (("ratio", 0.0, None), None),
        (("ratio", 0.5, 2.0), Whisker(WIDTH / 4, 3 * WIDTH / 4, WIDTH / 2)),
        (("ratio", 0.1, 9.0), Whisker(0.0, WIDTH, WIDTH / 2)),
        (("ratio", 1.0, None), Whisker(WIDTH / 2, WIDTH, WIDTH / 2)),
        (("difference", None, None), None),
        (("difference", -1.0, 2.0), Whisker(WIDTH / 4, WIDTH, WIDTH / 2)),
        (("share", 0.0, 0.1, 0.1), Whisker(0.0, WIDTH / 2, WIDTH / 2)),
        (("", 0.5, 1.0), None),
    ],
)
def test_intervals_are_placed(asked, drawn):
    found = whisker(*asked)
    assert found == (None if drawn is None else pytest.approx(drawn))


ENDS = st.one_of(st.none(), st.floats(-1e9, 1e9))


@given(st.sampled_from(["ratio", "difference", "share"]), ENDS, ENDS, st.floats(0.001, 0.999))
def test_nothing_is_drawn_outside(kind, one, other, margin):
    ends = sorted(abs(each) if kind != "difference" else each for each in (one, other) if each is not None)
    low, high = {0: (None, None), 1: (ends[0] if ends else None, None)}.get(len(ends), (*ends, None, None)[:2])
    if kind == "share":
        low, high = (None if each is None else min(1.0, each) for each in (low, high))
    found = whisker(kind, low, high, margin)
    assert found is None or (0 <= found.left <= found.right <= WIDTH and 0 <= found.mark <= WIDTH < inf)
