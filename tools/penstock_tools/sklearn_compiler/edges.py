"""What a published version accepts beyond the rows of the sample: the pipeline is asked, and the specification says it.

A sample rarely holds a missing value in each column, an infinity, a number beyond float32, or a value that training never
saw; requests do. Each of these is put into each raw column, one at a time, and both sides are asked: the pipeline, and the
specification with its graph. Where both answer alike, requests with such values are answered. Where the pipeline refuses,
or the compiled version answers otherwise, the specification refuses the row's request and names the column: no answer is
better than a wrong one. scikit-learn refuses NaN and infinities in each estimator of its own accord, so what is computed
on the way (a logarithm of a negative number) is refused where it would reach the model. `accepting` decides that.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock_server.errors import ModelFailedError
from penstock_server.features.pipeline import Pipeline
from penstock_server.models.onnx_model import OnnxModel
from penstock_tools.sklearn_compiler.accepting import (
    HUGE,
    LARGEST_SINGLE,
    TOLERANCE,
    Found,
    Question,
    accepting,
    guarded,
    listed,
)
from penstock_tools.sklearn_compiler.forms import UNSEEN, Missing
from penstock_tools.sklearn_compiler.outcomes import Outcome, one_thread, outcomes, taken
from penstock_tools.sklearn_compiler.sample import NOT_A_TIME, RawColumn, Sample, spread

MAX_COLUMNS: Final = 64
"""Columns that are asked about; of more, some spread over all."""
_MOST_S: Final = 10.0
"""A slow pipeline that refuses what it is asked about takes so many seconds at most for missing values, and for others."""
_CALLS_ABOUT_MISSING: Final = 2
_CALLS_ABOUT_OTHERS: Final = 8
"""What a column takes at most: a call that refuses several columns, and those that find them."""
_PROBES: Final = 3


@dataclass(frozen=True, slots=True)
class Edges:
    """A specification that says what it accepts.

    Attributes:
        pipeline: the specification, ready to run.
        notes: sentences for people: what is refused although the pipeline answers it, and what is not although it refuses.
    """

    pipeline: Pipeline
    notes: tuple[str, ...] = ()


@one_thread()
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
    names = [column.name for column in built.spec.columns]
    call_s = asked.call_s()
    about_missing = _affordable(names, call_s * _CALLS_ABOUT_MISSING)
    about_others = _affordable(names, call_s * _CALLS_ABOUT_OTHERS)
    expected = list(asked.expected(_questions(sample, about_missing, frozenset(about_others))))
    found = asked.compared(expected, first)
    narrowed = guarded(built.spec, found)
    if narrowed is not built.spec:
        found = asked.compared(expected, _Version(Pipeline(narrowed), model, pipeline))
    columns, notes = accepting(narrowed.columns, sample, found)
    final = Pipeline(msgspec.structs.replace(narrowed, columns=columns))
    # Of such a column the empty string is a text like others, and clients refuse a missing one.
    texts = {column.name for column in columns if column.missing == "text"}
    answered: dict[str, dict[str, None]] = {}
    for each in asked.compared(expected, _Version(final, model, pipeline)):
        if each.question.is_missing and each.question.column in texts:
            continue
        if each.is_answer_to_a_refusal:
            answered.setdefault(each.question.name, {})[each.question.column] = None
        if not each.is_alike and not each.expected.is_refusal and not each.got.is_refusal:
            raise ModelFailedError(
                f"column {each.question.column!r}: the compiled version answers {each.question.name} otherwise than the "
                "pipeline"
            )
    told = (
        f"{name} in {listed(list(names))} is answered, which the pipeline refuses" for name, names in answered.items()
    )
    return Edges(final, (*notes, *told))


# --- questions ---


def _affordable(columns: Sequence[str], column_s: float) -> list[str]:
    """As many of the columns as time allows where each takes so long, spread over all."""
    most = int(_MOST_S / max(column_s, 1e-6))
    return [columns[at] for at in spread(len(columns), max(4, min(MAX_COLUMNS, most)))]


def _questions(sample: Sample, columns: Sequence[str], about_numbers: frozenset[str]) -> list[list[Question]]:
    """What is asked, in groups of one call each. `about_numbers` are asked for more than missing ones."""
    raw = {column.name: column for column in sample.columns}
    wire = sample.on_the_wire()
    each = [question for name in columns for question in _about(raw[name], wire[name], sample)]
    asked = [question for question in each if not question.is_number or question.column in about_numbers]
    by_kind = [
        question for kind in dict.fromkeys(each.name for each in asked) for question in asked if question.name == kind
    ]
    groups: dict[str, list[Question]] = {}
    for question in by_kind:
        groups.setdefault(_group(question), []).append(question)
    return list(groups.values())


def _group(question: Question) -> str:
    """Where few pipelines refuse anything, one call asks about several kinds; of the others each is asked by itself."""
    if question.size:
        return "what float32 holds" if question.size <= LARGEST_SINGLE else question.name
    return "any number" if question.is_number else question.name


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
        yield Question(name, column.name, value, value, abs(value) if abs(value) >= HUGE[0] else 0.0)


def _numbers(wire: NDArray[np.float64]) -> Iterator[tuple[str, float]]:
    # In this order, and the positive first: who refuses a size refuses the larger ones, and minus those.
    for size in HUGE:
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

    def call_s(self) -> float:
        """How long the pipeline takes for a row."""
        row = taken(self._given, [0])
        begun_s = time.perf_counter()
        outcomes(self._pipeline, row)
        return time.perf_counter() - begun_s

    def expected(self, groups: Iterable[Sequence[Question]]) -> Iterator[Expected]:
        """What the pipeline makes of the questions; what it refuses is asked on one probe alone."""
        too_large: dict[str, Outcome] = {}
        answered: list[Question] = []
        for group in groups:
            known = [question for question in group if question.size and question.column in too_large]
            yield from ((question, 0, too_large[question.column]) for question in known)
            for question, _, outcome in self._outcomes([(each, 0) for each in group if each not in known]):
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
        # A caller's column has the categories of the training rows, whichever of them these rows hold.
        others = [value for value in values.values() if not pd.isna(value) and value not in dtype.categories]
        return pd.Series(changed, name=column.name, dtype=dtype if not others else _wider(dtype, others))
    if dtype.kind == "M":
        return pd.Series(changed, name=column.name, dtype=dtype)
    if isinstance(dtype, pd.api.extensions.ExtensionDtype) and dtype.kind in "iuf":
        return pd.Series(changed, name=column.name, dtype="Float64" if any(map(_is_float, values.values())) else dtype)
    return pd.Series(changed, name=column.name, dtype=np.float64 if dtype.kind in "iuf" else object)


def _wider(dtype: pd.CategoricalDtype, others: Sequence[Any]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(dtype.categories.append(pd.Index(dict.fromkeys(others))), dtype.ordered)


def _is_float(value: object) -> bool:
    return isinstance(value, float)
