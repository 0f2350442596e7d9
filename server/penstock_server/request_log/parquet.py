"""Converts a segment of the request log to Parquet: a row for each row answered, with its columns by name.

Columns are `time` (UTC), `request_id`, `row` (within its request), `model`, `version`, `role`, `trace_id` (of the caller's
trace, "" for none) and `weight` (the share of requests that the version was to get then; null where the request named it), then
`input.NAME` for each raw column as the client sent it, and `output.NAME` for each output. Numbers of a feature pipeline are
float64. In text that is not UTF-8, wrong bytes are replaced. A tensor with several elements per row is a list. The compactor
calls it in its own process, since pyarrow takes as much memory as a worker.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import NUMPY_TYPES
from penstock_server.errors import InvalidInputError
from penstock_server.request_log.segment import LoggedRequest, LoggedTensor, SegmentHeader, read_segment

GROUP_BYTES: Final = 16 * 1024 * 1024
"""About the bytes held in memory at once: one row group of the file."""
REQUEST_BYTES: Final = 512
_BYTES: Final = "BYTES"
_FLOAT16: Final = np.dtype("float16")

INPUT: Final = "input."
OUTPUT: Final = "output."


def convert(segment: Path, target: Path) -> int:
    """Writes the whole requests of a segment to `target`, which appears when it is complete.

    Returns:
        The rows written; if there are none, there is no file.

    Raises:
        InvalidInputError: the file is not a segment, or its requests do not fit its header.
        OSError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    header, requests = read_segment(segment)
    fresh = target.with_name(f"{target.name}.new")
    rows, writer = 0, None
    try:
        for group in _groups(requests):
            table = table_of(header, group)
            if writer is None:
                target.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(fresh, table.schema, compression="zstd")
            writer.write_table(table)
            rows += table.num_rows
        if writer is not None:
            writer.close()
            fresh.rename(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return rows


def _groups(requests: Iterable[LoggedRequest]) -> Iterator[list[LoggedRequest]]:
    group: list[LoggedRequest] = []
    size = 0
    for request in requests:
        group.append(request)
        size += REQUEST_BYTES + sum(map(len, request.inputs)) + sum(map(len, request.outputs))
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def table_of(header: SegmentHeader, requests: Sequence[LoggedRequest]) -> Any:
    """The `pyarrow.Table` of some requests.

    Raises:
        InvalidInputError: a request's blocks do not fit the header.
    """
    import pyarrow as pa

    rows = [request.rows for request in requests]
    columns = _about(header, requests, rows)
    try:
        for prefix, tensors, side in ((INPUT, header.inputs, "inputs"), (OUTPUT, header.outputs, "outputs")):
            for at, tensor in enumerate(tensors):
                raws = [getattr(request, side)[at] for request in requests]
                columns |= {prefix + name: column for name, column in _columns(tensor, raws, rows)}
    except (ValueError, IndexError) as error:
        raise InvalidInputError(f"a request of {header.model!r} does not fit its segment's header: {error}") from error
    return pa.table(columns)


def _about(header: SegmentHeader, requests: Sequence[LoggedRequest], rows: Sequence[int]) -> dict[str, Any]:
    import pyarrow as pa

    def repeated(values: Iterable[str]) -> Any:
        # The same few texts in every row: each is stored once.
        return pa.array(np.repeat(np.array([*values], object), rows), pa.string()).dictionary_encode()

    micros = np.array([request.answered_s * 1e6 for request in requests]).astype("datetime64[us]")
    weights = np.array([request.weight for request in requests], object)
    return {
        "time": pa.array(np.repeat(micros, rows), pa.timestamp("us", tz="UTC")),
        "request_id": pa.array(
            np.repeat(np.array([request.request_id for request in requests], object), rows), pa.string()
        ),
        "row": pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in rows])),
        "model": repeated([header.model] * len(requests)),
        "version": repeated([header.version] * len(requests)),
        "role": repeated(request.role for request in requests),
        "trace_id": repeated(request.trace_id for request in requests),
        "weight": pa.array(np.repeat(weights, rows), pa.float64()),
    }


def _columns(tensor: LoggedTensor, raws: Sequence[bytes], rows: Sequence[int]) -> Iterator[tuple[str, Any]]:
    """Each of a block's columns by its name; `ValueError` when the contents do not fill the rows."""
    import pyarrow as pa

    width = len(tensor.names)
    if tensor.is_list:
        # Columns side by side in each row: of a request that ran alone, each is the list of its rows.
        blocks = [_elements(raw, tensor.datatype) for raw in raws]
        for at, name in enumerate(tensor.names):
            parts = [block[at::width] for block in blocks]
            yield name, pa.ListArray.from_arrays(_offsets(parts, rows), _joined(parts, tensor.datatype))
    elif tensor.datatype == _BYTES:
        texts = _filled(_elements(b"".join(raws), _BYTES), sum(rows) * width)
        for at, name in enumerate(tensor.names):
            yield name, pa.array(texts[at::width], pa.string())
    elif tensor.names:
        matrix = _elements(b"".join(raws), tensor.datatype).reshape(sum(rows), width)
        for at, name in enumerate(tensor.names):
            yield name, pa.array(np.ascontiguousarray(matrix[:, at]))


def _elements(raw: bytes, datatype: str) -> Any:
    """A block's elements: an array of numbers, or a list of texts."""
    if datatype == _BYTES:
        return [element.decode("utf-8", "replace") for element in _split(raw)]
    found = np.frombuffer(raw, NUMPY_TYPES[datatype])
    return found.astype(np.float32) if found.dtype == _FLOAT16 else found


def _split(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            raise ValueError("a text goes beyond its block")
        yield raw[at + 4 : end]
        at = end


def _filled(texts: list[str], count: int) -> list[str]:
    if len(texts) != count:
        raise ValueError(f"{len(texts)} texts for {count} places")
    return texts


def _offsets(parts: Sequence[Any], rows: Sequence[int]) -> NDArray[np.int32]:
    """Where each row's list begins and the last ends; a request's elements are shared evenly by its rows."""
    lengths = []
    for part, count in zip(parts, rows, strict=True):
        if count and len(part) % count:
            raise ValueError(f"{len(part)} elements for {count} rows")
        lengths += [len(part) // count] * count if count else []
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _joined(parts: Sequence[Any], datatype: str) -> Any:
    import pyarrow as pa

    if datatype == _BYTES:
        return pa.array([text for part in parts for text in part], pa.string())
    return pa.array(np.concatenate(parts))
