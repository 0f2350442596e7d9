"""The version that logged rows are replayed through: loaded, asked and read with the server's own code.

A row goes the way of a request: it becomes a message, which the version's decoder checks and makes blocks of. So what a server
would refuse is refused here, with the same sentence.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.inference_pb2 import ModelInferRequest
from penstock.names import MATRIX_INPUT
from penstock.tensors import NUMPY_TYPES, datatype_of, to_raw
from penstock_server.errors import InvalidInputError, ModelFailedError, first_line
from penstock_server.models.artifact import Artifact
from penstock_server.models.classes import class_outputs
from penstock_server.models.loader import load
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.prediction.decode import decoder_of
from penstock_server.prediction.outputs import (
    Agreement,
    ClassReader,
    LabelOutput,
    OutputReader,
    agreement,
    output_reader,
    reader_of,
)
from penstock_server.python.settings import PythonSettings

BATCH_ROWS: Final = 1024

Columns = Mapping[str, NDArray[Any]]
"""Values by name, each [rows], or [rows, values] where a row has several; objects of type str for texts."""


class Answered(NamedTuple):
    """Logged rows that the candidate answered too.

    Attributes:
        at: their places among the rows that were given, int64 [N].
        compared: how the two answers compare.
        values: what was answered and what the candidate answers, a number of each row; None where one has no one number.
    """

    at: NDArray[np.int64]
    compared: Agreement
    values: tuple[NDArray[np.float64], NDArray[np.float64]] | None


class Unanswered(NamedTuple):
    """Logged rows that the candidate does not answer.

    Attributes:
        rows: how many.
        why: "refused" or "failed".
        reason: in one sentence, without the row's number.
    """

    rows: int
    why: str
    reason: str


class _Tensor(NamedTuple):
    """What becomes a tensor of a request.

    Attributes:
        values: of all rows.
        spec: what the graph takes; None for a column, which the version's decoder casts.
    """

    name: str
    values: NDArray[Any]
    spec: TensorInfo | None


class Candidate:
    """A loaded version.

    Args:
        artifact: its files.
        key: the model's name and the version's, for errors.
        allows_python: whether it may run Python.

    Raises:
        InvalidInputError: it cannot be loaded, or it is an ensemble, which other versions answer for.
    """

    def __init__(self, artifact: Artifact, key: tuple[str, str], *, allows_python: bool = False) -> None:
        if artifact.ensemble is not None:
            raise InvalidInputError("the version is an ensemble; replay a version of one of its steps")
        python = PythonSettings(allow=allows_python)
        self._servable, _ = load(key, artifact.path, threads=None, max_rows=BATCH_ROWS, python=python)
        self._decoder = decoder_of(self._servable)
        self._reader = reader_of(self._servable)
        self._inputs = [spec for spec in self._decoder.inputs if not spec.is_optional]
        self.classes = ClassNames(self._reader.classes, _names(artifact))

    def close(self) -> None:
        """Frees what the version holds."""
        self._servable.close()

    def takes_rows(self, inputs: Columns) -> bool:
        """Whether rows of these columns may be asked for together; else each is a whole request of its own."""
        return self._servable.is_batched and all(
            tensor.values.ndim == 1 if tensor.spec is None else _are_rows(tensor.spec, tensor.values)
            for tensor in self._tensors(inputs)
        )

    def lacking(self, names: Sequence[str]) -> list[str]:
        """Which of its columns are not among these."""
        if self._is_matrix(names):
            return []
        return [name for spec in self._inputs for name in spec.columns or (spec.name,) if name not in names]

    def answers(
        self, inputs: Columns, logged: Columns, rows: int, *, is_alone: bool = False
    ) -> Iterator[Answered | Unanswered]:
        """Asks for rows, and compares; what it refuses or fails on is found out by halves.

        Args:
            inputs: the columns of the log.
            logged: what was answered.
            rows: how many there are.
            is_alone: the one row holds a whole request, each of its columns a tensor of it.
        """
        yield from self._answers(inputs, logged, np.arange(rows), is_alone=is_alone)

    def scores(self, inputs: Columns, rows: int) -> NDArray[np.float64]:
        """The scores of rows, [rows, scores], such as probabilities by class.

        Raises:
            InvalidInputError: it refuses a row, or gives no scores.
            ModelFailedError: it fails on them.
        """
        decoded = self._decoder.decode(self._message(inputs, np.arange(rows), is_alone=False))
        outputs = self._servable.predict(decoded.blocks, decoded.rows, decoded.shapes, None)
        if outputs.refusal is not None:
            raise outputs.refusal.error(0, rows)
        if self._reader.score is None:
            raise InvalidInputError("the version gives no scores")
        return outputs.arrays[self._reader.score].reshape(rows, -1).astype(np.float64)

    def _answers(
        self, inputs: Columns, logged: Columns, at: NDArray[np.int64], *, is_alone: bool
    ) -> Iterator[Answered | Unanswered]:
        try:
            decoded = self._decoder.decode(self._message(inputs, at, is_alone=is_alone))
            outputs = self._servable.predict(decoded.blocks, decoded.rows, decoded.shapes, None, decoded.given)
        except (InvalidInputError, ModelFailedError) as error:
            if len(at) == 1:
                why = "refused" if isinstance(error, InvalidInputError) else "failed"
                yield Unanswered(1, why, first_line(error).replace(" in row 0", ""))
                return
            if reason := self._never_fits(inputs, is_alone=is_alone):
                yield Unanswered(len(at), "refused", reason)
                return
            half = len(at) // 2
            yield from self._answers(inputs, logged, at[:half], is_alone=is_alone)
            yield from self._answers(inputs, logged, at[half:], is_alone=is_alone)
            return
        arrays: list[NDArray[Any]] = outputs.arrays
        if outputs.refusal is not None:
            refused = outputs.refusal.found >= 0
            for reason, count in zip(*np.unique(outputs.refusal.found[refused], return_counts=True), strict=True):
                yield Unanswered(1 if is_alone else int(count), "refused", f"a row {outputs.refusal.reasons[reason]}")
            if is_alone:
                return
            at, arrays = at[~refused], [array[~refused] for array in arrays]
        if len(at):
            yield self._answered(at, {name: values[at] for name, values in logged.items()}, arrays, is_alone=is_alone)

    def _answered(
        self, at: NDArray[np.int64], logged: Columns, arrays: list[NDArray[Any]], *, is_alone: bool
    ) -> Answered:
        if is_alone:
            own = {spec.name: array for spec, array in zip(self._servable.outputs, arrays, strict=True)}
            logged = {name: _like(values[0], own.get(name)) for name, values in logged.items()}
        rows = max(map(len, arrays)) if is_alone else len(at)
        champion = self._reader_of_log(logged)
        given = list(logged.values())
        if champion.classes is None and (champion.score is None or self._reader.score is None):
            raise InvalidInputError(
                f"the log's outputs ({', '.join(logged) or 'none'}) and the version's "
                f"({', '.join(spec.name for spec in self._servable.outputs)}) have neither classes nor numbers to compare"
            )
        found = agreement(
            given,
            arrays,
            classes=(champion.classes, self._reader.classes),
            scores=(champion.score, self._reader.score),
            rows=rows,
        )
        if is_alone:
            classes = None if found.classes is None or rows != 1 else found.classes
            found = Agreement(np.array([found.agree.all()]), np.array([found.distance.max(initial=0.0)]), classes)
        values = _number(given, champion.score, len(at)), _number(arrays, self._reader.score, len(at))
        return Answered(at, found, None if values[0] is None or values[1] is None else (values[0], values[1]))

    def _reader_of_log(self, logged: Columns) -> OutputReader:
        """How to read what was answered: as the candidate's outputs of these names."""
        specs = [
            TensorInfo(name, datatype_of(values.dtype), (ANY, *values.shape[1:])) for name, values in logged.items()
        ]
        manifest = self._servable.artifact.manifest
        output = None if manifest is None else manifest.class_output
        return output_reader(specs, class_outputs(self._servable.model.file), output, self.classes.names)

    def _never_fits(self, inputs: Columns, *, is_alone: bool) -> str:
        """Why no row of these columns can be answered, such as a text in place of a number; "" if some might be."""
        if is_alone:
            return ""
        try:
            self._decoder.decode(self._message(inputs, np.empty(0, np.int64), is_alone=False))
        except InvalidInputError as error:
            return first_line(error)
        return ""

    def _message(self, inputs: Columns, at: NDArray[np.int64], *, is_alone: bool) -> ModelInferRequest:
        """The rows as a request of the Open Inference Protocol."""
        message = ModelInferRequest()
        for tensor in self._tensors(inputs):
            chosen = tensor.values[at][0] if is_alone else tensor.values[at]
            if tensor.spec is None:
                datatype, shape = datatype_of(chosen.dtype), [chosen.size] if is_alone else list(chosen.shape)
            else:
                chosen, datatype = _cast(tensor.spec, chosen), tensor.spec.datatype
                shape = _shape(tensor.spec, None if is_alone else len(at), chosen.size)
            message.inputs.add(name=tensor.name, datatype=datatype, shape=shape)
            message.raw_input_contents.append(to_raw(chosen, datatype))
        return message

    def _tensors(self, inputs: Columns) -> Iterator[_Tensor]:
        if self._is_matrix(list(inputs)):
            (values,) = inputs.values()
            yield _Tensor(
                self._inputs[0].name if len(self._inputs) == 1 else MATRIX_INPUT, values, self._decoder.matrix
            )
            return
        for spec in self._inputs:
            if spec.columns:
                yield from (_Tensor(name, inputs[name], None) for name in spec.columns)
            else:
                yield _Tensor(spec.name, inputs[spec.name], None if self._servable.pipeline is not None else spec)

    def _is_matrix(self, names: Sequence[str]) -> bool:
        """Whether the log holds the one matrix that the version takes, perhaps under another name, and not its columns."""
        return self._decoder.matrix is not None and len(names) == 1 and names[0] not in self._decoder.columns


