import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.request_log.segment import (
    FORMAT,
    MAX_COLUMNS,
    LoggedRequest,
    LoggedTensor,
    SegmentHeader,
    framed,
    header_of,
    read_segment,
)

TEXT = st.text(max_size=8)
TENSORS = st.lists(st.builds(LoggedTensor, st.lists(TEXT, max_size=3).map(tuple), TEXT, st.booleans()), max_size=3).map(
    tuple
)
HEADERS = st.builds(SegmentHeader, TEXT, TEXT, TENSORS, TENSORS)
BLOCKS = st.lists(st.binary(max_size=12), max_size=3).map(tuple)
REQUESTS = st.lists(
    st.builds(LoggedRequest, st.floats(0, 2e9), TEXT, TEXT, st.integers(0, 99), BLOCKS, BLOCKS), max_size=5
)
HEADER = SegmentHeader("m", "1", (LoggedTensor(("x",), "FP64"),), ())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segments") / "one.segment"


def written(path: Path, header: SegmentHeader, requests: list[LoggedRequest]) -> bytes:
    content = FORMAT + b"".join(map(framed, [header, *requests]))
    path.write_bytes(content)
    return content


@given(header=HEADERS, requests=REQUESTS)
def test_requests_come_back(path: Path, header: SegmentHeader, requests: list[LoggedRequest]) -> None:
    written(path, header, requests)
    found, read = read_segment(path)
    assert (found, list(read)) == (header, requests)


def test_a_request_of_an_earlier_release_has_neither_trace_nor_weight(path: Path) -> None:
    written(path, HEADER, [])
    body = msgspec.msgpack.encode([1.5, "id", "champion", 1, [], []])
    with path.open("ab") as file:
        file.write(struct.pack("<II", len(body), zlib.crc32(body)) + body)
    _, read = read_segment(path)
    assert [*read] == [LoggedRequest(1.5, "id", "champion", 1, (), ())]


@given(requests=REQUESTS, data=st.data())
def test_a_torn_segment_gives_what_is_whole(path: Path, requests: list[LoggedRequest], data: Any) -> None:
    content = written(path, HEADER, requests)
    least = len(FORMAT) + len(framed(HEADER))
    cut = data.draw(st.integers(least, len(content)))
    path.write_bytes(content[:cut])
    _, read = read_segment(path)
    whole, end = [], least
    for request in requests:
        end += len(framed(request))
        whole += [request] * (end <= cut)
    assert list(read) == whole


@given(requests=REQUESTS.filter(bool), data=st.data())
def test_a_damaged_frame_ends_the_segment(path: Path, requests: list[LoggedRequest], data: Any) -> None:
    content = bytearray(written(path, HEADER, requests))
    at = data.draw(st.integers(len(FORMAT) + len(framed(HEADER)), len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    _, read = read_segment(path)
    found = list(read)
    assert found == requests[: len(found)]
    assert len(found) < len(requests)


@pytest.mark.parametrize("content", [b"", b"PAR1", FORMAT, FORMAT + framed(HEADER)[:-1], FORMAT + b"\xff" * 40])
def test_what_is_no_segment_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="is not a segment of a request log, or its header is cut short"):
        read_segment(path)


def test_a_header_of_endless_columns_is_refused(path: Path) -> None:
    header = SegmentHeader("m", "1", (LoggedTensor(("x",) * MAX_COLUMNS, "FP64"),), ())
    written(path, header, [])
    assert read_segment(path)[0] == header
    with pytest.raises(ValueError, match="expected at most"):
        SegmentHeader("m", "1", (*header.inputs, *HEADER.inputs), ())


@pytest.mark.parametrize(
    ("row_shape", "is_list"), [((), False), ((1,), False), ((1, 1), False), ((3,), True), ((-1,), True), ((1, 2), True)]
)
def test_several_elements_per_row_are_a_list(row_shape: tuple[int, ...], is_list: bool) -> None:
    header = header_of(("m", "1"), [(("x",), "FP32", row_shape, False)], [])
    assert header == SegmentHeader("m", "1", (LoggedTensor(("x",), "FP32", is_list),), ())


def test_a_version_whose_requests_run_alone_logs_lists() -> None:
    header = header_of(("m", "1"), [(("x",), "FP32", (), True)], [(("y",), "FP64", (1,), True)])
    assert [tensor.is_list for tensor in (*header.inputs, *header.outputs)] == [True, True]
