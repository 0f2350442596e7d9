"""Plain requests of a version whose answers are kept: they are looked for as they come, before any of them waits.

A lane of its own takes them from a turn's events. It refuses and holds nobody: `look_up` is called in the executor's next
step, also while its thread runs a batch. What is kept is answered as a batch for which nothing ran. The others go on to the
version's own lane, by the limits, priorities and deadlines that hold there.
"""

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Final

import numpy as np

from penstock_server.models.servable import Outputs
from penstock_server.plain.lane import Lane, LaneBatch
from penstock_server.prediction.answerer import Answerer, PendingRequest
from penstock_server.prediction.plain_batches import PlainBatches, Reader, parts, tails
from penstock_server.prediction.recent import RecentRequests
from penstock_server.prediction.work import Work
from penstock_server.response_cache.responses import VersionResponses
from penstock_server.transport.interface import PlainPort

ROWS: Final = 1024
"""The rows that are looked for at once."""


class KeptBatches(PlainBatches):
    """The plain requests of one executor as they come.

    Args:
        answerer, lane, port, read, key_of, give_back: as `PlainBatches` has them.
        queue: has a request wait in the executor's queue.
        onward: takes what is not kept.
        responses: what is kept.
        recent: the requests that drift counts no second time now; None where it counts each.
    """

    def __init__(
        self,
        answerer: Answerer,
        lane: Lane,
        port: PlainPort,
        *,
        read: Reader,
        key_of: Callable[[bytes], str],
        queue: Callable[[PendingRequest], None],
        give_back: Callable[[Lane], None],
        onward: PlainBatches,
        responses: VersionResponses,
        recent: Callable[[], RecentRequests | None],
    ) -> None:
        super().__init__(answerer, lane, port, read=read, key_of=key_of, run_alone=queue, give_back=give_back)
        lane.forms = onward.lane.forms
        # Each number is written anew when a request comes that has it.
        self._keys: dict[int, bytes] = {}
        onward.cache_keys = self._keys
        self._onward = onward.lane
        self._responses = responses
        self._recent = recent

    def look_up(self, now_s: float) -> None:
        """Answers what is kept of the next requests, and has the others go on; raises nothing."""
        began_s = self._answerer.now_s()
        batch = self.next_batch(ROWS, now_s)
        try:
            hits, rows, kept, misses = self._found(batch)
        except Exception as error:  # noqa: BLE001 - logged, and told to those who wait
            self.fail(batch, error)
            self.end(batch)
            return
        each_s = (self._answerer.now_s() - began_s) / max(1, hits.count + misses.count)
        try:
            if hits.count:
                self._answer_kept(hits, rows, kept, began_s)
        except Exception as error:  # noqa: BLE001 - logged, and told to those who wait
            self.fail(hits, error)
        finally:
            self.end(hits)
        try:
            if misses.count:
                self._go_on(misses, each_s, now_s)
        except Exception as error:  # noqa: BLE001 - logged, and told to those who wait
            self.fail(misses, error)
        finally:
            self.end(misses)

    def _found(self, batch: LaneBatch) -> tuple[LaneBatch, list[tuple[bytes, ...]], list[Outputs], LaneBatch]:
        """The requests whose answers are kept, their blocks, these answers, and the other requests, as a batch each."""
        responses, recent = self._responses, self._recent()
        counts = [batch.rows] if batch.count == 1 else self.lane.row_counts(batch).tolist()
        rows = parts(self.lane.blocks(), counts, self.lane.row_bytes)
        keys = [responses.key(blocks, count, None, ()) for blocks, count in zip(rows, counts, strict=True)]
        found = [responses.get(key) for key in keys]
        # What has outputs of another width runs: one batch has one.
        first = next((tails(each) for each in found if each is not None), None)
        is_hit = [each is not None and tails(each) == first for each in found]
        repeats = [] if recent is None else [recent.has(blocks) for blocks in rows]
        hits, misses = self.lane.split(batch, is_hit)
        self.take_over(misses if hits is batch else hits)
        if misses.count:
            lacking = (key for key, has in zip(keys, is_hit, strict=True) if not has)
            self._keys.update(zip(misses.numbers.tolist(), lacking, strict=True))
        hits.is_repeat = recent is not None and all(compress(repeats, is_hit))
        kept = [each for each in compress(found, is_hit) if each is not None]
        return hits, [*compress(rows, is_hit)], kept, misses

    def _answer_kept(
        self, hits: LaneBatch, rows: Sequence[tuple[bytes, ...]], kept: Sequence[Outputs], began_s: float
    ) -> None:
        """Answers requests by what is kept for their rows, as one batch."""
        answerer, outputs = self._answerer, _one(kept)
        blocks = rows[0] if len(rows) == 1 else tuple(map(b"".join, zip(*rows, strict=True)))
        work = Work(answerer.servable, blocks, hits.rows, None, None, hits.is_repeat)
        answerer.count_kept(work)
        drawn, traced = self.draw(hits), self.traced_requests(hits)
        hits.rows = 0  # which replies tell: nothing ran for them
        ended_s = answerer.now_s()
        count = self.write(hits, outputs, features_s=0.0, infer_s=0.0, began_s=began_s, ended_s=ended_s)
        answered = work.rows if count == hits.count else int(self.lane.row_counts(hits)[hits.answered].sum())
        answerer.report.hits(requests=count, rows=answered, started_s=began_s, ended_s=ended_s)
        self.lane.send_replies()
        if count < hits.count:
            self.refuse_too_large(hits)
        if drawn:
            self.log(hits, drawn, outputs)
        self.observe(hits, work, outputs, traced)

    def _go_on(self, misses: LaneBatch, each_s: float, now_s: float) -> None:
        """Has requests wait where they run from, and leaves those to the general path on which that lane does not decide."""
        self._answerer.report.missed(each_s * misses.count, misses.count)
        self.lane.pass_on(misses, self._onward, now_s)
        self.lane.tell_refused()
        self.let_go(misses, self._queue_up)

    def _queue_up(self, request: PendingRequest) -> None:
        request.cache_key = self._responses.key(*request.decoded)
        self.run_alone(request)


def _one(kept: Sequence[Outputs]) -> Outputs:
    """What a version gave for several requests, as if it had run once."""
    if len(kept) == 1:
        return kept[0]
    arrays = [np.concatenate(rows) for rows in zip(*(each.arrays for each in kept), strict=True)]
    return Outputs(arrays, sum(each.features_s for each in kept), sum(each.infer_s for each in kept))
