"""Rows to try a version on: those of golden requests, rows drawn from the drift baseline, and rows that are made up.

`independence` runs them in different company. A row is one piece of raw bytes per block of the version, so that rows are
joined as the executor joins requests.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import NUMPY_TYPES, join_bytes, split_bytes, to_raw
from penstock_server.drift.baseline import Baseline, ColumnBaseline, StringBaseline
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.encoders import Categories
from penstock_server.features.spec.spec import texts
from penstock_server.models.servable import Blocks, Servable, Shapes

Row = tuple[bytes, ...]

KINDS: Final = ("unit", "counts", "wide", "positive")
"""The ranges of made-up numbers. Zeros prove nothing, and a graph may answer alike to all numbers of one range."""
MAX_BYTES: Final = 1 << 24
"""What rows may take together: of images, fewer are tried."""
_WORDS: Final = ("a", "b", "yes", "no", "0", "1", "2", "other", "")
_MISSING_SHARE: Final = 0.05


def cut(servable: Servable, blocks: Blocks, rows: int, shapes: Shapes | None) -> list[Row]:
    """The single rows of blocks that hold `rows` of them."""
    pieces: list[list[bytes]] = []
    for at, (block, is_text) in enumerate(zip(blocks, _are_texts(servable), strict=True)):
        if is_text:
            width = 1 if shapes is None else prod(shapes[at][1:])
            elements = split_bytes(block, rows * width)
            pieces.append([join_bytes(elements[row * width : (row + 1) * width]) for row in range(rows)])
        else:
            size = len(block) // rows
            pieces.append([block[row * size : (row + 1) * size] for row in range(rows)])
    return list(zip(*pieces, strict=True))


def blocks_of(
    servable: Servable, arrays: Mapping[str, NDArray[Any]], rows: int
) -> tuple[list[bytes], list[tuple[int, ...]] | None]:
    """Blocks of a version, and their shapes if it takes tensors of its graph, from arrays by input or column.

    Raises:
        KeyError: one is missing.
        ValueError: one holds another number of values, or others than its type takes.
    """
    if servable.pipeline is not None:
        pipeline = servable.pipeline
        columns = [np.asarray(arrays[name], np.float64).reshape(rows) for name in pipeline.numbers]
        matrix = np.stack(columns, axis=1) if columns else np.empty((rows, 0))
        times = (np.asarray(arrays[name], np.int64).reshape(rows).tobytes() for name in pipeline.times)
        strings = (to_raw(arrays[name].reshape(rows)) for name in pipeline.strings)
        return [matrix.tobytes(), *times, *strings], None
    specs = servable.model.signature.inputs
    typed = [_cast(arrays[spec.name], spec.datatype) for spec in specs]
    return [to_raw(array) for array in typed], [array.shape for array in typed]


def _cast(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    return array if datatype == "BYTES" else array.astype(NUMPY_TYPES[datatype], copy=False)


def joined(rows: Sequence[Row]) -> tuple[bytes, ...]:
    """The blocks of these rows together."""
    return tuple(map(b"".join, zip(*rows, strict=True)))


def from_baseline(pipeline: Pipeline, baseline: Baseline, count: int, random: np.random.Generator) -> list[Row]:
    """Rows whose values are drawn from those that training saw, each column for itself."""
    columns = {each.name: each for each in baseline.columns}
    drawn = {name: _drawn(columns[name], count, random) for name in pipeline.columns}
    drawn |= {name: _nanoseconds(drawn[name]) for name in pipeline.times}
    return _rows_of(pipeline, drawn, count)


def made_up(
    servable: Servable, kind: str, count: int, random: np.random.Generator, categories: Mapping[str, Sequence[str]]
) -> list[Row]:
    """Rows with numbers of one of `KINDS`, and with the categories that the version knows.

    A plain graph's strings are among `categories`, by input, where the graph names any.
    """
    if servable.pipeline is not None:
        pipeline = servable.pipeline
        known = {
            each.column: each.encode.values
            for each in texts(pipeline.spec.features)
            if isinstance(each.encode, Categories)
        }
        columns = {name: numbers("FP64", (count,), kind, random) for name in pipeline.numbers}
        columns |= {name: _times((count,), kind, random) for name in pipeline.times}
        columns |= {name: _strings(known.get(name, ()), (count,), random) for name in pipeline.strings}
        return _rows_of(pipeline, columns, count)
    inputs = servable.model.signature.inputs
    row_bytes = sum(8 * prod(spec.shape[1:]) for spec in inputs)
    count = max(2, min(count, MAX_BYTES // max(1, row_bytes)))
    blocks = []
    for spec in inputs:
        shape = (count, *spec.shape[1:])
        is_text = spec.datatype == "BYTES"
        array = (
            _strings(categories.get(spec.name, ()), shape, random)
            if is_text
            else numbers(spec.datatype, shape, kind, random)
        )
        blocks.append([to_raw(array[row]) for row in range(count)])
    return list(zip(*blocks, strict=True))


def _rows_of(pipeline: Pipeline, columns: Mapping[str, NDArray[Any]], count: int) -> list[Row]:
    """Rows by raw column in the form of a pipeline's blocks: all numbers side by side, then each time, then each string."""
    numbers = np.empty((count, len(pipeline.numbers)))
    for at, name in enumerate(pipeline.numbers):
        numbers[:, at] = columns[name]
    strings = [[join_bytes([value]) for value in columns[name]] for name in pipeline.strings]
    times = [[value.tobytes() for value in columns[name].astype(np.int64)] for name in pipeline.times]
    return list(zip((row.tobytes() for row in numbers), *times, *strings, strict=True))


