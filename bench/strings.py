"""Rows of numbers and strings for the feature pipeline, two numbers to a string: each string one-hot over 20 categories.

`encoded` computes the features with numpy alone, as the oracle for the server's answers; `models` trains its trees on them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock import inference_pb2 as pb
from penstock.tensors import join_bytes


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of a pipeline's columns."""

    numbers: tuple[str, ...]
    strings: tuple[str, ...]


def _columns(numbers: int, strings: int) -> Columns:
    return Columns(
        tuple(f"number{index}" for index in range(numbers)), tuple(f"string{index}" for index in range(strings))
    )


NAME: Final = "strings"
PIPELINES: Final = {NAME: _columns(10, 5), "strings-50": _columns(33, 17), "strings-200": _columns(133, 67)}
NUMBERS: Final = PIPELINES[NAME].numbers
STRINGS: Final = PIPELINES[NAME].strings
CATEGORIES: Final = tuple(f"category-{index:02}" for index in range(20))
_UNSEEN_SHARE: Final = 0.02
_MISSING_SHARE: Final = 0.02
_MEAN, _SCALE = 0.5, 2.0

Table: TypeAlias = dict[str, NDArray[np.float64] | list[bytes]]
"""Raw columns by name, all of one length; NaN and unseen strings among them."""


def table(rows: int, *, seed: int, model: str = NAME) -> Table:
    """Raw rows."""
    random = np.random.default_rng(seed)
    columns: Table = {}
    for name in PIPELINES[model].numbers:
        values = random.normal(_MEAN, _SCALE, rows).astype(np.float32).astype(np.float64)
        values[random.random(rows) < _MISSING_SHARE] = np.nan
        columns[name] = values
    for name in PIPELINES[model].strings:
        codes = random.integers(len(CATEGORIES), size=rows)
        unseen = random.random(rows) < _UNSEEN_SHARE
        columns[name] = [b"new" if new else CATEGORIES[code].encode() for code, new in zip(codes, unseen, strict=True)]
    return columns


def encoded(columns: Table, model: str = NAME) -> NDArray[np.float32]:
    """The features, float32 [rows, numbers + 21 * strings]."""
    known = {category.encode(): code for code, category in enumerate(CATEGORIES)}
    one_hot = np.eye(len(CATEGORIES) + 1)
    parts = [
        ((np.nan_to_num(np.asarray(columns[name]), nan=_MEAN) - _MEAN) / _SCALE)[:, None]
        for name in PIPELINES[model].numbers
    ]
    parts += [
        one_hot[[known.get(bytes(value), len(known)) for value in columns[name]]] for name in PIPELINES[model].strings
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def describe(folder: Path, model: str = NAME) -> None:
    """Adds the feature specification and the drift baseline to a model's folder, as publishing does."""
    from penstock_server.drift.fit import fit_baseline
    from penstock_server.features.spec.spec import (
        Categories,
        Column,
        FeatureSpec,
        Join,
        NumberColumn,
        StringColumn,
        Take,
        Text,
    )
    from penstock_server.features.spec.steps import Fill, OneHot, Standardise
    from penstock_server.models import artifact

    width = len(CATEGORIES) + 1
    one_hot = OneHot((tuple(range(width)),), (width,))
    names = PIPELINES[model]
    numbers = Take(names.numbers, (Fill((_MEAN,)), Standardise((_MEAN,), (_SCALE,))))
    strings = [Text(name, Categories(CATEGORIES), (one_hot,)) for name in names.strings]
    columns: tuple[Column, ...] = (*map(NumberColumn, names.numbers), *map(StringColumn, names.strings))
    spec = FeatureSpec(columns, Join((numbers, *strings)))
    # The load repeats its requests, which are to be counted all the same.
    baseline = msgspec.structs.replace(fit_baseline(spec, table(2000, seed=0, model=model)), repeats=None)
    artifact.write(folder, features=spec, baseline=baseline)


def request(columns: Table, rows: slice, model: str = NAME) -> pb.ModelInferRequest:
    """A request of these rows, with one tensor per column."""
    message = pb.ModelInferRequest(model_name=model)
    for name in PIPELINES[model].numbers:
        values = np.asarray(columns[name][rows], np.float32)
        message.inputs.add(name=name, datatype="FP32", shape=[len(values)])
        message.raw_input_contents.append(values.tobytes())
    for name in PIPELINES[model].strings:
        texts = columns[name][rows]
        message.inputs.add(name=name, datatype="BYTES", shape=[len(texts)])
        message.raw_input_contents.append(join_bytes(texts))
    return message
