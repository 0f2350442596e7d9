"""What the mix serves, and requests whose only right answer is known: each row holds a number that no other row holds.

A model adds its version's number to the row. So an answer that belongs to another row, or to another version than the
one that it names, is seen.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.faults import graphs
from bench.faults.registry import FaultRegistry
from penstock import inference_pb2 as pb
from penstock.names import CANARY, CHAMPION, SHADOW
from penstock.tensors import join_bytes, split_bytes

SPACING: Final = 4096
"""Between two rows' numbers: more than any version's number."""
MAX_ROWS: Final = 200
ALIASED: Final = "aliased"
PROMOTED: Final = "promoted"
PROMOTED_SLOW: Final = "promoted-slow"
"""The two models of the folder that get new versions: the first runs on the reactor, the other on a thread."""
FRAGILE: Final = "fragile"
"""Runs on its own thread, and is asked marked rows only."""
ALIASED_VERSIONS: Final = 3
SETTINGS: Final = """\
poll_interval_s = 0.5

[batching.models.heavy]
queue_requests = 256
"""
"""The queue of the slow model is short, so that some requests are refused."""

_COLOURS: Final = ("red", "green", "blue")
_EXACT_FLOATS: Final = 2**24


@dataclass(frozen=True, slots=True)
class Question:
    """One request and its right answer.

    Attributes:
        request: without deadline, priority and id, which callers add.
        check: what is wrong with an answer; None if nothing is.
        is_marked: whether a row makes the model fail, so that no answer is right.
    """

    request: pb.ModelInferRequest
    check: Callable[[pb.ModelInferResponse], str | None]
    is_marked: bool = False


def write(repository: Path) -> None:
    """The models that come from a folder; `PROMOTED` gets further versions while the mix runs."""
    put_promoted(repository, 1)
    graphs.put(repository, "checked", 2, graphs.failing(2))
    graphs.put(repository, "heavy", 3, graphs.failing(3, side=graphs.THREADED_SIDE))
    graphs.put(repository, FRAGILE, 3, graphs.failing(3, side=graphs.THREADED_SIDE))
    graphs.put(repository, "text", 4, graphs.text())
    _write_features(repository)


def put_promoted(repository: Path, version: int) -> None:
    """Adds a version of both promoted models. Neither is quite cheap: while a batch of one runs, other threads do."""
    graphs.put(repository, PROMOTED, version, graphs.answering(version, side=graphs.INLINE_SIDE))
    graphs.put(repository, PROMOTED_SLOW, version, graphs.answering(version, side=graphs.THREADED_SIDE))


def register(registry: FaultRegistry) -> None:
    """The model whose aliases move; its versions are their numbers."""
    for version in range(1, ALIASED_VERSIONS + 1):
        assert registry.add(ALIASED, graphs.answering(version)) == str(version)
    for alias, number in ((CHAMPION, "1"), (CANARY, "2"), (SHADOW, "3")):
        registry.set_alias(ALIASED, alias, number)


MODELS: Final = frozenset({ALIASED, PROMOTED, PROMOTED_SLOW, "checked", "heavy", "text", "features"})
"""The models that any caller asks; `FRAGILE` is served beside them."""


class Questions:
    """Makes questions; no number is used twice. Belongs to one thread."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numbers = count(1)
        self._makers: dict[str, Callable[[int], Question]] = {
            ALIASED: lambda rows: self._doubles(ALIASED, rows),
            PROMOTED: lambda rows: self._doubles(PROMOTED, rows),
            PROMOTED_SLOW: lambda rows: self._doubles(PROMOTED_SLOW, rows),
            "checked": lambda rows: self._integers("checked", rows, is_marked=False),
            "heavy": lambda rows: self._integers("heavy", rows, is_marked=False),
            "text": self._texts,
            "features": self._features,
        }

    def of(self, model: str, rows: int) -> Question:
        """A question of this many rows to a model."""
        return self._makers[model](rows)

    def marked(self, model: str, rows: int) -> Question:
        """One that makes `checked`, `heavy` or `FRAGILE` fail."""
        return self._integers(model, rows, is_marked=True)

    def _take(self, rows: int) -> Iterator[int]:
        return (next(self._numbers) * SPACING for _ in range(rows))

    def _doubles(self, model: str, rows: int) -> Question:
        first = np.fromiter(self._take(rows), np.float64, rows)
        asked = np.column_stack([first, -first])
        return Question(
            request(model, "FP64", asked.shape, asked.tobytes()), lambda reply: offset_fault(reply, asked, "FP64")
        )

    def _integers(self, model: str, rows: int, *, is_marked: bool) -> Question:
        asked = np.fromiter(self._take(rows), np.int64, rows)[:, None]
        if is_marked:
            asked[self._random.randrange(rows)] = graphs.MARK
        return Question(
            request(model, "INT64", asked.shape, asked.tobytes()),
            lambda reply: offset_fault(reply, asked, "INT64"),
            is_marked,
        )

    def _texts(self, rows: int) -> Question:
        asked = [f"{number} {'é' * self._random.randrange(12)}".encode() for number in self._take(rows)]
        contents = join_bytes(asked)
        return Question(request("text", "BYTES", (rows, 1), contents), lambda reply: texts_fault(reply, asked))

    def _features(self, rows: int) -> Question:
        # float32 is exact below 2^24 only: the number is told in two columns.
        numbers = np.fromiter(self._take(rows), np.int64, rows)
        high, low = (numbers // _EXACT_FLOATS).astype(np.float32), (numbers % _EXACT_FLOATS).astype(np.float32)
        codes = np.array([self._random.randrange(len(_COLOURS)) for _ in range(rows)])
        expected = np.column_stack([high, low, np.eye(len(_COLOURS) + 1, dtype=np.float32)[codes]])
        asked = pb.ModelInferRequest(model_name="features")
        for name, values in (("high", high), ("low", low)):
            asked.inputs.add(name=name, datatype="FP32", shape=[rows])
            asked.raw_input_contents.append(values.tobytes())
        asked.inputs.add(name="colour", datatype="BYTES", shape=[rows])
        asked.raw_input_contents.append(join_bytes([_COLOURS[code].encode() for code in codes]))
        return Question(asked, lambda reply: equal_fault(reply, expected))


def request(model: str, datatype: str, shape: tuple[int, ...], contents: bytes) -> pb.ModelInferRequest:
    """A request of one tensor `x`."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[contents])


def offset_fault(reply: pb.ModelInferResponse, asked: NDArray[Any], datatype: str) -> str | None:
    """What is wrong with an answer of a model that adds its version's number."""
    fault = _shape_fault(reply, datatype, asked.shape)
    if fault is not None:
        return fault
    got = np.frombuffer(reply.raw_output_contents[0], asked.dtype).reshape(asked.shape)
    offsets = got - asked
    if (offsets != int(reply.model_version)).any():
        at = int(np.flatnonzero((offsets != int(reply.model_version)).any(axis=1))[0])
        return (
            f"{reply.model_name} version {reply.model_version}: row {at} of {len(asked)} asked {asked[at].tolist()}, "
            f"expected {(asked[at] + int(reply.model_version)).tolist()}, got {got[at].tolist()}"
        )
    return None


def texts_fault(reply: pb.ModelInferResponse, asked: list[bytes]) -> str | None:
    """What is wrong with an answer of the model that gives its strings back."""
    fault = _shape_fault(reply, "BYTES", (len(asked), 1))
    if fault is not None:
        return fault
    got = [bytes(each) for each in split_bytes(reply.raw_output_contents[0], len(asked))]
    return None if got == asked else f"text: expected {asked[:3]} and so on, got {got[:3]}"


def equal_fault(reply: pb.ModelInferResponse, expected: NDArray[np.float32]) -> str | None:
    """What is wrong with an answer that must be this matrix."""
    fault = _shape_fault(reply, "FP32", expected.shape)
    if fault is not None:
        return fault
    got = np.frombuffer(reply.raw_output_contents[0], np.float32).reshape(expected.shape)
    if (got == expected).all():
        return None
    at = int(np.flatnonzero((got != expected).any(axis=1))[0])
    return f"features: row {at} of {len(got)}: expected {expected[at].tolist()}, got {got[at].tolist()}"


def _shape_fault(reply: pb.ModelInferResponse, datatype: str, shape: tuple[int, ...]) -> str | None:
    if len(reply.outputs) != 1 or len(reply.raw_output_contents) != 1:
        return f"{reply.model_name}: expected one output, got {len(reply.outputs)}"
    output = reply.outputs[0]
    if (output.name, output.datatype, tuple(output.shape)) != ("y", datatype, shape):
        return (
            f"{reply.model_name}: expected output 'y' of {datatype} {list(shape)}, "
            f"got {output.name!r} of {output.datatype} {list(output.shape)}"
        )
    return None


def _write_features(repository: Path) -> None:
    from penstock_server.drift.fit import fit_baseline
    from penstock_server.features.spec.spec import (
        Categories,
        FeatureSpec,
        Join,
        NumberColumn,
        StringColumn,
        Take,
        Text,
    )
    from penstock_server.features.spec.steps import Fill, OneHot
    from penstock_server.models import artifact

    numbers, width = ("high", "low"), len(_COLOURS) + 1
    one_hot = OneHot((tuple(range(width)),), (width,))
    spec = FeatureSpec(
        (*map(NumberColumn, numbers), StringColumn("colour")),
        Join((Take(numbers, (Fill((0.0,)),)), Text("colour", Categories(_COLOURS), (one_hot,)))),
    )
    rows = 1000
    sample: dict[str, Any] = {name: np.arange(rows, dtype=np.float64) for name in numbers}
    sample["colour"] = [_COLOURS[at % len(_COLOURS)].encode() for at in range(rows)]
    folder = graphs.put(repository, "features", 5, graphs.matrix(len(numbers) + width))
    artifact.write(folder, features=spec, baseline=fit_baseline(spec, sample))
