"""What a published version accepts beyond the rows of the sample: the pipeline is asked, and the specification says it.

A sample rarely holds a missing value in each column, an infinity, a number beyond float32, or a value that training never
saw; requests do. Each of these is put into each raw column, one at a time, and both sides are asked: the pipeline, and the
specification with its graph. Where both answer alike, requests with such values are answered. Where the pipeline refuses,
or the compiled version answers otherwise, the specification refuses the row's request and names the column: no answer is
better than a wrong one. scikit-learn refuses NaN and infinities in each estimator of its own accord, so what is computed
on the way (a logarithm of a negative number) is refused where it would reach the model.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock_server.errors import ModelFailedError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import steps
from penstock_server.features.spec.blocks import Block, Join
from penstock_server.features.spec.spec import Column, FeatureSpec, NumberColumn, StringColumn
from penstock_server.models.onnx_model import OnnxModel
from penstock_tools.sklearn_compiler.columns import then
from penstock_tools.sklearn_compiler.forms import UNSEEN, Missing
from penstock_tools.sklearn_compiler.outcomes import Outcome, outcomes, taken
from penstock_tools.sklearn_compiler.sample import NOT_A_TIME, RawColumn, Sample, spread

TOLERANCE: Final = 1e-5
"""How far an answer may be off, as a share of the row's largest value; that of `proof`."""
MAX_COLUMNS: Final = 64
"""Columns that are asked about; of more, some spread over all."""
_MOST_S: Final = 10.0
_CALLS_PER_COLUMN: Final = 8
"""A slow pipeline that refuses what it is asked about takes so many seconds at most; a column so many calls."""
_PROBES: Final = 3

LARGEST_SINGLE: Final = float(np.finfo(np.float32).max)
LARGEST_DOUBLE: Final = float(np.finfo(np.float64).max)
_HUGE: Final = (1e15, 3e38, 1e39, 1e300)
"""What is still exact to a unit, what float32 holds, what it does not, and what overflows when it is squared."""
_MODEST: Final = 1e12
"""What is accepted at most where the smallest of these is answered otherwise."""


