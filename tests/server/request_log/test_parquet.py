import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from penstock.tensors import to_raw
from penstock_server.errors import InvalidInputError
from penstock_server.request_log import parquet as request_log_parquet
from penstock_server.request_log.parquet import convert
from penstock_server.request_log.segment import FORMAT, LoggedRequest, LoggedTensor, SegmentHeader, framed

pq = pytest.importorskip("pyarrow.parquet")

HEADER = SegmentHeader(
    "fares", "3",
    (LoggedTensor(("age", "delay"), "FP64"), LoggedTensor(("city",), "BYTES"), LoggedTensor((), "FP64")),
    (LoggedTensor(("label",), "INT64"), LoggedTensor(("probabilities",), "FP32", is_list=True)),
)  # fmt: skip


def request(at: float, name: str, ages: list[float], cities: list[Any], labels: list[int]) -> LoggedRequest:
    matrix = np.array([[age, age / 2] for age in ages]).reshape(len(ages), 2)
    scores = np.array([[label, 1 - label] for label in labels], np.float32)
    inputs = (to_raw(matrix), to_raw(np.array(cities, object)), b"")
    return LoggedRequest(at, name, "champion", len(ages), inputs, (to_raw(np.array(labels)), to_raw(scores)))


def segment(path: Path, header: SegmentHeader, *requests: LoggedRequest) -> Path:
    path.write_bytes(FORMAT + b"".join(map(framed, [header, *requests])))
    return path


@pytest.mark.long
def test_a_worker_does_not_pay_for_parquet() -> None:
    script = "import sys, penstock_server.worker, penstock_server.app; print('pyarrow' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_the_weight_is_null_where_the_request_named_the_version(tmp_path: Path) -> None:
    drawn = msgspec.structs.replace(request(1.0, "a", [1.0, 2.0], ["x", "y"], [0, 1]), weight=0.25)
    source = segment(tmp_path / "a", HEADER, drawn, request(2.0, "b", [3.0], ["z"], [1]))
    convert(source, tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet")["weight"].to_pylist() == [0.25, 0.25, None]


@pytest.mark.parametrize("group_bytes", [1, 16 * 1024 * 1024])
def test_a_row_for_each_row(tmp_path: Path, group_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log_parquet, "GROUP_BYTES", group_bytes)
    source = segment(
        tmp_path / "a.segment", HEADER,
        request(1.5, "r1", [20.0, float("nan")], ["Oslo", b"\xff"], [0, 1]),
        request(2.0, "", [], [], []),
        request(2.5, "r3", [np.inf], [""], [1]),
    )  # fmt: skip
    target = tmp_path / "deep" / "a.parquet"
    assert convert(source, target) == 3
    rows = pq.read_table(target).to_pylist()
    assert [(row["request_id"], row["row"], row["input.city"]) for row in rows] == [
        ("r1", 0, "Oslo"),
        ("r1", 1, "\ufffd"),
        ("r3", 0, ""),
    ]
    assert {(row["model"], row["version"], row["role"]) for row in rows} == {("fares", "3", "champion")}
    assert [row["time"] for row in rows] == [datetime.fromtimestamp(at, UTC) for at in (1.5, 1.5, 2.5)]
    np.testing.assert_array_equal([row["input.age"] for row in rows], [20, np.nan, np.inf])
    np.testing.assert_array_equal([row["input.delay"] for row in rows], [10, np.nan, np.inf])
    assert [(row["output.label"], row["output.probabilities"]) for row in rows] == [
        (0, [0, 1]),
        (1, [1, 0]),
        (1, [1, 0]),
    ]
    assert [path.name for path in target.parent.iterdir()] == ["a.parquet"]


def test_columns_of_a_request_that_ran_alone_are_lists(tmp_path: Path) -> None:
    inputs = (LoggedTensor(("age", "delay"), "FP64", is_list=True), LoggedTensor(("city",), "BYTES", is_list=True))
    header = SegmentHeader("m", "1", inputs, (LoggedTensor((), "FP64", is_list=True),))
    logged = [
        LoggedRequest(1.0, "", "", 1, (np.array(matrix).tobytes(), to_raw(np.array(cities, object))), (b"",))
        for matrix, cities in (([[1.0, 2.0], [3.0, 4.0]], ["Oslo", ""]), ([[5.0, 6.0]], ["Rome"]))
    ]
    target = tmp_path / "a.parquet"
    assert convert(segment(tmp_path / "a.segment", header, *logged), target) == 2
    rows = pq.read_table(target).to_pylist()
    assert [(row["input.age"], row["input.delay"], row["input.city"]) for row in rows] == [
        ([1.0, 3.0], [2.0, 4.0], ["Oslo", ""]),
        ([5.0], [6.0], ["Rome"]),
    ]


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("INT32", [-5, 5]),
        ("FP16", [0.5, 2.0]),
        ("FP32", [0.5, 2.0]),
        ("UINT64", [0, 2**64 - 1]),
        ("BYTES", ["a", ""]),
    ],
)
@pytest.mark.parametrize("is_list", [False, True])
def test_every_datatype(tmp_path: Path, datatype: str, values: list[Any], is_list: bool) -> None:
    header = SegmentHeader("m", "1", (LoggedTensor(("x",), datatype, is_list),), ())
    numpy_types = request_log_parquet.NUMPY_TYPES
    array = np.array(values, object if datatype == "BYTES" else numpy_types[datatype])
    source = segment(tmp_path / "a", header, LoggedRequest(0.0, "", "", 2, (to_raw(array),), ()))
    assert convert(source, tmp_path / "a.parquet") == 2
    column = pq.read_table(tmp_path / "a.parquet")["input.x"].to_pylist()
    assert column == [[value] for value in values] if is_list else column == values


def test_lists_may_differ_in_length(tmp_path: Path) -> None:
    header = SegmentHeader("m", "1", (LoggedTensor(("x",), "INT64", is_list=True),), ())
    requests = [LoggedRequest(0.0, "", "", 1, (np.arange(size).tobytes(),), ()) for size in (0, 3, 1)]
    convert(segment(tmp_path / "a", header, *requests), tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet")["input.x"].to_pylist() == [[], [0, 1, 2], [0]]


def test_without_rows_there_is_no_file(tmp_path: Path) -> None:
    assert convert(segment(tmp_path / "a", HEADER), tmp_path / "b" / "a.parquet") == 0
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "inputs",
    [(bytes(8), b"", b""), (bytes(16), b"\1\0\0\0", b""), (bytes(16), b"", b""), (), (bytes(16), b"\xff" * 4, b"")],
)
def test_a_request_that_is_not_what_its_header_says(tmp_path: Path, inputs: tuple[bytes, ...]) -> None:
    damaged = LoggedRequest(0.0, "", "", 1, inputs, (bytes(8), bytes(8)))
    source = segment(tmp_path / "a", HEADER, damaged)
    with pytest.raises(InvalidInputError, match="a request of 'fares' does not fit its segment's header"):
        convert(source, tmp_path / "b" / "a.parquet")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [source]
