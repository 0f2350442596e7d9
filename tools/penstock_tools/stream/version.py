"""A loaded version in a stream: its scorer, its codec, and what is counted of it, as a server counts it.

The stream's thread and the shadow's may both ask one, for a version may be canary and shadow; a lock lets in one at a time.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from penstock.names import VersionKey
from penstock_server.drift.reference import reference_of
from penstock_server.metrics.counters import STAGES, CountersShape, latency_bucket, open_counters
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_tools.batch.scoring import Scored, Scorer
from penstock_tools.stream.answering import Part
from penstock_tools.stream.codec import Codec, MakeCodec, Shape

SLOT: Final = 0
"""A stream is one process, and counts in one slot."""
_TOTAL: Final = STAGES.index("total")
COUNT_S: Final = 1.0
"""So often what scorers have counted is added to the version's counters."""


class StreamVersion:
    """A version that answers messages.

    Args:
        scorer: scores its rows.
        make: makes its codec.
        recorder: counts.
        keep: the fields that go into answers.
        closed: called when it is closed.
        artifact: its files.

    Attributes:
        class_names: names for class labels that are indices; empty where labels are numbers.
        reference: the training rows; None for a version without a baseline.
    """

    def __init__(
        self,
        scorer: Scorer,
        make: MakeCodec,
        recorder: Recorder,
        *,
        keep: Sequence[str],
        closed: Callable[[], None],
        artifact: Artifact,
    ) -> None:
        self.key = scorer.key
        self.scorer = scorer
        columns = scorer.columns
        shape = Shape(columns, scorer.schema(columns), tuple(keep), *scorer.key)
        self.codec: Codec = make(shape)
        classes = () if artifact.manifest is None else artifact.manifest.classes or ()
        self.class_names = tuple(map(str, classes)) if any(isinstance(label, str) for label in classes) else ()
        baseline = artifact.baseline
        self.reference = None if baseline is None else reference_of(baseline, artifact.importance)
        self._recorder = recorder
        self._closed = closed
        self._lock = threading.Lock()
        self._is_closed = False
        self._counted_s = 0.0

    def score(self, rows: pa.RecordBatch) -> Scored:
        """The answers to rows."""
        with self._lock:
            return self.scorer.score(rows)

    def shadowed(self, values: Sequence[bytes]) -> Scored | None:
        """The answers to another version's messages; None if it is closed, or cannot read each of them."""
        rows = self.codec.read(values)
        if rows.unreadable:
            return None
        with self._lock:
            return None if self._is_closed else self.scorer.score(rows.batch)

    @property
    def recorder(self) -> Recorder:
        """Counts what it does."""
        return self._recorder

    def count(self, part: Part, *, began_s: float, ended_s: float, now_s: float) -> None:
        """Counts its part of a batch, which was taken at `began_s` and answered at `ended_s`."""
        counters, took_ns = self._recorder.counters, int((ended_s - began_s) * 1e9)
        messages = part.answered + sum(part.dead.values())
        counters.routed[0] += messages
        if part.answered:
            counters.latency[_TOTAL, latency_bucket(took_ns)] += part.answered
            counters.latency_ns[_TOTAL] += took_ns * part.answered
            rows = 0 if part.scored is None else part.scored.answers.num_rows
            self._recorder.stages(
                requests=part.answered, rows=rows, ended_s=ended_s, features_s=0.0, infer_s=ended_s - began_s
            )
        for _ in range(sum(part.dead.values())):
            self._recorder.refused("invalid_input")
        self.add_counts(now_s)

    def add_counts(self, now_s: float) -> None:
        """Adds what the scorer has counted, classes and drift, to the version's counters; once in `COUNT_S`."""
        if now_s - self._counted_s < COUNT_S:
            return
        self._counted_s = now_s
        with self._lock:
            counted = self.scorer.take_counts()
        if counted.rows:
            self._recorder.drift_added(counted.words, counted.rows)
        if counted.classes:
            values, counts = np.array(list(counted.classes)), list(counted.classes.values())
            self._recorder.classes(np.repeat(values, counts), is_drift=False)

    def close(self) -> None:
        """Frees what it holds."""
        with self._lock:
            self._is_closed = True
            self.scorer.close()
        self._closed()


@dataclass(frozen=True, slots=True)
class VersionLoader:
    """Loads versions for a stream.

    A version that is unloaded, and loaded again before the stream has closed it, goes on with its counters.

    Attributes:
        make: makes their codecs.
        counters: where they count.
        keep: the fields that go into answers.
        window_rows: of the drift window.
        allows_python: whether they may run Python.
    """

    make: MakeCodec
    counters: CounterStore
    keep: tuple[str, ...] = ()
    window_rows: int = 10_000
    allows_python: bool = False
    _loads: dict[VersionKey, object] = field(default_factory=dict, init=False, repr=False)
    """The last load of each version, which ends its counters."""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __call__(self, key: VersionKey, artifact: Artifact, identity: str) -> StreamVersion:
        """The version of these files; `PenstockError` if it cannot be loaded, or its columns are none of the format's."""
        scorer = Scorer(artifact, key, allows_python=self.allows_python)
        try:
            shape, baseline = CountersShape(), artifact.baseline
            if baseline is not None:
                shape = CountersShape(*baseline.cells_shape, answers=len(baseline.cells.answers))
            load = object()
            with self._lock:
                counters = open_counters(self.counters.version(SLOT, key, shape, identity), shape)
                self.counters.replace(SLOT, key, identity)
                self._loads[key] = load
            answers = () if baseline is None else baseline.cells.answers
            recorder = Recorder(counters, self.window_rows, answers)
            return StreamVersion(
                scorer,
                self.make,
                recorder,
                keep=self.keep,
                closed=lambda: self._forget(key, load),
                artifact=artifact,
            )
        except BaseException:
            scorer.close()
            raise

    def _forget(self, key: VersionKey, load: object) -> None:
        """Ends the counters of a version that was closed, unless it was loaded anew and counts there by now."""
        with self._lock:
            if self._loads.get(key) is load:
                del self._loads[key]
                self.counters.forget(SLOT, key)
