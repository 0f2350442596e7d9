"""Reads what a version answered for each row, a class and numbers, counts it, and compares the answers of two versions.

Classes are counted where the manifest or the graph's operators (`models.classes`) say that it is a classifier: labels, or
the largest of a score per class. All other outputs are scores; types and shapes alone say nothing. Which numbers are counted
beside the classes, the drift baseline says.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.cells import AnswerCells, NumberCells
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.classes import ClassOutputs, class_outputs
from penstock_server.models.servable import Outputs, Servable
from penstock_server.models.signature import TensorInfo

MAX_SCORES: Final = 64
_FEW_COLUMNS: Final = 8
TOLERANCE: Final = 1e-3
"""Scores within this distance agree, when there are no classes to compare."""

Arrays = Sequence[NDArray[Any]] | Mapping[int, NDArray[Any]]
"""Outputs by their places."""


class LabelOutput(NamedTuple):
    """Reads classes from an output that holds their labels."""

    output: int

    def __call__(self, outputs: Arrays) -> NDArray[np.int64]:
        return outputs[self.output].reshape(-1).astype(np.int64, copy=False)


class NamedLabels(NamedTuple):
    """Reads classes from an output that holds their names; a name that is not known is one more class."""

    output: int
    places: dict[str, int]

    def __call__(self, outputs: Arrays) -> NDArray[np.int64]:
        return np.array([self.place_of(label) for label in outputs[self.output].reshape(-1)], np.int64)

    def place_of(self, label: object) -> int:
        return self.places.get(str(label), len(self.places))


class Largest(NamedTuple):
    """Reads classes from an output with a score for each: the largest, and the first of equal ones."""

    output: int

    def __call__(self, outputs: Arrays) -> NDArray[np.int64]:
        scores = outputs[self.output]
        return scores.argmax(axis=1) if scores.size else np.empty(0, np.int64)


ClassReader = LabelOutput | NamedLabels | Largest
"""Gives the label of each row, int64 [N]; an index into the version's class names when labels are strings."""


class Number(NamedTuple):
    """Reads a number of each row from an output: the largest of the row's, NaN if one of these is.

    Attributes:
        output: the output.
        place: the number's among the answers that are counted.
    """

    output: int
    place: int

    def __call__(self, outputs: Arrays) -> NDArray[Any]:
        """The numbers, floats [N]."""
        array = outputs[self.output]
        if array.size != len(array):
            array = _largest(array.reshape(len(array), -1))
        return array.reshape(-1) if array.dtype.kind == "f" else array.reshape(-1).astype(np.float64)


def _largest(rows: NDArray[Any]) -> NDArray[Any]:
    """The largest of each row, NaN if one is; where rows are short, column by column takes a twentieth of the time."""
    if rows.shape[1] > _FEW_COLUMNS:
        return np.asarray(rows.max(axis=1))
    largest = rows[:, 0]
    for column in range(1, rows.shape[1]):
        largest = np.maximum(largest, rows[:, column])
    return largest


class OutputReader(NamedTuple):
    """How to read a version's outputs: classes, the output that holds scores, and the numbers that are counted for drift."""

    classes: ClassReader | None
    score: int | None
    numbers: tuple[Number, ...] = ()

    def predicted(self, outputs: Arrays) -> NDArray[Any] | None:
        """The label of each row's class, else its score, [N]; None where there is neither."""
        if self.classes is not None:
            return self.classes(outputs)
        return None if self.score is None else outputs[self.score].reshape(-1)


def reader_of(servable: Servable) -> OutputReader:
    """The reader of a version's outputs, by its manifest, its graph's operators, and its drift baseline."""
    manifest, baseline = servable.artifact.manifest, servable.artifact.baseline
    output = None if manifest is None else manifest.class_output
    names = () if manifest is None or manifest.classes is None else tuple(str(label) for label in manifest.classes)
    reader = output_reader(servable.outputs, class_outputs(servable.model.file), output, names)
    answers = () if baseline is None else baseline.cells.answers
    return reader._replace(numbers=number_readers(servable.outputs, reader, answers))


def number_readers(
    specs: Sequence[TensorInfo], reader: OutputReader, answers: Sequence[AnswerCells]
) -> tuple[Number, ...]:
    """Reads the numbers among these answers, of outputs that `models.watched_answers` has found fit."""
    at = {spec.name: place for place, spec in enumerate(specs)}
    score = reader.score if reader.classes is None else None
    places = [score if answer.output is None else at[answer.output] for answer in answers]
    return tuple(
        Number(output, place)
        for place, (output, answer) in enumerate(zip(places, answers, strict=True))
        if output is not None and isinstance(answer.cells, NumberCells)
    )


def output_reader(
    specs: Sequence[TensorInfo], found: ClassOutputs, output: str | None = None, names: Sequence[str] = ()
) -> OutputReader:
    """How to read these outputs.

    Args:
        specs: the version's outputs.
        found: those that a classifier in the graph gives.
        output: the one that holds labels, if the publisher named it.
        names: the classes, if the publisher named them.
    """
    classes = class_reader(specs, found, output, names)
    return OutputReader(classes, score_output(specs, has_classes=classes is not None))