@dataclass(frozen=True, slots=True)
class Edges:
    """A specification that says what it accepts.

    Attributes:
        pipeline: the specification, ready to run.
        notes: sentences for people: what is refused although the pipeline answers it.
    """

    pipeline: Pipeline
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A value that may come in a column.

    Attributes:
        name: what people call it.
        column: where it is put.
        given: the value in the pipeline's rows.
        wire: the same in a request.
        size: the magnitude, for infinite and huge numbers; 0 for others.
    """

    name: str
    column: str
    given: Any
    wire: Any
    size: float = 0.0

    @property
    def is_missing(self) -> bool:
        """Whether it asks about a missing value."""
        return self.name == "missing"

    @property
    def is_usual(self) -> bool:
        """Whether it asks about a value that any column may hold."""
        return not self.is_missing and not self.size


@dataclass(frozen=True, slots=True)
class Found:
    """What both sides make of a question on one row.

    Attributes:
        question: what was asked.
        expected: the pipeline's outcome.
        got: that of the compiled version.
        features: what reaches the graph, in float64 [width]; None where the specification refuses the row.
    """

    question: Question
    expected: Outcome
    got: Outcome
    features: NDArray[np.float64] | None

    @property
    def is_alike(self) -> bool:
        """Whether both refuse, or both answer alike."""
        if self.expected.is_refusal or self.got.is_refusal:
            return self.expected.is_refusal == self.got.is_refusal
        return self.got.is_like(self.expected, TOLERANCE)

    @property
    def is_to_be_refused(self) -> bool:
        """Whether the pipeline refuses it, or answers otherwise than the compiled version."""
        return self.expected.is_refusal or (not self.is_alike and not self.got.is_refusal)

    @property
    def is_answer_to_a_refusal(self) -> bool:
        """Whether the pipeline refuses what the compiled version answers."""
        return self.expected.is_refusal and not self.got.is_refusal


def settled(pipeline: Any, sample: Sample, built: Pipeline, model: OnnxModel) -> Edges:
    """The specification with what its columns accept.

    Args:
        pipeline: fitted.
        sample: its rows; the compiled version answers them as the pipeline does.
        built: the specification, ready to run.
        model: the opened graph behind it.

    Raises:
        ModelFailedError: the compiled version answers an unseen text, or a number outside the range of the sample,
            otherwise than the pipeline; names the column.
    """
    asked = _Asked(pipeline, sample)
    first = _Version(built, model, pipeline)
    if not asked.agrees_with(first):
        # Answers that cannot be laid side by side; the proof has compared what it knows.
        return Edges(built)
    expected = list(asked.expected(_questions(sample, built.spec, asked.affordable_columns())))
    found = asked.compared(expected, first)
    guarded = _guarded(built.spec, found)
    if guarded is not built.spec:
        found = asked.compared(expected, _Version(Pipeline(guarded), model, pipeline))
    columns, notes = _accepting(guarded.columns, sample, found)
    accepting = Pipeline(msgspec.structs.replace(guarded, columns=columns))
    # Of such a column the empty string is a text like others, and clients refuse a missing one.
    texts = {column.name for column in columns if column.missing == "text"}
    for each in asked.compared(expected, _Version(accepting, model, pipeline)):
        if each.question.is_missing and each.question.column in texts:
            continue
        if not each.is_alike and not each.expected.is_refusal and not each.got.is_refusal:
            raise ModelFailedError(
                f"column {each.question.column!r}: the compiled version answers {each.question.name} otherwise than the "
                "pipeline"
            )
    return Edges(accepting, notes)


# --- questions ---


def _questions(sample: Sample, features: FeatureSpec, most: int) -> list[list[Question]]:
    """What is asked, in groups: each asks about one kind of value in at most so many columns, spread over all."""
    raw = {column.name: column for column in sample.columns}
    columns = [column.name for column in features.columns]
    names = [columns[at] for at in spread(len(columns), most)]
    wire = sample.on_the_wire()
    each = [list(_about(raw[name], wire[name], sample)) for name in names]
    kinds = dict.fromkeys(question.name for questions in each for question in questions)
    return [[question for questions in each for question in questions if question.name == kind] for kind in kinds]


def _about(column: RawColumn, wire: NDArray[Any], sample: Sample) -> Iterator[Question]:
    if column.kind == "time":
        yield Question("missing", column.name, pd.NaT, NOT_A_TIME)
    elif column.kind == "text":
        (meaning,) = column.missing if len(column.missing) == 1 else (Missing.NAN,)
        # Where "" is a text like others, it is asked whether a missing one is the same.
        value = np.nan if meaning is Missing.EMPTY else meaning.value_in_frames
        yield Question("missing", column.name, value, "")
        yield Question("a text that training never saw", column.name, UNSEEN, UNSEEN)
    else:
        yield from _about_numbers(column, wire, sample)


def _about_numbers(column: RawColumn, wire: NDArray[np.float64], sample: Sample) -> Iterator[Question]:
    (meaning,) = column.missing if len(column.missing) == 1 else (Missing.NAN,)
    yield Question("missing", column.name, meaning.value_in_frames, np.nan)
    if isinstance(sample.given, pd.DataFrame) and isinstance(_dtype_of(sample, column.name), pd.CategoricalDtype):
        # What no category is, becomes missing.
        return
    for name, value in _numbers(wire):
        yield Question(name, column.name, value, value, abs(value) if abs(value) >= _HUGE[0] else 0.0)


def _numbers(wire: NDArray[np.float64]) -> Iterator[tuple[str, float]]:
    # In this order, and the positive first: who refuses a size refuses the larger ones, and minus those.
    for size in _HUGE:
        yield f"{size:g}", size
        yield f"{-size:g}", -size
    yield "infinity", np.inf
    yield "minus infinity", -np.inf
    there = wire[np.isfinite(wire)]
    low, high = (float(there.min()), float(there.max())) if len(there) else (0.0, 0.0)
    reach = 3 * (high - low) + 0.5
    yield "a number below all of the sample", low - reach
    yield "a number above all of the sample", high + reach
    yield "0", 0.0
    yield "-1", -1.0


def _dtype_of(sample: Sample, name: str) -> Any:
    return sample.given.dtypes.iloc[[column.name for column in sample.columns].index(name)]


# --- both sides ---


class _Version:
    """The compiled version, asked row by row."""

    def __init__(self, built: Pipeline, model: OnnxModel, pipeline: Any) -> None:
        self._narrow = built
        self._wide = Pipeline(msgspec.structs.replace(built.spec, datatype="FP64"))
        self._model = model
        self._input = model.signature.inputs[0].name
        methods = {"probabilities": "predict_proba", "scores": "decision_function"}
        names = [spec.name for spec in model.signature.outputs]
        found = [names.index(name) for name, method in methods.items() if name in names and hasattr(pipeline, method)]
        # A classifier of several outputs gives the probabilities of each apart.
        each = [at for at, name in enumerate(names) if name.startswith("probabilities_")]
        self._outputs = each or found[:1] or [0]
        # Some graphs give two scores, -s and s, of two classes, where scikit-learn gives s.
        self._is_last = names[self._outputs[0]] == "scores" and len(getattr(pipeline, "classes_", ())) == 2

    def outcomes(self, wire: Mapping[str, NDArray[Any]]) -> list[tuple[Outcome, NDArray[np.float64] | None]]:
        """For each row the outcome, and what reaches the graph."""
        matrix, refusal = self._narrow.transform_rows(wire)
        wide, _ = self._wide.transform_rows(wire)
        is_refused = np.zeros(len(matrix), np.bool_) if refusal is None else refusal.found >= 0
        made: list[tuple[Outcome, NDArray[np.float64] | None]] = [(Outcome(None, "refused"), None)] * len(matrix)
        at = np.flatnonzero(~is_refused)
        if len(at):
            for row, answer in zip(at.tolist(), self._answers(matrix[at]), strict=True):
                made[row] = Outcome(answer), wide[row]
        return made

    def _answers(self, matrix: NDArray[Any]) -> list[NDArray[Any]]:
        """The answer to each row; none at all, which is like no other, for one on which the graph fails."""
        try:
            outputs = self._model.run({self._input: matrix})
            given = np.hstack([np.asarray(outputs[at]).reshape(len(matrix), -1) for at in self._outputs])
        except ModelFailedError:
            if len(matrix) == 1:
                return [np.empty(0)]
            return [answer for row in range(len(matrix)) for answer in self._answers(matrix[[row]])]
        return list(given[:, -1:] if self._is_last else given)


Expected = tuple[Question, int, Outcome]
"""A question, the probe that it is put to, and what the pipeline makes of it."""


class _Asked:
    """The pipeline, and a few rows of the sample that it answers."""

    def __init__(self, pipeline: Any, sample: Sample) -> None:
        self._pipeline = pipeline
        self._names = [column.name for column in sample.columns]
        rows = sample.finite().some(200)
        answered = np.flatnonzero([not each.is_refusal for each in outcomes(pipeline, rows.as_float64())])
        at = answered[np.linspace(0, len(answered) - 1, min(len(answered), _PROBES)).astype(np.intp)]
        self._probes = rows.chosen(at)
        self._given, self._wire = self._probes.as_float64(), self._probes.on_the_wire()

    def agrees_with(self, version: _Version) -> bool:
        """Whether the answers of both can be laid side by side."""
        if not self._probes.rows:
            return False
        expected = outcomes(self._pipeline, self._given)
        got = version.outcomes(self._wire)
        return all(one.is_like(other, TOLERANCE) for (one, _), other in zip(got, expected, strict=True))

    def affordable_columns(self) -> int:
        """How many columns are asked about: a refusal takes a call or two, and some pipelines take long for one."""
        row = taken(self._given, [0])
        begun_s = time.perf_counter()
        outcomes(self._pipeline, row)
        call_s = time.perf_counter() - begun_s
        return max(4, min(MAX_COLUMNS, int(_MOST_S / (_CALLS_PER_COLUMN * max(call_s, 1e-6)))))

    def expected(self, groups: Iterable[Sequence[Question]]) -> Iterator[Expected]:
        """What the pipeline makes of the questions; what it refuses is asked on one probe alone."""
        too_large: dict[str, Outcome] = {}
        for group in groups:
            known = [question for question in group if question.size and question.column in too_large]
            yield from ((question, 0, too_large[question.column]) for question in known)
            answered = []
            asked = [(question, 0) for question in group if question not in known]
            for question, _, outcome in self._outcomes(asked):
                yield question, 0, outcome
                if not outcome.is_refusal:
                    answered.append(question)
                elif question.size:
                    too_large[question.column] = outcome
            more = range(1, self._probes.rows)
            yield from self._outcomes([(question, probe) for question in answered for probe in more])

    def _outcomes(self, asked: Sequence[tuple[Question, int]]) -> Iterator[Expected]:
        if not asked:
            return
        rows = _with_values(
            taken(self._given, [probe for _, probe in asked]),
            [(at, self._names.index(question.column), question.given) for at, (question, _) in enumerate(asked)],
        )
        for (question, probe), outcome in zip(asked, outcomes(self._pipeline, rows), strict=True):
            yield question, probe, outcome

    def compared(self, expected: Sequence[Expected], version: _Version) -> list[Found]:
        """Both sides of what was asked."""
        at = [probe for _, probe, _ in expected]
        wire = {name: values[at].copy() for name, values in self._wire.items()}
        for row, (question, _, _) in enumerate(expected):
            wire[question.column][row] = question.wire
        return [
            Found(question, outcome, got, features)
            for (question, _, outcome), (got, features) in zip(expected, version.outcomes(wire), strict=True)
        ]


def _with_values(rows: Any, values: Sequence[tuple[int, int, Any]]) -> Any:
    """The rows with some values changed, each given as row, column and value."""
    if isinstance(rows, np.ndarray):
        changed = rows.astype(np.float64) if rows.dtype.kind in "biu" else rows.copy()
        for row, column, value in values:
            changed[row, column] = value
        return changed
    if isinstance(rows, pd.Series):
        texts = rows.to_numpy(object).copy()
        for row, _, value in values:
            texts[row] = value
        return pd.Series(texts, name=rows.name, dtype=object)
    columns = [rows.iloc[:, at].reset_index(drop=True) for at in range(rows.shape[1])]
    for at in {column for _, column, _ in values}:
        columns[at] = _column_with(columns[at], {row: value for row, column, value in values if column == at})
    made = pd.concat(columns, axis=1)
    made.columns = rows.columns
    return made


def _column_with(column: Any, values: Mapping[int, Any]) -> Any:
    """The column with these values by row, in a type that holds them and that a caller's frame would have."""
    dtype = column.dtype
    changed = column.to_numpy(object).copy()
    for row, value in values.items():
        changed[row] = value
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Series(changed, name=column.name, dtype=object).astype("category")
    if dtype.kind == "M":
        return pd.Series(changed, name=column.name, dtype=dtype)
    if isinstance(dtype, pd.api.extensions.ExtensionDtype) and dtype.kind in "iuf":
        return pd.Series(changed, name=column.name, dtype="Float64" if any(map(_is_float, values.values())) else dtype)
    return pd.Series(changed, name=column.name, dtype=np.float64 if dtype.kind in "iuf" else object)


