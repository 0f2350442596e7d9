import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.pictures import heatmap, months
from penstock_server.drift.fit import fit_baseline
from penstock_server.features.fit import fit, number, string
from penstock_server.features.pipeline import Pipeline
from penstock_tools.demo import flights
from tests.tools.drift.drift_records import CARRIER, DELAY, SILENT

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def frame():
    """A year of 800 flights a month; from June on it is warm."""
    rng = np.random.default_rng(0)
    month = np.repeat(np.arange(1, 13), 800)
    columns = {name: rng.normal(size=len(month)) for name in flights.NUMBERS}
    columns |= {name: rng.choice(np.array(["a", "b", ""], object), len(month)) for name in flights.STRINGS}
    columns["temp"] += 2.0 * (month >= 6)
    return pd.DataFrame({**columns, "month": month})


def test_the_month_in_which_a_feature_drifts(frame):
    found = months.measure(frame)
    assert [(each.number, each.rows) for each in found] == [(number, 800) for number in range(1, 13)]
    for each in found:
        drifted = [column.name for column in each.columns if column.drifted]
        assert drifted == (["temp"] if each.number >= 6 else [])


def test_batches_count_what_the_table_holds(frame):
    table = flights.table(flights.by_months(frame, [1]))
    spec = fit([number("temp").fill("median"), string("origin").ordinal()], table)
    baseline = fit_baseline(spec, table)
    counts = months.counted(Pipeline(spec, baseline.cells_for(spec)), table)
    np.testing.assert_array_equal(counts.cells, baseline.reference)


def drawn(*columns_by_month, trained=(1,)):
    return ET.fromstring(heatmap.drawing(list(enumerate(columns_by_month, start=1)), trained))


def test_a_cell_for_each_feature_and_month():
    calm = replace(DELAY, jensen_shannon=0.05, drifted=False)
    root = drawn([calm, CARRIER, SILENT], [DELAY, CARRIER, SILENT], [calm, CARRIER, SILENT])
    cells = list(root.iter(f"{SVG}rect"))
    assert [rect.get("class") for rect in cells].count("empty") == 9
    depths = [float(rect.get("fill-opacity")) for rect in cells if rect.get("class") == "heat"]
    assert len(depths) == 6  # nothing is said of the one with too few rows
    assert depths[1] == max(depths)
    assert len(list(root.iter(f"{SVG}circle"))) == 1 + 1  # the drifted cell, and the legend
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts.index("delay") < texts.index("carrier") < texts.index("gust")
    assert {"Jan", "Feb", "Mar", "0.31", "learned from"} <= set(texts)
    assert root.find(f"{SVG}desc").text == "Feb: delay drifted. Mar: none drifted."


def test_features_stand_by_their_largest_distance_after_training():
    far = replace(CARRIER, jensen_shannon=0.9)
    assert heatmap.ranked([(1, [DELAY, far]), (2, [DELAY, CARRIER])], [1]) == [0, 1]
    assert heatmap.ranked([(1, [CARRIER, DELAY])], [1]) == [1, 0]
    assert heatmap.ranked([], []) == []


def test_names_are_escaped():
    hostile = replace(DELAY, name='</svg><script>"&')
    root = drawn([hostile])
    assert '</svg><script>"&' in [text.text for text in root.iter(f"{SVG}text")]
