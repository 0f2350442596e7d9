"""Shadows get copies of what the champion answered, on a thread of their own, and answers are compared as servers do it.

A shadow never holds up the stream: while it runs, further batches pass it by and are counted as dropped. What it answers
goes nowhere.
"""

import queue
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from penstock_server.clock import Clock, monotonic
from penstock_server.prediction.outputs import agreement
from penstock_server.rollout.plan import TrafficPlan
from penstock_tools.batch.scoring import Scored
from penstock_tools.stream.answering import Part
from penstock_tools.stream.version import StreamVersion

log = structlog.get_logger(__name__)

WAITING: Final = 1
"""How many batches wait for a shadow that runs another."""


class _Copy(NamedTuple):
    champion: StreamVersion
    shadow: StreamVersion
    values: Sequence[bytes]
    scored: Scored
    took_s: float


class ShadowThread:
    """Runs shadows.

    Args:
        fraction: a random number from 0 up to 1 at each call.
        clock: measures runs.
    """

    def __init__(self, fraction: Callable[[], float] = random.random, clock: Clock = monotonic) -> None:
        self._fraction = fraction
        self._clock = clock
        self._copies: queue.Queue[_Copy | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, plan: TrafficPlan, versions: Mapping[str, StreamVersion], part: Part, took_s: float) -> None:
        """Gives the champion's part of a batch to each shadow that it is drawn for."""
        if part.version != plan.champion or part.scored is None or not part.values:
            return
        for arm in plan.shadows:
            shadow = versions[arm.version]
            if self._fraction() >= arm.fraction:
                shadow.recorder.shadow_dropped("sampled_out", len(part.values))
                continue
            try:
                self._copies.put_nowait(_Copy(versions[part.version], shadow, part.values, part.scored, took_s))
            except queue.Full:
                shadow.recorder.shadow_dropped("busy", len(part.values))

    def close(self) -> None:
        """Ends the thread after what waits."""
        self._copies.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (copy := self._copies.get()) is not None:
            try:
                self._compare(copy)
            except Exception as error:  # noqa: BLE001 - counted; a shadow must not end the thread
                log.warning("shadow failed", model=copy.shadow.key[0], version=copy.shadow.key[1], reason=str(error))
                copy.shadow.recorder.shadow_failed(len(copy.values))

    def _compare(self, copy: _Copy) -> None:
        began_s = self._clock()
        own = copy.shadow.shadowed(copy.values)
        took_s = self._clock() - began_s
        recorder = copy.shadow.recorder
        rows = copy.scored.answers.num_rows + len(copy.scored.bad)
        if own is None or own.answers.num_rows + len(own.bad) != rows:
            recorder.shadow_dropped("incompatible", len(copy.values))
            return
        champions, shadows = _answered(copy.scored, rows), _answered(own, rows)
        both = champions & shadows
        copy.shadow.add_counts(self._clock())
        recorder.shadow_refused(int(np.count_nonzero(champions & ~shadows)))
        readers = copy.champion.scorer.reader, copy.shadow.scorer.reader
        found = agreement(
            [array[both[champions]] for array in copy.scored.outputs],
            [array[both[shadows]] for array in own.outputs],
            classes=(readers[0].classes, readers[1].classes),
            scores=(readers[0].score, readers[1].score),
            rows=int(np.count_nonzero(both)),
        )
        recorder.shadow_compared(
            agree=found.agree,
            distance=found.distance,
            classes=found.classes,
            champion_s=copy.took_s,
            shadow_s=took_s,
        )


def _answered(scored: Scored, rows: int) -> NDArray[np.bool_]:
    """Which rows were answered, bool [rows]."""
    found = np.ones(rows, np.bool_)
    found[[row.row for row in scored.bad]] = False
    return found