def _is_float(value: object) -> bool:
    return isinstance(value, float)


# --- what follows ---


def _guarded(features: FeatureSpec, found: Sequence[Found]) -> FeatureSpec:
    """The specification that refuses what usual values become and the model refuses: NaN, or what is too large for it.

    As it is where the model takes such values in one column and the pipeline refuses them in another.
    """
    refused = [
        each.features
        for each in found
        if each.is_answer_to_a_refusal and each.features is not None and each.question.is_usual
    ]
    answered = [each.features for each in found if not each.expected.is_refusal and each.features is not None]
    refuses_nan = _any(np.isnan, refused) and not _any(np.isnan, answered)
    # Infinities alone say nothing about float32.
    size = LARGEST_SINGLE if _any(_is_double_alone, refused) else LARGEST_DOUBLE
    exceeds = partial(_exceeds, size)
    largest = size if _any(exceeds, refused) and not _any(exceeds, answered) else None
    if not refuses_nan and largest is None:
        return features
    at_fault = np.any([np.isnan(row) | (np.abs(row) > LARGEST_SINGLE) for row in refused], axis=0)
    guarded, _ = _with_guard(features.features, steps.Refuse(refuses_nan, largest), at_fault)
    return msgspec.structs.replace(features, features=guarded)


def _any(holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]], rows: Iterable[NDArray[np.float64]]) -> bool:
    return any(bool(holds(row).any()) for row in rows)