def _are_texts(servable: Servable) -> list[bool]:
    if servable.pipeline is not None:
        pipeline = servable.pipeline
        return [False, *(False for _ in pipeline.times), *(True for _ in pipeline.strings)]
    return [spec.datatype == "BYTES" for spec in servable.model.signature.inputs]


def _drawn(column: ColumnBaseline, count: int, random: np.random.Generator) -> NDArray[Any]:
    if isinstance(column, StringBaseline):
        values: NDArray[Any] = np.array(column.watched or ("",), object)
        # The first have a bin of their own with their rows; the others are as frequent as the least of these.
        weights = np.ones(len(values))
        weights[: len(column.counts)] = np.maximum(column.counts, 1)
        drawn = values[random.choice(len(values), count, p=weights / weights.sum())]
        missing: Any = ""
    else:
        ends = [end for end in (column.smallest, column.largest) if end is not None]
        edges = np.array([*ends, *column.edges] or [0.0])
        low, high = edges.min(), edges.max()
        # Half of them stand where training rows did, close to the quantiles, and half between.
        drawn = np.where(random.random(count) < 0.5, random.choice(edges, count), random.uniform(low, high, count))
        missing = np.nan
    if column.missing:
        drawn[random.random(count) < _MISSING_SHARE] = missing
    return drawn


def numbers(datatype: str, shape: tuple[int, ...], kind: str, random: np.random.Generator) -> NDArray[Any]:
    """Numbers of one of `KINDS`."""
    dtype = NUMPY_TYPES[datatype]
    if dtype.kind == "f":
        match kind:
            case "unit":
                made = random.standard_normal(shape)
            case "counts":
                made = random.integers(0, 10, shape).astype(np.float64)
            case "wide":
                made = random.standard_normal(shape) * 1000
            case _:
                made = np.exp(random.uniform(np.log(1e-3), np.log(1e3), shape))
        return made.astype(dtype)
    most = 2 if dtype.kind == "b" else {"unit": 2, "counts": 10, "wide": 128, "positive": 100}[kind]
    return random.integers(0, most, shape).astype(dtype)


def _times(shape: tuple[int, ...], kind: str, random: np.random.Generator) -> NDArray[np.int64]:
    """Times from 1970 to 2069, whose parts of the calendar differ; "counts" are whole days."""
    seconds = random.integers(0, 100 * 365 * 86_400, shape)
    return (seconds // 86_400 * 86_400 if kind == "counts" else seconds) * 1_000_000_000


def _nanoseconds(seconds: NDArray[Any]) -> NDArray[np.int64]:
    """Drawn seconds since 1970 as times; NaN is a missing one."""
    limit = np.iinfo(np.int64).max // 1_000_000_000
    whole = np.clip(np.nan_to_num(seconds), -limit, limit) * 1e9
    return np.where(np.isnan(seconds), np.iinfo(np.int64).min, whole.astype(np.int64))


def _strings(known: Sequence[str], shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    return np.array(known or _WORDS, object)[random.integers(0, len(known or _WORDS), shape)]
