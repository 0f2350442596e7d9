import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from penstock_client import ModelMetadata, Prediction, TensorSpec, Timing
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.client_commands import connection, predict


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
        def __init__(self, server, *, timeout_s, tls, headers):
            calls["server"], calls["timeout_s"], calls["tls"] = server, timeout_s, tls

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

    monkeypatch.setattr(connection, "Client", FakeClient)
    return calls


def test_rows_of_a_file_are_sent_in_the_declared_datatypes(asked, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("age,city\n41,7\n")
    predict.predict("fraud", str(path), server="models:8001", version="@canary", key="k", timeout_s=3)
    assert asked == {
        "server": "models:8001",
        "timeout_s": 3,
        "tls": None,
        "metadata": ("fraud", "@canary"),
        "predict": (
            "fraud",
            {"age": [41], "city": ["7"]},
            {"version": "@canary", "routing_key": "k", "extra": "ignore", "explain": False},
        ),
        "closed": True,
    }


@pytest.mark.parametrize("server", ["", "models:port"])
def test_an_address_that_is_none_is_a_sentence(server, tmp_path):
    with pytest.raises((InvalidInputError, UnavailableError)):
        predict.predict("fraud", str(tmp_path / "rows.csv"), server=server, timeout_s=0.2)


def test_a_timeout_out_of_range_is_a_sentence(tmp_path):
    with pytest.raises(InvalidInputError, match=r"--server is 'models:8001', --timeout -1: .*timeout"):
        predict.predict("fraud", str(tmp_path / "rows.csv"), server="models:8001", timeout_s=-1)


def test_json_holds_outputs_and_who_answered():
    answer = prediction(1, count=np.array([3]), raw=np.array([[b"\xff"]], object))
    assert json.loads(predict.as_json(answer)) == {
        "model": "fraud",
        "version": "3",
        "role": "canary",
        "outputs": {"label": ["class 0"], "probabilities": [[0.25, None]], "count": [3], "raw": [["\ufffd"]]},
    }


def test_the_table_has_a_row_a_row_and_who_answered(capsys):
    predict.show(prediction())
    text = capsys.readouterr().out
    assert text.splitlines() == [
        "row  label    probabilities",
        "0    class 0  0.25, nan",
        "1    class 1  0.25, nan",
        "fraud version 3 (canary), 2 rows in 1.8 ms",
    ]


def test_an_output_cannot_write_to_the_terminal(capsys):
    predict.show(prediction(1, label=np.array(["\x1b[2J\n" + "x" * 1000], object)))
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3
    assert max(map(len, text.splitlines())) < 250


def test_a_long_answer_is_cut(capsys):
    predict.show(prediction(predict.SHOWN_ROWS + 5))
    text = capsys.readouterr().out
    assert f"class {predict.SHOWN_ROWS - 1}" in text
    assert f"class {predict.SHOWN_ROWS}" not in text
    assert "and 5 more rows" in text


DATATYPES = {"age": "INT64", "fare": "FP32", "city": "BYTES", "vip": "BOOL"}.get


def written(tmp_path, content, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_csv_becomes_columns_of_the_models_datatypes(tmp_path):
    file = written(tmp_path, 'age,fare,city,vip\n41,1.5,"Oslo, N",true\n7,,,0\n')
    expected = {"age": [41, 7], "fare": [1.5, None], "city": ["Oslo, N", ""], "vip": [True, 0]}
    assert predict.read_rows(file, DATATYPES) == expected


@pytest.mark.parametrize("field", ["", "NA", "NaN", "nan", "null", " "])
def test_missing_numbers(tmp_path, field):
    assert predict.read_rows(written(tmp_path, f"fare,age\n{field},1\n"), DATATYPES)["fare"] == [None]


def test_digits_in_a_text_column_stay_text(tmp_path):
    assert predict.read_rows(written(tmp_path, "city\n007\n"), DATATYPES) == {"city": ["007"]}


def test_columns_of_a_server_that_declares_none_are_numbers(tmp_path):
    assert predict.read_rows(written(tmp_path, "x0\n2\n-inf\n"), lambda _: "FP64") == {"x0": [2.0, -math.inf]}


def test_columns_that_the_model_does_not_take_stay_text(tmp_path):
    assert predict.read_rows(written(tmp_path, "age,name\n1,Bob\n"), DATATYPES) == {"age": [1], "name": ["Bob"]}


@pytest.mark.parametrize(
    ("inputs", "column", "datatype"),
    [
        ((TensorSpec("age", "INT64", (-1, 1)), TensorSpec("t", "BYTES", (-1,))), "t", "BYTES"),
        ((TensorSpec("age", "INT64", (-1, 1)),), "name", None),
        ((TensorSpec("X", "FP32", (-1, 2), columns=("a", "b")),), "b", "FP32"),
        ((TensorSpec("X", "FP32", (-1, 2), columns=("a", "b")),), "c", None),
        ((TensorSpec("X", "BYTES", (-1, 2)),), "anything", "BYTES"),
        ((), "anything", "FP64"),
    ],
)
def test_the_datatype_of_a_column_is_the_models(inputs, column, datatype):
    assert predict._datatype_of(ModelMetadata("m", ("1",), "onnx", inputs, ()))(column) == datatype


@pytest.mark.parametrize(
    ("field", "datatype", "value"),
    [
        (str(2**53 + 1), "FP64", 2**53 + 1),
        ("16777217", "FP32", 2**24 + 1),
        ("1.0", "INT64", 1),
        ("9007199254740993.0", "INT64", 2**53 + 1),
        ("1e3", "INT32", 1000),
        ("-0.5", "FP32", -0.5),
        (".5", "FP64", 0.5),
        ("Infinity", "FP64", math.inf),
        ("1.0", "BOOL", 1.0),
    ],
)
def test_a_number_is_read_exactly(tmp_path, field, datatype, value):
    assert predict.read_rows(written(tmp_path, f"a\n{field}\n"), lambda _: datatype) == {"a": [value]}


@pytest.mark.parametrize(
    ("field", "datatype"),
    [
        ("1_000", "FP64"),
        ("1_000", "INT64"),
        ("٣", "INT64"),
        ("0x10", "INT64"),
        ("1e400", "FP64"),
        ("1,5", "FP64"),
        ("1e400", "INT64"),
        ("inf", "INT64"),
        ("true", "FP32"),
        ("12%", "FP64"),
    ],
)
def test_what_only_resembles_a_number_is_refused(tmp_path, field, datatype):
    with pytest.raises(InvalidInputError, match=f"line 2: column 'a' takes {datatype}, got"):
        predict.read_rows(written(tmp_path, f'a\n"{field}"\n'), lambda _: datatype)


def test_large_integers_keep_every_digit(tmp_path):
    assert predict.read_rows(written(tmp_path, f"age\n{2**63 - 1}\n"), DATATYPES) == {"age": [2**63 - 1]}


def test_spreadsheets_mark_and_quoted_line_breaks(tmp_path):
    file = written(tmp_path, '\ufeffcity,age\r\n"two\nlines",1\r\n')
    assert predict.read_rows(file, DATATYPES) == {"city": ["two\nlines"], "age": [1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "0 rows below its header"),
        ("age\n", "0 rows below its header"),
        ("age,city\n1\n", "line 2 has 1 fields; the header has 2"),
        ("age\n1\ntwelve\n", "line 3: column 'age' takes INT64, got 'twelve'"),
        ("age\n1.5\n", "column 'age' takes INT64, got '1.5'"),
        ("age,age\n1,2\n", "column 'age' twice"),
        (b"city\n\xff\n", "not UTF-8, at byte 5"),
        ("age;city\n1;Oslo\n", "separates its fields by semicolons; expected commas"),
        ("age\tcity\n1\tOslo\n", "separates its fields by tabs"),
        ('city\n"Oslo\n', "line 2 is not CSV: unexpected end of data"),
        ('city\n"Os"lo\n', "line 2 is not CSV"),
        ("age,city\n\n\n1\n", "line 4 has 1 fields"),
        ('city,age\n"two\nlines",x\n', "line 3: column 'age' takes INT64, got 'x'"),
        (b"PK\x03\x04\x00\x00", "is not CSV: there is a zero byte at character 4"),
    ],
)
def test_csv_that_is_refused(tmp_path, content, message):
    with pytest.raises(InvalidInputError, match=message):
        predict.read_rows(written(tmp_path, content), DATATYPES)


@pytest.mark.parametrize("rows", ['[{"age": 1}]', '{"age": [1]}', "[[1, 2.5]]"])
def test_json_passes_as_it_is(tmp_path, rows):
    assert predict.read_rows(written(tmp_path, rows, "rows.json"), DATATYPES) == json.loads(rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not JSON"),
        ("[]", "no rows"),
        ("{}", "no rows"),
        ("3", "no rows"),
        (b"\xff", "not UTF-8"),
        ('{"a": [1], "a": [2]}', "an object has 'a' twice"),
        ('{"a": [1e400]}', "1e400 is beyond all floats"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_is_refused(tmp_path, content, message):
    with pytest.raises(InvalidInputError, match=message):
        predict.read_rows(written(tmp_path, content, "rows.json"), DATATYPES)


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b'{"age": 1}')))
    assert predict.read_rows("-", DATATYPES) == {"age": 1}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"neither .json nor .csv"):
        predict.read_rows(str(tmp_path / "rows.parquet"), DATATYPES)


def test_a_directory_is_no_file(tmp_path):
    (tmp_path / "rows.csv").mkdir()
    with pytest.raises(InvalidInputError, match=r"rows.csv cannot be read: Is a directory"):
        predict.read_rows(str(tmp_path / "rows.csv"), DATATYPES)


def test_json_of_a_spreadsheet_may_begin_with_its_mark(tmp_path):
    assert predict.read_rows(written(tmp_path, "\ufeff[[1]]", "rows.json"), DATATYPES) == [[1]]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match=r"rows.csv cannot be read: No such file"):
        predict.read_rows(str(tmp_path / "rows.csv"), DATATYPES)
