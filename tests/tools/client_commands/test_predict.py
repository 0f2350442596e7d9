import json

import numpy as np
import pytest

from penstock_client import ModelMetadata, Prediction, TensorSpec, Timing
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.client_commands import predict as asking


def prediction(rows=2, **outputs):
    made = {
        "label": np.array([f"class {at}" for at in range(rows)], object),
        "probabilities": np.tile(np.array([0.25, np.nan], np.float32), (rows, 1)),
        **outputs,
    }
    return Prediction(made, "fraud", "3", "canary", None, Timing(None, None, None, 0.0018))


@pytest.fixture
def asked(monkeypatch):
    """Puts a client in place that notes how it is called."""
    calls = {}

    class FakeClient:
        def __init__(self, server, *, timeout_s):
            calls["server"], calls["timeout_s"] = server, timeout_s

        def __enter__(self):
            return self

        def __exit__(self, *args):
            calls["closed"] = True

        def metadata(self, model, version):
            calls["metadata"] = (model, version)
            inputs = (TensorSpec("age", "INT64", (-1,)), TensorSpec("city", "BYTES", (-1,)))
            return ModelMetadata("fraud", ("3",), "onnx", inputs, ())

        def predict(self, model, rows, **options):
            calls["predict"] = (model, rows, options)
            return prediction()

    monkeypatch.setattr(asking, "Client", FakeClient)
    return calls


def test_rows_of_a_file_are_sent_in_the_declared_datatypes(asked, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("age,city\n41,7\n")
    asking.ask("fraud", str(path), server="models:8001", version="@canary", key="k", timeout_s=3)
    assert asked == {
        "server": "models:8001",
        "timeout_s": 3,
        "metadata": ("fraud", "@canary"),
        "predict": ("fraud", {"age": [41], "city": ["7"]}, {"version": "@canary", "routing_key": "k"}),
        "closed": True,
    }


@pytest.mark.parametrize("server", ["", "models:port"])
def test_an_address_that_is_none_is_a_sentence(server, tmp_path):
    with pytest.raises((InvalidInputError, UnavailableError)):
        asking.ask("fraud", str(tmp_path / "rows.csv"), server=server, timeout_s=0.2)


def test_a_timeout_out_of_range_is_a_sentence(tmp_path):
    with pytest.raises(InvalidInputError, match=r"the server cannot be asked: .*timeout"):
        asking.ask("fraud", str(tmp_path / "rows.csv"), server="models:8001", timeout_s=-1)


def test_json_holds_outputs_and_who_answered():
    answer = prediction(1, count=np.array([3]), raw=np.array([[b"\xff"]], object))
    assert json.loads(asking.as_json(answer)) == {
        "model": "fraud",
        "version": "3",
        "role": "canary",
        "outputs": {"label": ["class 0"], "probabilities": [[0.25, None]], "count": [3], "raw": [["\ufffd"]]},
    }


def test_the_table_has_a_row_a_row_and_who_answered(capsys):
    asking.show(prediction())
    text = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    assert rows == [["0", "class 0", "0.25, nan"], ["1", "class 1", "0.25, nan"]]
    assert text.rstrip().endswith("fraud version 3 (canary), 2 rows in 1.8 ms")


def test_a_long_answer_is_cut(capsys):
    asking.show(prediction(asking.SHOWN_ROWS + 5))
    text = capsys.readouterr().out
    assert f"class {asking.SHOWN_ROWS - 1}" in text
    assert f"class {asking.SHOWN_ROWS}" not in text
    assert "and 5 more rows" in text
