"""Has kernels answer a version's batches and count them, and run them as well where they can (`plain.kernels.fused`).

A version is fused if its features and its graph are kernels and its batches run on the reactor: then kernels do all, from the
messages in its lane to the replies. Kernels are told once where everything is: programs, counters, the cost of batches. What
they cannot know, they leave to Python, batch by batch.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import NUMPY_TYPES, join_bytes
from penstock_server.batching.queue import BatchQueue
from penstock_server.metrics.counters import ROWS_EDGES, STAGES
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.servable import KernelCalls, Servable
from penstock_server.models.signature import ANY
from penstock_server.plain import layout
from penstock_server.plain.lane import Lane
from penstock_server.prediction.joint_sampler import JointSampler
from penstock_server.prediction.outputs import Largest, NamedLabels, OutputReader, count_arrays
from penstock_server.prediction.records import PredictionReader, VersionRecords
from penstock_server.request_log.sampler import RequestSampler

_FEATURES, _INFER = STAGES.index("features"), STAGES.index("infer")
_DTYPES: Final = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64))
"""By the kinds of the kernels of models."""


class OutputForm(NamedTuple):
    """An output that kernels read.

    Attributes:
        output: which.
        dtype: of it.
        width: of its rows.
        texts: what its numbers stand for; None where they stand for themselves.
    """

    output: int
    dtype: np.dtype[Any]
    width: int
    texts: tuple[str, ...] | None

    def is_of(self, outputs: Sequence[NDArray[Any]]) -> bool:
        """Whether these outputs have it."""
        array = outputs[self.output]
        return array.dtype == self.dtype and array.size == len(array) * self.width


class Counted(NamedTuple):
    """What kernels count of a version's answers.

    Attributes:
        how: classes are read, as `layout` says.
        classes: from what; None where there are none.
        numbers: that are counted for drift, with the place of each among the answers.
        number: from what the prediction of a version without classes is recorded; None where it is not.
        score: from what scores are recorded; None where they are not.
    """

    how: int
    classes: OutputForm | None
    numbers: tuple[tuple[int, OutputForm], ...]
    number: OutputForm | None = None
    score: OutputForm | None = None

    @property
    def forms(self) -> tuple[OutputForm, ...]:
        """All outputs that are read."""
        single = (self.classes, self.number, self.score)
        return (*(form for form in single if form is not None), *(form for _, form in self.numbers))


class Fused:
    """What kernels answer a version's batches by, and run them by.

    Args:
        servable: the version, which is kept.
        calls: how its kernels are called; None if Python runs its batches.
        counted: what is counted of its answers.
        lane: where its requests wait.
        report: counts them.
        reader: of its outputs.
        queue: knows what batches cost.
        sampler: keeps some for the request log.
        joint: counts some by two columns at once.
        records: writes what was answered.
        copies: how many batches pass until a shadow gets one, as `prediction.shadows.Shadows.passing`; None without shadows.

    Attributes:
        address: of the words.
        runs: kernels run its batches.
    """

    def __init__(
        self,
        servable: Servable,
        calls: KernelCalls | None,
        counted: Counted,
        *,
        lane: Lane,
        report: Recorder,
        reader: OutputReader,
        queue: BatchQueue[Any],
        sampler: RequestSampler | None,
        joint: JointSampler | None,
        records: VersionRecords | None,
        copies: NDArray[np.int64] | None = None,
    ) -> None:
        self._kept: list[Any] = [servable]
        self._words = np.zeros(layout.FUSED_BYTES // 8, np.int64)
        self._reals = self._words.view(np.float64)
        self.address: int = self._words.ctypes.data
        self.runs = calls is not None
        self._counted = counted
        self._lane = lane
        self._report = report
        self._reader = reader
        self._classes = np.zeros(0, np.int64)
        if calls is not None:
            self._set_features(calls)
            self._set_model(calls)
            running = servable.run_cell()
            self._set(layout.U_RUNNING, self._own(np.zeros(1, np.int64)) if running is None else running)
        self._set_counts(report)
        self._set_cost(queue)
        self._set_classes()
        self._set_numbers()
        self._set(layout.U_COPIES, 0 if copies is None else self._own(copies))
        if records is not None:
            self._set_records(records.words)
        self._set(layout.U_TO_PASS, 0 if sampler is None else sampler.to_pass.ctypes.data)
        self._set(layout.U_JOINT_DUE, 0 if joint is None else joint.due_ns.ctypes.data)
        self._set(layout.U_ANSWERS, lane.answers_at)

    def _set(self, at: int, value: int) -> None:
        self._words[at // 8] = value

    def _own(self, array: NDArray[Any]) -> int:
        """The address of an array, which is kept."""
        self._kept.append(array)
        return int(array.ctypes.data)

    def _set_features(self, calls: KernelCalls) -> None:
        call = calls.features
        if call is None:
            return
        for at, value in (
            (layout.U_FEATURES, call.function),
            (layout.U_PROGRAM, call.program),
            (layout.U_FEATURE_SCRATCH, call.scratch),
            (layout.U_TIMES, call.times),
            (layout.U_STRINGS, call.strings),
            (layout.U_MATRIX_BYTES, call.row_bytes),
            (layout.U_MOST_TEXT, call.most_text),
        ):
            self._set(at, value)

    def _set_model(self, calls: KernelCalls) -> None:
        call, features = calls.model, calls.features
        self._set(layout.U_MODEL, call.function)
        self._set(layout.U_HEAD, call.head)
        self._set(layout.U_MOST_ROWS, call.most_rows if features is None else min(call.most_rows, features.most_rows))
        self._set(layout.U_SIZES, sum(is_ours << at for at, is_ours in enumerate(calls.choice.by_size)))
        self._set(layout.U_OUTPUTS, len(call.outputs))
        for number, output in enumerate(call.outputs):
            self._set(layout.U_ROW_BYTES + 8 * number, output.row_bytes)
            self._set(layout.U_TEXTS + 8 * number, 0 if output.texts is None else self._texts(output.texts))

    def _texts(self, texts: Sequence[str]) -> int:
        """The address of a table of texts."""
        raws = [join_bytes([text]) for text in texts]
        starts = np.cumsum([0, *map(len, raws)], dtype=np.int64)
        content = np.frombuffer(b"".join(raws), np.uint8)
        return self._own(np.array([self._own(starts), self._own(content)], np.int64))

    def _set_counts(self, report: Recorder) -> None:
        counters = report.counters
        edges = np.array(ROWS_EDGES, np.int64)
        stages = [
            counters.latency[_FEATURES], counters.latency[_INFER], *counters.batch_ns, counters.compute_ns,
            counters.answered_ns, counters.batch_rows, counters.rows, counters.requests, edges,
        ]  # fmt: skip
        self._set(layout.U_STAGES, self._own(np.array([*map(self._own, stages), len(edges)], np.int64)))
        self._set(layout.U_WAITING, self._own(counters.waiting))
        if not counters.shape.features:
            return
        self._set(layout.U_DRIFT, self._own(counters.drift))
        self._set(layout.U_DRIFT_AT, self._own(counters.drift_at))
        self._set(layout.U_DRIFT_ROWS, self._own(counters.drift_rows))
        self._set(layout.U_WINDOWS, counters.shape.sub_windows)
        self._set(layout.U_WINDOW_BYTES, counters.drift[0].nbytes)
        self._set(layout.U_WINDOW_ROWS, report.sub_window_rows)

    def _set_cost(self, queue: BatchQueue[Any]) -> None:
        self._set(layout.U_COST, self._own(np.frombuffer(queue.cost.words)))
        self._set(layout.U_LIMIT_ROWS, queue.max_rows)
        self._reals[layout.U_SPAN // 8] = queue.limits.objective_s / 2  # as `batching.cost.batch_rows` has it

    def _set_classes(self) -> None:
        """Says how classes are read, and where they are counted for drift."""
        form, reader = self._counted.classes, self._reader.classes
        if form is None:
            return
        self._set(layout.U_PREDICTED, self._counted.how)
        self._set(layout.U_PREDICTED_OUTPUT, form.output)
        self._set(layout.U_PREDICTED_KIND, _DTYPES.index(form.dtype))
        self._set(layout.U_PREDICTED_WIDTH, form.width)
        self._set(layout.U_CLASSES_AT, self._place(0) if self._report.has_class_counts else layout.NONE)
        if isinstance(reader, NamedLabels) and form.texts is not None:
            places = [reader.place_of(text) for text in form.texts]
            self._set(layout.U_CLASS_OF_TEXT, self._own(np.array(places, np.int64)))
        self.learn_classes()

    def _set_numbers(self) -> None:
        """Says which numbers are counted for drift, and how."""
        numbers = self._counted.numbers
        table = np.zeros((len(numbers), layout.NUMBER_BYTES // 8), np.int64)
        for row, (place, form) in zip(table, numbers, strict=True):
            counts = self._report.number_counts[place]
            kind = _DTYPES.index(form.dtype)
            row[: layout.M_SMALLEST // 8] = (
                form.output, kind, form.width, self._place(place), self._own(counts.edges), len(counts.edges)
            )  # fmt: skip
            row[layout.M_SMALLEST // 8 :].view(np.float64)[:] = counts.range
            self._set(layout.U_BINS, counts.bins)
        self._set(layout.U_NUMBERS, self._own(table))
        self._set(layout.U_NUMBER_COUNT, len(numbers))

    def _set_records(self, words: NDArray[np.int64]) -> None:
        """Says how predictions and scores are read, for records."""
        counted = self._counted
        prediction, score = counted.classes or counted.number, counted.score
        assert prediction is not None
        values = [
            (layout.J_HOW, counted.how if counted.classes is not None else layout.NUMBER),
            (layout.J_OUTPUT, prediction.output),
            (layout.J_KIND, _DTYPES.index(prediction.dtype)),
            (layout.J_WIDTH, prediction.width),
            (layout.J_CLASS_OF_TEXT, int(self._words[layout.U_CLASS_OF_TEXT // 8])),
            (layout.J_SCORE_OUTPUT, layout.NONE if score is None else score.output),
            (layout.J_SCORE_KIND, 0 if score is None else _DTYPES.index(score.dtype)),
            (layout.J_SCORE_WIDTH, 0 if score is None else score.width),
        ]
        for at, value in values:
            words[at // 8] = value

    def _place(self, place: int) -> int:
        """Where a window counts the answer with this place, in bytes."""
        counters = self._report.counters
        return counters.drift[0, : counters.shape.features + place].nbytes

    def learn_classes(self) -> None:
        """Has kernels know the classes that have cells now."""
        cells = self._report.counters.classes
        known = [(label, cells[cell:].ctypes.data, place) for label, cell, place in self._report.known_classes()]
        # Not kept with the others: where there are more classes than cells, this is done for every batch.
        self._classes = np.array(known, np.int64)
        self._set(layout.U_CLASSES, self._classes.ctypes.data)
        self._set(layout.U_CLASS_COUNT, len(known))

    def count_answers(self, rows: int, *, is_repeat: bool) -> None:
        """Counts the answers of a batch that kernels have run, of which a class was not known; it is known then."""
        outputs = {form.output: self._made(form, rows) for form in self._counted.forms}
        count_arrays(self._report, self._reader, outputs, is_drift=not is_repeat)
        self.learn_classes()

    def _made(self, form: OutputForm, rows: int) -> NDArray[Any]:
        """An output of the batch that kernels have run last."""
        content = self._lane.output(form.output, rows * form.width * form.dtype.itemsize)
        array: NDArray[Any] = np.frombuffer(content, form.dtype).reshape(rows, form.width)
        return array if form.texts is None else np.array(form.texts, object)[array]

    def takes(self, outputs: Sequence[NDArray[Any]]) -> bool:
        """Whether kernels can answer these outputs, and count them."""
        for array in outputs:
            if array.dtype.kind not in "fiub" or not array.flags.c_contiguous or not array.dtype.isnative:
                return False
        return all(form.is_of(outputs) for form in self._counted.forms)

    def set_beside(self, rows: int, requests: int) -> None:
        """What waits for the version elsewhere than in its lane and its queue."""
        self._set(layout.U_BESIDE_ROWS, rows)
        self._set(layout.U_BESIDE_REQUESTS, requests)


def fused(
    servable: Servable,
    *,
    may_run: bool,
    lane: Lane,
    report: Recorder,
    reader: OutputReader,
    queue: BatchQueue[Any],
    sampler: RequestSampler | None,
    joint: JointSampler | None,
    records: VersionRecords | None = None,
    copies: NDArray[np.int64] | None = None,
) -> Fused | None:
    """What kernels answer a version's batches by, and run them by if they may; None if Python is to do it all."""
    calls = servable.kernel_calls if may_run and not queue.limits.max_delay_s else None
    if calls is not None and (len(calls.model.outputs) != len(servable.outputs) or not _takes_block(calls, lane)):
        calls = None
    counted = _counted(servable, calls, reader)
    if counted is not None and records is not None:
        counted = _recorded(servable, calls, counted, records.reader)
    if counted is None:
        return None
    return Fused(
        servable,
        calls,
        counted,
        lane=lane,
        report=report,
        reader=reader,
        queue=queue,
        sampler=sampler,
        joint=joint,
        records=records,
        copies=copies,
    )