def class_reader(
    specs: Sequence[TensorInfo], found: ClassOutputs, output: str | None = None, names: Sequence[str] = ()
) -> ClassReader | None:
    """Reads the predicted class from a version's outputs, or None when they hold no class; as `output_reader`."""
    for at, spec in enumerate(specs):
        if spec.name == output or (output is None and spec.name in found.labels and _can_be_labels(spec)):
            if spec.datatype == "BYTES":
                return NamedLabels(at, {name: place for place, name in enumerate(names)}) if names else None
            return LabelOutput(at)
    for at, spec in enumerate(specs):
        if _can_be_scores(spec) and (spec.name in found.scores or spec.shape[1] == len(names)):
            return Largest(at)
    return None


def score_output(specs: Sequence[TensorInfo], *, has_classes: bool = False) -> int | None:
    """The output that holds scores, by which two versions' answers are compared: the first of floats, else of numbers."""
    kinds = [_FLOATS] if has_classes else [_FLOATS, _INTEGERS]
    return next((at for kind in kinds for at, spec in enumerate(specs) if spec.datatype in kind), None)


_FLOATS: Final = frozenset({"FP32", "FP64", "FP16", "BF16"})
_INTEGERS: Final = frozenset({f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)})


def _can_be_labels(spec: TensorInfo) -> bool:
    return spec.datatype in {"INT64", "INT32"} and (len(spec.shape) == 1 or spec.shape[1:] == (1,))


def _can_be_scores(spec: TensorInfo) -> bool:
    return spec.datatype in {"FP32", "FP64"} and len(spec.shape) == 2 and 2 <= spec.shape[1] <= MAX_SCORES


def count_answers(
    report: Recorder, reader: OutputReader, outputs: Outputs, *, is_batched: bool, is_drift: bool = True
) -> None:
    """Counts what was answered for the rows of a run that are not refused; the classes alone, unless `is_drift`."""
    given: Arrays = outputs.arrays
    if outputs.refusal is not None and is_batched:
        kept = outputs.refusal.found < 0
        given = [array[kept] for array in outputs.arrays]
    count_arrays(report, reader, given, is_drift=is_drift)


def count_arrays(report: Recorder, reader: OutputReader, outputs: Arrays, *, is_drift: bool) -> None:
    """The same of all rows."""
    if reader.classes is not None:
        report.classes(reader.classes(outputs), is_drift=is_drift)
    if is_drift:
        for number in reader.numbers:
            report.numbers(number.place, number(outputs))


class Agreement(NamedTuple):
    """How two versions' answers to the same N rows compare.

    Attributes:
        agree: bool [N], whether the row got the same class; without classes, whether its scores are within `TOLERANCE`.
        distance: float64 [N], the largest absolute difference over a row's scores. NaN equals NaN, and scores of different
            shapes are infinitely far apart.
        classes: the champion's class of each row and the shadow's, int64 [N] each; None where one of them has no classes, or
            has not one class for each row.
    """

    agree: NDArray[np.bool_]
    distance: NDArray[np.float64]
    classes: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None


def agreement(
    champion: Arrays,
    shadow: Arrays,
    *,
    classes: tuple[ClassReader | None, ClassReader | None],
    scores: tuple[int | None, int | None],
    rows: int,
) -> Agreement:
    """Compares two versions' answers row by row.

    Args:
        champion: the champion's outputs.
        shadow: the shadow's.
        classes: the class reader of each.
        scores: the output that holds the scores of each.
        rows: N.
    """
    distance = _distance(_pick(champion, scores[0]), _pick(shadow, scores[1]), rows)
    if classes[0] is None or classes[1] is None:
        return Agreement(distance <= TOLERANCE, distance)
    left, right = classes[0](champion), classes[1](shadow)
    if left.shape == right.shape != (rows,):
        # A request that ran alone may have one answer for all its rows.
        return Agreement(np.full(rows, np.array_equal(left, right)), distance)
    return Agreement(left == right, distance, (left, right) if left.shape == right.shape else None)


def _pick(outputs: Arrays, at: int | None) -> NDArray[Any] | None:
    return None if at is None else outputs[at]


def _distance(left: NDArray[Any] | None, right: NDArray[Any] | None, rows: int) -> NDArray[np.float64]:
    if left is None or right is None:
        return np.zeros(rows)
    if left.size != right.size:
        return np.full(rows, np.inf)
    parts = rows if rows and left.size % rows == 0 else 1
    a, b = left.reshape(parts, -1).astype(np.float64), right.reshape(parts, -1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    largest: NDArray[np.float64] = np.nan_to_num(gap, nan=np.inf, posinf=np.inf).max(axis=1, initial=0.0)
    return largest if parts == rows else np.full(rows, largest[0])
