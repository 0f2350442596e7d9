import io
import math
from types import SimpleNamespace

import pytest

from penstock_server.errors import InvalidInputError
from penstock_tools.client_commands.rows import read

DATATYPES = {"age": "INT64", "fare": "FP32", "city": "BYTES", "vip": "BOOL"}


def written(tmp_path, content, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_csv_becomes_columns_of_the_models_datatypes(tmp_path):
    file = written(tmp_path, 'age,fare,city,vip\n41,1.5,"Oslo, N",true\n7,,,0\n')
    expected = {"age": [41, 7], "fare": [1.5, None], "city": ["Oslo, N", ""], "vip": [True, 0]}
    assert read(file, DATATYPES) == expected


@pytest.mark.parametrize("field", ["", "NA", "NaN", "nan", "null", " "])
def test_missing_numbers(tmp_path, field):
    assert read(written(tmp_path, f"fare,age\n{field},1\n"), DATATYPES)["fare"] == [None]


def test_digits_in_a_text_column_stay_text(tmp_path):
    assert read(written(tmp_path, "city\n007\n"), DATATYPES) == {"city": ["007"]}


def test_undeclared_columns_are_taken_for_numbers(tmp_path):
    assert read(written(tmp_path, "x0\n2\n-inf\n"), {}) == {"x0": [2.0, -math.inf]}


def test_large_integers_keep_every_digit(tmp_path):
    assert read(written(tmp_path, f"age\n{2**63 - 1}\n"), DATATYPES) == {"age": [2**63 - 1]}


def test_spreadsheets_mark_and_quoted_line_breaks(tmp_path):
    file = written(tmp_path, '\ufeffcity,age\r\n"two\nlines",1\r\n')
    assert read(file, DATATYPES) == {"city": ["two\nlines"], "age": [1]}


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
    ],
)
def test_csv_that_is_refused(tmp_path, content, message):
    with pytest.raises(InvalidInputError, match=message):
        read(written(tmp_path, content), DATATYPES)


@pytest.mark.parametrize("rows", ['[{"age": 1}]', '{"age": [1]}', "[[1, 2.5]]"])
def test_json_passes_as_it_is(tmp_path, rows):
    import json

    assert read(written(tmp_path, rows, "rows.json"), DATATYPES) == json.loads(rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not JSON"),
        ("[]", "no rows"),
        ("{}", "no rows"),
        ("3", "no rows"),
        (b"\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_is_refused(tmp_path, content, message):
    with pytest.raises(InvalidInputError, match=message):
        read(written(tmp_path, content, "rows.json"), DATATYPES)


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b'{"age": 1}')))
    assert read("-", DATATYPES) == {"age": 1}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"neither .json nor .csv"):
        read(str(tmp_path / "rows.parquet"), DATATYPES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match=r"rows.csv cannot be read: No such file"):
        read(str(tmp_path / "rows.csv"), DATATYPES)
