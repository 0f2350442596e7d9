import xml.etree.ElementTree as ET

from penstock_tools.demo.loop_picture import draw
from penstock_tools.demo.year import Event, Year


def test_the_picture_shows_who_answered_how_well_and_what_happened() -> None:
    year = Year(4)
    for part in range(4):
        for version, rows in (("1", 100 - 30 * part), ("2", 30 * part)):
            year.rows[part, version] = rows
            year.right[part, version] = int(0.8 * rows)
    year.events += [Event(1.0, 5, "retraining called for: <drift> & more"), Event(2.0, 6, "version 2: " + "x" * 400)]
    text = draw(year, 4.0)
    root = ET.fromstring(text)  # well formed, whatever events say
    shown = "".join(root.itertext())
    assert "version 1" in shown
    assert "version 2" in shown
    assert "retraining called for: <drift> & more" in shown
    assert "x" * 136 + "..." in shown
    assert "80 %" in shown


def test_a_year_without_an_answer_is_drawn_too() -> None:
    assert ET.fromstring(draw(Year(3), 4.0)).tag.endswith("svg")


def test_accuracy_is_over_all_versions_of_a_part() -> None:
    year = Year(2)
    year.rows.update({(0, "1"): 10, (0, "2"): 30})
    year.right.update({(0, "1"): 10, (0, "2"): 20})
    assert (year.accuracy(0), year.accuracy(1)) == (0.75, None)