def _is_double_alone(row: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isfinite(row) & (np.abs(row) > LARGEST_SINGLE)


def _exceeds(size: float, row: NDArray[np.float64]) -> NDArray[np.bool_]:
    exceeding: NDArray[np.bool_] = np.abs(row) > size
    return exceeding


def _with_guard(block: Block, guard: steps.Refuse, at_fault: NDArray[np.bool_]) -> tuple[Block, NDArray[np.bool_]]:
    """The block with the step at its end where one of its columns is at fault, and what is said of the columns after it.

    Inside the blocks that stand side by side, since these are written one by one.
    """
    if isinstance(block, Join) and not block.steps:
        made = []
        for each in block.blocks:
            guarded, at_fault = _with_guard(each, guard, at_fault)
            made.append(guarded)
        return msgspec.structs.replace(block, blocks=tuple(made)), at_fault
    own, others = at_fault[: block.width], at_fault[block.width :]
    return (then(block, guard) if own.any() else block), others


def _accepting(
    columns: Sequence[Column], sample: Sample, found: Sequence[Found]
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The columns that say what they accept, and what people should know of it."""
    raw = {column.name: column for column in sample.columns}
    made: list[Column] = []
    told: dict[str, list[str]] = {}
    for column in columns:
        own = [each for each in found if each.question.column == column.name]
        missing = [each for each in own if each.question.is_missing]
        refuses = any(each.is_to_be_refused for each in missing)
        if any(not each.is_alike and not each.expected.is_refusal for each in missing):
            told.setdefault("missing values", []).append(column.name)
        if isinstance(column, StringColumn):
            refused = "text" if raw[column.name].missing == frozenset({Missing.EMPTY}) else "refuse"
            made.append(msgspec.structs.replace(column, missing=refused if refuses else "accept"))
            if any(each.got.is_refusal and not each.is_alike for each in own if not each.question.is_missing):
                told.setdefault("texts that training never saw", []).append(column.name)
        elif isinstance(column, NumberColumn):
            largest = _largest([each for each in own if each.question.size])
            if any(not each.is_alike and not each.expected.is_refusal for each in own if each.question.size):
                told.setdefault("huge numbers", []).append(column.name)
            made.append(msgspec.structs.replace(column, missing="refuse" if refuses else "accept", largest=largest))
        else:
            made.append(msgspec.structs.replace(column, missing="refuse" if refuses else "accept"))
    return tuple(made), tuple(
        f"{what} in {_listed(names)} are refused, since the compiled version would answer them otherwise than the pipeline"
        for what, names in told.items()
    )


def _largest(sized: Sequence[Found]) -> float | None:
    """The largest magnitude up to which both sides agree; None where they do at all sizes."""
    wrong = [each.question.size for each in sized if each.is_to_be_refused and not each.got.is_refusal]
    if not wrong:
        return None
    smaller = [size for size in _HUGE if size < min(wrong)]
    if min(wrong) == np.inf:
        return LARGEST_DOUBLE
    # Between what float32 holds and what it does not, it is float32 that decides.
    return LARGEST_SINGLE if smaller and smaller[-1] == _HUGE[1] else (smaller[-1] if smaller else _MODEST)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
