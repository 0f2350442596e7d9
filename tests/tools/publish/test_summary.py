import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, StringColumn, Take
from penstock_tools.publish import summary
from penstock_tools.publish.pipeline import prepare, publish_pipeline


def cells(text):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]


def test_each_output_column_has_the_statistics_of_the_sample(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    features = FeatureSpec((NumberColumn("[a]"), NumberColumn("b"), StringColumn("unread")), Take(("[a]", "b")))
    summary.show_columns(features, np.array([[1.0, np.nan], [np.nan, np.nan], [4.0, np.nan]], np.float32))
    assert cells(capsys.readouterr().out) == [
        ["[a]", "number"],
        ["b", "number"],
        ["unread", "text"],
        ["0", "[a]", "1", "2.5", "1", "4", "1"],
        ["1", "b", "nan", "", "", "", "3"],
    ]


def test_wide_features_are_cut_and_counted(capsys):
    names = tuple(f"c{at}" for at in range(summary.SHOWN + 3))
    summary.show_columns(FeatureSpec(tuple(map(NumberColumn, names)), Take(names)), None)
    out = capsys.readouterr().out
    assert cells(out)[-1] == [str(summary.SHOWN - 1), f"c{summary.SHOWN - 1}"]
    assert "and 3 more" in out


def test_it_says_why_the_narrow_datatype_was_not_taken(capsys):
    rows = pd.DataFrame({"at": 1.7e9 + np.arange(50.0), "x": np.arange(50.0) % 7})
    summary.show(prepare(LinearRegression().fit(rows, rows["at"] - 1.7e9), rows), {"r2": 0.5})
    shown = " ".join(capsys.readouterr().out.split())
    assert "features out 2, FP64" in shown
    assert "why not FP32 the ONNX graph differs from the pipeline by" in shown
    assert shown.endswith("r2 0.5000")


def test_a_notebook_shows_what_was_registered(registry):
    rows = pd.DataFrame({"<b>at</b>": np.arange(50.0), "x": np.arange(50.0) % 7})
    pipeline = LinearRegression().fit(rows, rows["x"])
    published = publish_pipeline("trips", pipeline, rows, labels=rows["x"], alias="champion", report=lambda _: None)
    assert repr(published) == "<trips version 1, champion>"
    shown = published._repr_html_()
    assert "<strong>trips version 1 is registered and is now champion</strong>" in shown
    assert '&lt;b&gt;at&lt;/b&gt;</td><td style="text-align: left">number' in shown
    assert 'r2</th><td style="text-align: left">1.0000' in shown
    assert "requests are batched by rows" in shown
    assert "2 features of the model" in shown
