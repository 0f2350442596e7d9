"""Rows to warm a version up with, as the `model_warmup` of a configuration describes them.

A version that fails on them is refused, as Triton does.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.tensors import BF16, NUMPY_TYPES, element_bytes, join_bytes
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.models import version_folder
from penstock_server.models.rows import numbers
from penstock_server.models.servable import Servable
from penstock_server.models.signature import TensorInfo
from penstock_server.models.triton_config import NAME, TritonConfig
from penstock_server.models.version_folder import shown

FOLDER: Final = "warmup"
MAX_SAMPLES: Final = 100
MAX_RUNS: Final = 1000
MAX_BYTES: Final = 1 << 28
"""Of one input."""
_MAX_ROWS: Final = 1 << 20


def warm_up(servable: Servable, config: TritonConfig) -> None:
    """Runs each of the samples as often as it says.

    Raises:
        InvalidInputError: a sample is not what the version takes, or the version fails on it.
    """
    samples = config.message.model_warmup
    if len(samples) > MAX_SAMPLES:
        raise InvalidInputError(f"{NAME} has {len(samples):,} samples to warm up with, expected at most {MAX_SAMPLES}")
    for sample in samples:
        named = f"{NAME}: model_warmup {shown(sample.name)}"
        try:
            _run(servable, config, sample)
        except InvalidInputError as error:
            raise InvalidInputError(f"{named}: {error}") from error
        except ModelFailedError as error:
            raise InvalidInputError(f"{named}: the model fails on it") from error


def _run(servable: Servable, config: TritonConfig, sample: Any) -> None:
    runs, rows = max(1, sample.count), max(1, sample.batch_size)
    if runs > MAX_RUNS or rows > _MAX_ROWS:
        raise InvalidInputError(
            f"it has {rows:,} rows, {runs:,} times; expected at most {_MAX_ROWS:,} rows and {MAX_RUNS:,} times"
        )
    signature = servable.model.signature
    if set(sample.inputs) != {spec.name for spec in signature.inputs}:
        expected = ", ".join(shown(spec.name) for spec in signature.inputs)
        raise InvalidInputError(f"it has inputs {', '.join(map(shown, sorted(sample.inputs)))}; expected {expected}")
    shapes, blocks = [], []
    for spec in signature.inputs:
        given = sample.inputs[spec.name]
        shape = (rows, *given.dims) if config.has_rows else tuple(given.dims)
        if not spec.fits(shape):
            raise InvalidInputError(f"input {shown(spec.name)} has shape {list(shape)}, expected {list(spec.shape)}")
        elements = prod(shape)
        if elements * (element_bytes(spec.datatype) if spec.datatype != "BYTES" else 4) > MAX_BYTES:
            raise InvalidInputError(f"input {shown(spec.name)} takes more than {MAX_BYTES:,} bytes")
        shapes.append(shape)
        blocks.append(_contents(spec, given, elements, config.folder / FOLDER))
    for _ in range(runs):
        servable.predict(blocks, rows, None if servable.is_batched else shapes, None)


def _contents(spec: TensorInfo, given: Any, elements: int, folder: Path) -> bytes:
    """An input's raw contents; as float32 where it is BF16, as decoders give it."""
    match given.WhichOneof("input_data_type"):
        case "input_data_file":
            return _read(spec, folder, given.input_data_file, elements)
        case "random_data" if spec.datatype != "BYTES":
            random = np.random.default_rng(0)
            return bytes(numbers(spec.datatype, (elements,), "unit", random).tobytes())
        case "random_data" | "zero_data":
            if spec.datatype == "BYTES":
                return join_bytes([""] * elements)
            return bytes(elements * NUMPY_TYPES[spec.datatype].itemsize)
    raise InvalidInputError(f"input {shown(spec.name)} has no data, expected zero_data, random_data or input_data_file")


def _read(spec: TensorInfo, folder: Path, name: str, elements: int) -> bytes:
    content = version_folder.read_bytes(folder, name, max_bytes=MAX_BYTES)
    if spec.datatype == BF16:
        raise InvalidInputError(f"input {shown(spec.name)} is BF16, which no file can hold here; expected zero_data")
    if spec.datatype == "BYTES":
        found = len(list(_texts(content)))
        if found != elements:
            raise InvalidInputError(f"file {shown(name)} has {found} texts, expected {elements}")
        return content
    if len(content) != (expected := elements * element_bytes(spec.datatype)):
        raise InvalidInputError(f"file {shown(name)} has {len(content):,} bytes, expected {expected:,}")
    return content


def _texts(content: bytes) -> Iterator[bytes]:
    at = 0
    while at + 4 <= len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        if at + 4 + size > len(content):
            break
        yield content[at + 4 : at + 4 + size]
        at += 4 + size
    if at != len(content):
        raise InvalidInputError("a file of texts is torn: each has a length of 4 bytes in front of it")