class ClassNames:
    """The classes of a version by name: replies, logs and labels name them, and comparisons have their places.

    Args:
        reader: how its classes are read; None for a version without.
        names: as the publisher named them.
    """

    def __init__(self, reader: ClassReader | None, names: tuple[str, ...]) -> None:
        self.names = names
        self.are_known = reader is not None
        self._are_labels = isinstance(reader, LabelOutput)
        self._places = {name: place for place, name in enumerate(names)}

    def name(self, place: int) -> str:
        """A class as people know it."""
        if self._are_labels or not self.names:
            return str(place)
        return self.names[place] if place < len(self.names) else "another class"

    def place(self, label: object) -> int | None:
        """The place of the class that a label names; None if there is none."""
        text = str(label)
        if not self._are_labels and text in self._places:
            return self._places[text]
        if self._are_labels or not self.names:
            try:
                number = float(label if isinstance(label, bool) else text)  # "1.0" where a column has gaps
            except ValueError:
                return None
            return int(number) if number.is_integer() else None
        return None


def _names(artifact: Artifact) -> tuple[str, ...]:
    classes = None if artifact.manifest is None else artifact.manifest.classes
    return () if classes is None else tuple(map(str, classes))


def _are_rows(spec: TensorInfo, values: NDArray[Any]) -> bool:
    """Whether values, [rows] or [rows, values], are rows of a tensor."""
    tail = spec.shape[1:]
    return ANY in tail or prod(tail) == prod(values.shape[1:])


