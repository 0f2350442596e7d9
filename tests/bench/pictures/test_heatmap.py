import xml.etree.ElementTree as ET
from dataclasses import replace

from bench.pictures import heatmap
from tests.tools.drift.drift_records import CARRIER, DELAY, SILENT

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*columns_by_month, trained=(1,)):
    return ET.fromstring(heatmap.drawing(list(enumerate(columns_by_month, start=1)), trained))


def test_a_cell_for_each_feature_and_month():
    calm = replace(DELAY, jensen_shannon=0.05, drifted=False)
    root = drawn([calm, CARRIER, SILENT], [DELAY, CARRIER, SILENT], [calm, CARRIER, SILENT])
    cells = list(root.iter(f"{SVG}rect"))
    assert [rect.get("class") for rect in cells].count("empty") == 9
    depths = [float(rect.get("fill-opacity")) for rect in cells if rect.get("class") == "heat"]
    assert len(depths) == 6  # the column with too few rows has no distance
    assert depths[1] == max(depths)
    assert len(list(root.iter(f"{SVG}circle"))) == 1 + 1  # the drifted cell, and the legend
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts.index("delay") < texts.index("carrier") < texts.index("gust")
    assert {"Jan", "Feb", "Mar", "0.31", "trained on"} <= set(texts)
    assert root.find(f"{SVG}desc").text == "Feb: delay drifted. Mar: none drifted."


def test_features_are_sorted_by_their_largest_distance_after_training():
    far = replace(CARRIER, jensen_shannon=0.9)
    assert heatmap.ranked([(1, [DELAY, far]), (2, [DELAY, CARRIER])], [1]) == [0, 1]
    assert heatmap.ranked([(1, [CARRIER, DELAY])], [1]) == [1, 0]
    assert heatmap.ranked([], []) == []


def test_names_are_escaped():
    hostile = replace(DELAY, name='</svg><script>"&')
    root = drawn([hostile])
    assert '</svg><script>"&' in [text.text for text in root.iter(f"{SVG}text")]
