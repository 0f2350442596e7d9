"""Runs requests that would hold the reactor: on a model thread, slice by slice, so that all others go on meanwhile.

A request of a million rows runs for seconds even on a cheap model. It is cut into slices of what a batch may take. The
slices of several large requests, and the batches of a threaded executor, take turns on their thread. Between two slices
the reactor looks whether the caller left or its deadline passed. The parts of the answer are encoded slice by slice and
joined at the end, on the thread too. A request whose version cannot be batched, or that
has its batch to itself, cannot be cut either: it is one slice.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.batching.queue import Batch, BatchQueue
from penstock_server.clock import Clock
from penstock_server.errors import NotReadyError
from penstock_server.labels.layout import MOST_ROWS
from penstock_server.labels.prediction_file import KeyedRows
from penstock_server.models.servable import Outputs
from penstock_server.prediction.answerer import Answerer, PendingRequest
from penstock_server.prediction.classification import TopClasses
from penstock_server.prediction.encode import id_of, raw_of
from penstock_server.prediction.model_thread import ModelThread
from penstock_server.prediction.records import Predicted
from penstock_server.prediction.work import Work, computed

_LENGTH: Final = Struct("<I")


class RequestSlice(NamedTuple):
    """Some rows of a large request, for a model thread.

    Attributes:
        work: the whole request: its blocks, rows and shapes; its cells are the slice's own.
        row_elements: for each block the elements of a row that have lengths of their own; 0 where rows have one size.
        starts: where the slice's rows begin in each block.
        rows: how many rows the slice takes.
        places: the outputs asked for.
    """

    work: Work
    row_elements: Sequence[int]
    starts: Sequence[int]
    rows: int
    places: Sequence[int | TopClasses]


class SliceDone(NamedTuple):
    """What a slice gave.

    Attributes:
        work: what ran.
        raws: the outputs asked for, in raw form.
        ends: where its rows end in each block, and the next slice begins.
    """

    work: Work
    outputs: Outputs
    raws: Sequence[bytes]
    ends: Sequence[int]


def computed_slice(part: RequestSlice) -> SliceDone | Exception:
    """Runs a slice; raises nothing."""
    try:
        work = part.work
        ends = [len(block) for block in work.blocks]
        if part.rows < work.rows:
            ends = [_end(*block, part) for block in zip(work.blocks, part.row_elements, part.starts, strict=True)]
            blocks = [block[start:end] for block, start, end in zip(work.blocks, part.starts, ends, strict=True)]
            work = work._replace(blocks=blocks, rows=part.rows)
        outputs = computed(work)
        if isinstance(outputs, Exception):
            return outputs
        specs = work.servable.outputs
        return SliceDone(work, outputs, [raw_of(outputs.arrays, place, specs) for place in part.places], ends)
    except Exception as error:  # noqa: BLE001 - a bug fails the request and nothing else
        return error


def _end(block: bytes, row_elements: int, start: int, part: RequestSlice) -> int:
    if not row_elements:
        return start + len(block) // part.work.rows * part.rows
    at = start
    for _ in range(row_elements * part.rows):
        at += _LENGTH.size + _LENGTH.unpack_from(block, at)[0]
    return at


class _LargeRun:
    """The large request that runs: what has come so far."""

    __slots__ = (
        "batch",
        "ends",
        "features_s",
        "infer_s",
        "kept",
        "predicted",
        "raws",
        "request",
        "rows",
        "shapes",
        "size",
        "started_s",
    )

    def __init__(self, batch: Batch[PendingRequest], started_s: float, *, is_logged: bool) -> None:
        (self.request,) = batch.items
        self.batch = batch
        self.started_s = started_s
        self.rows = 0
        self.ends: Sequence[int] = [0] * len(self.request.decoded.blocks)
        self.raws: list[Sequence[bytes]] = []
        self.size = 0
        self.features_s = self.infer_s = 0.0
        self.shapes: list[tuple[int, ...]] = []
        # The outputs for the request log; None when it was not drawn.
        self.kept: list[list[NDArray[Any]]] | None = [] if is_logged else None
        self.predicted: list[Predicted] = []


class LargeRequests:
    """One version's large requests, by priority and one at a time; a part of its executor, on the reactor alone.

    Args:
        answerer: the version's, which answers and counts.
        queue: what waits.
        thread: runs the slices; other versions, and the version's own batches, may use it too.
        slice_rows: the rows of a slice.
        ended: called after each large request.
    """

    def __init__(
        self,
        answerer: Answerer,
        queue: BatchQueue[PendingRequest],
        thread: ModelThread,
        *,
        clock: Clock,
        slice_rows: int,
        ended: Callable[[], None],
    ) -> None:
        self.queue = queue
        self._answerer = answerer
        self._servable = answerer.servable
        self._thread = thread
        self._clock = clock
        self._slice_rows = slice_rows
        self._ended = ended
        self._row_elements = [
            prod(block.row_shape) if block.datatype == "BYTES" else 0 for block in answerer.decoder.blocks
        ]
        self._run: _LargeRun | None = None
        self._cells: NDArray[np.int64] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return self._run is None and self.queue.is_idle

    def go_on(self) -> None:
        """Starts the request that is next, unless one runs."""
        while self._run is None and self.queue.requests:
            now_s = self._clock()
            batch = self.queue.next_batch(now_s, one=True)
            for request in batch.expired:
                self._answerer.refuse(request, self._answerer.too_late(request))
            if batch.items:
                self._run = _LargeRun(batch, now_s, is_logged=self._answerer.draws_for_log(batch.items[0]))
                self._start_slice(self._run)

    def close(self, error: NotReadyError) -> None:
        """Refuses what waits, and what runs."""
        run, self._run = self._run, None
        if run is not None:
            self.queue.ended(run.batch, self._clock(), None)
        for request in (*self.queue.clear(), *([] if run is None else [run.request])):
            self._answerer.refuse(request, error)

    def _start_slice(self, run: _LargeRun) -> None:
        request = run.request
        left = run.batch.rows - run.rows
        part = RequestSlice(
            Work(
                self._servable,
                request.decoded.blocks,
                run.batch.rows,
                request.decoded.shapes,
                self._own_cells(),
                given=request.decoded.given,
            ),
            self._row_elements,
            run.ends,
            min(left, self._slice_rows) if self._servable.is_batched and not request.is_alone else left,
            range(len(self._servable.outputs)) if request.chosen is None else request.chosen,
        )
        self._thread.start(partial(computed_slice, part), partial(self._came_back, run))

    def _own_cells(self) -> NDArray[np.int64] | None:
        """Counts of a slice alone: an inline executor runs batches meanwhile, which count in the version's own."""
        shared = self._answerer.report.drift_cells()
        if shared is None:
            return None
        if self._cells is None:
            self._cells = np.zeros_like(shared)
        self._cells[...] = 0
        return self._cells

    def _came_back(self, run: _LargeRun, done: SliceDone | Exception) -> None:
        if self._run is not run:
            return  # closed meanwhile
        if isinstance(done, Exception):
            self._end(run, done)
        elif (error := self._taken(run, done)) is not None or run.request.is_over:
            self._end(run, error)
        elif run.rows < run.batch.rows:
            self._start_slice(run)
        else:
            self._thread.start(partial(_caught, self._joining(run)), partial(self._finish, run))

    def _joining(self, run: _LargeRun) -> Callable[[], bytes]:
        """What joins the reply; for the thread, so of values alone."""
        request = run.request
        return partial(
            request.encoder.joined,
            run.shapes,
            list(zip(*run.raws, strict=True)),
            run.batch.rows,
            compute_s=run.features_s + run.infer_s,
            id_field=request.id_field,
            chosen=request.chosen,
            queue_us=max(0, int((run.started_s - request.arrived_s) * 1e6)),
        )

    def _taken(self, run: _LargeRun, done: SliceDone) -> Exception | None:
        """Takes the outputs of a slice; returns why the request ends here, if it does."""
        outputs, work, answerer = done.outputs, done.work, self._answerer
        first, run.rows = run.rows, run.rows + work.rows
        is_cut = work.rows < run.batch.rows
        if work.cells is not None:
            answerer.report.drift_added(work.cells, self._servable.counted_rows(work.rows))
        try:
            keyed = self._recorded(run, outputs, first, work.rows)
            counts = () if first else (work.rows,)
            answerer.observe(work, outputs, () if is_cut else (run.request,), keyed=keyed, counts=counts)
        except Exception as error:  # noqa: BLE001 - told to the caller, and logged there
            return error
        if outputs.refusal is not None:
            return outputs.refusal.error(0, work.rows, before=first)
        run.ends = done.ends
        run.raws.append(done.raws)
        run.size += sum(map(len, done.raws))
        run.features_s += outputs.features_s
        run.infer_s += outputs.infer_s
        run.shapes = [(run.batch.rows, *array.shape[1:]) if is_cut else array.shape for array in outputs.arrays]
        if run.kept is not None:
            run.kept.append(outputs.arrays)
        if run.size > answerer.reply_bytes:
            return answerer.too_large(run.request.rows, run.size)
        if self._clock() >= run.request.deadline_s and not run.batch.is_probe:
            return answerer.too_late(run.request)
        return None

    def _recorded(self, run: _LargeRun, outputs: Outputs, first: int, rows: int) -> Sequence[KeyedRows]:
        """Keeps what is to be recorded of a slice, whose first row of the request this is; its rows by the request's key."""
        records, request = self._answerer.records, run.request
        if records is None or not request.id_field or first >= MOST_ROWS:
            return ()
        predicted = self._answerer.predicted(outputs)
        if predicted is None:
            return ()
        run.predicted.append(predicted)
        return [KeyedRows(0, records.key_of(id_of(request.id_field)), 0, rows, first)]

    def _finish(self, run: _LargeRun, reply: bytes | Exception) -> None:
        if self._run is not run:
            return
        if isinstance(reply, bytes):
            self._answerer.finish_large(
                run.request,
                reply,
                run.batch.rows,
                started_s=run.started_s,
                features_s=run.features_s,
                infer_s=run.infer_s,
                kept=run.kept,
                predicted=run.predicted,
            )
        self._end(run, reply if isinstance(reply, Exception) else None)

    def _end(self, run: _LargeRun, error: Exception | None) -> None:
        now_s = self._clock()
        is_whole = error is None and run.rows == run.batch.rows
        self._run = None
        self.queue.ended(run.batch, now_s, now_s - run.started_s if is_whole else None)
        if error is not None:
            self._answerer.failed(run.request, error)
        self.go_on()
        self._ended()


def _caught(join: Callable[[], bytes]) -> bytes | Exception:
    try:
        return join()
    except Exception as error:  # noqa: BLE001 - a bug fails the request and nothing else
        return error