def _cast(spec: TensorInfo, values: NDArray[Any]) -> NDArray[Any]:
    """Logged values in the type that a graph takes: floats are rounded to it, anything else must be the same number."""
    if spec.datatype == "BYTES" or values.dtype.kind == "O":
        if (spec.datatype == "BYTES") != (values.dtype.kind == "O"):
            raise InvalidInputError(
                f"input {spec.name!r} was logged as {datatype_of(values.dtype)}, and the version takes {spec.datatype}"
            )
        return values
    wanted = NUMPY_TYPES[spec.datatype]
    with np.errstate(invalid="ignore", over="ignore"):
        cast = values.astype(wanted)
        is_rounding = wanted.kind == values.dtype.kind == "f"
        if not is_rounding and not np.array_equal(cast.astype(values.dtype), values):
            raise InvalidInputError(f"input {spec.name!r} was logged with values that {spec.datatype} cannot hold")
    return cast


def _shape(spec: TensorInfo, rows: int | None, size: int) -> list[int]:
    """The shape of a tensor with so many values; without rows, of a whole request's.

    Raises:
        InvalidInputError: several dimensions are free, and the log holds no shapes.
    """
    shape = list(spec.shape) if rows is None else [rows, *spec.shape[1:]]
    free = [at for at, dimension in enumerate(shape) if dimension == ANY]
    if len(free) > 1:
        raise InvalidInputError(
            f"input {spec.name!r} has the shape {list(spec.shape)}, and the log does not say what its free dimensions were"
        )
    if free:
        others = prod(dimension for dimension in shape if dimension != ANY)
        shape[free[0]] = size // others if others else 0
    return shape


def _like(values: NDArray[Any], own: NDArray[Any] | None) -> NDArray[Any]:
    """What was answered to a whole request, which the log holds flat, in the shape of the candidate's answer."""
    flat = values.reshape(-1)
    return flat.reshape(own.shape) if own is not None and own.size == flat.size else flat.reshape(1, -1)


def _number(arrays: Sequence[NDArray[Any]], output: int | None, rows: int) -> NDArray[np.float64] | None:
    """An output as a number of each row, float64 [rows]; None if it holds others."""
    if output is None or arrays[output].size != rows or arrays[output].dtype.kind not in "fiu":
        return None
    return arrays[output].reshape(-1).astype(np.float64)