def _takes_block(calls: KernelCalls, lane: Lane) -> bool:
    """Whether what a lane gathers is what the features take, or the model."""
    return calls.features is not None or tuple(lane.row_bytes) == (calls.model.row_bytes,)


def _counted(servable: Servable, calls: KernelCalls | None, reader: OutputReader) -> Counted | None:
    """What is counted of the answers; None if kernels cannot count it."""
    how, classes = layout.NOTHING, None
    if reader.classes is not None:
        how = layout.LARGEST if isinstance(reader.classes, Largest) else layout.LABELS
        classes = _form(servable, calls, reader.classes.output)
        if classes is None or (classes.dtype == np.int64) != (how == layout.LABELS):
            return None
    numbers = []
    for number in reader.numbers:
        form = _form(servable, calls, number.output)
        if form is None or form.texts is not None:
            return None
        numbers.append((number.place, form))
    return Counted(how, classes, tuple(numbers))


def _recorded(
    servable: Servable, calls: KernelCalls | None, counted: Counted, reader: PredictionReader
) -> Counted | None:
    """The same with what is recorded of the answers; None if kernels cannot read it."""
    places = (reader.number, reader.score)
    number, score = (None if place is None else _form(servable, calls, place) for place in places)
    for place, form in zip(places, (number, score), strict=True):
        if place is not None and (form is None or form.texts is not None):
            return None
    return counted._replace(number=number, score=score)


def _form(servable: Servable, calls: KernelCalls | None, at: int) -> OutputForm | None:
    """How kernels read an output; None if they do not."""
    if calls is not None:
        made = calls.model.outputs[at]
        return OutputForm(at, _DTYPES[made.kind], made.width, made.texts)
    spec = servable.outputs[at]
    tail = spec.shape[1:]
    dtype = NUMPY_TYPES.get(spec.datatype)
    return None if dtype not in _DTYPES or ANY in tail else OutputForm(at, dtype, prod(tail), None)
