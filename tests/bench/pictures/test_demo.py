"""The picture of the demo's output shows the run, and nothing that only a reader of the real output needs."""

from xml.etree import ElementTree as ET

from bench.pictures.demo import picture, shown

OUTPUT = """Two models are trained:
  ✓ fitting the trees <fast> 0.6 s
 22.8 s  flights version 2 is now champion

From /metrics:
  penstock_requests_total 16066.0

│ requests │ 30,000 │

To try next:
  penstock demo --keep
"""


def test_parts_that_are_left_out_end_at_an_empty_line() -> None:
    assert [line for line in shown(OUTPUT.split("\n")) if line] == [
        "Two models are trained:",
        "  ✓ fitting the trees <fast> 0.6 s",
        " 22.8 s  flights version 2 is now champion",
        "│ requests │ 30,000 │",
    ]


def test_the_picture_holds_the_lines_as_text() -> None:
    root = ET.fromstring(picture(OUTPUT))
    text = "".join(root.itertext()).replace("\xa0", " ")
    assert "fitting the trees <fast>" in text
    assert "flights version 2 is now champion" in text
    assert "penstock_requests_total" not in text
    assert "--keep" not in text
