"""The stream: takes what has come, answers it, and commits answers and positions together, until it is told to stop.

One thread does it in turn. Messages wait with Kafka's client until they are asked for, so a slow model takes fewer at a
time and nothing grows; and since messages are asked for only between two transactions, partitions come and go only then.
"""

import time
from collections.abc import Callable
from typing import Final

import structlog

from penstock_server.clock import Clock, monotonic
from penstock_tools.stream.answering import Answered, Topics, answered
from penstock_tools.stream.follower import Serving
from penstock_tools.stream.intake import Intake
from penstock_tools.stream.kafka import Input, Output
from penstock_tools.stream.meter import Meter
from penstock_tools.stream.positions import Batch
from penstock_tools.stream.shadows import ShadowThread

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
"""So often the lag is noted."""


class Stream:
    """One member of a consumer group that answers messages.

    Args:
        model: the model's name.
        topics: where messages come from and go to.
        source: the messages.
        sink: takes the answers.
        take: what answers now; asked before each batch.
        shadows: get copies; None for none.
        meter: counts.
        intake: what a batch may hold.
        most_bytes: the largest value that can be sent.

    Attributes:
        is_joined: it has begun.
        beat_s: when it last came round.
    """

    def __init__(
        self,
        model: str,
        topics: Topics,
        source: Input,
        sink: Output,
        take: Callable[[], Serving],
        *,
        shadows: ShadowThread,
        meter: Meter,
        intake: Intake,
        most_bytes: int,
        clock: Clock = monotonic,
        wall: Clock = time.time,
    ) -> None:
        self._model = model
        self._topics = topics
        self._source = source
        self._sink = sink
        self._take = take
        self._shadows = shadows
        self._meter = meter
        self._intake = intake
        self._most_bytes = most_bytes
        self._clock = clock
        self._wall = wall
        self._is_stopping = False
        self.is_joined = False
        self.beat_s = clock()
        self._looked_s = clock()

    def stop(self) -> None:
        """Has `run` end after the batch that it is at; safe in a signal's handler."""
        self._is_stopping = True

    def run(self) -> None:
        """Answers until `stop`.

        Raises:
            UnavailableError: Kafka's client can do nothing more; what was not committed is read again by whoever comes next.
        """
        self.is_joined = True
        while not self._is_stopping:
            self.beat_s = self._clock()
            self.step()
            if self.beat_s - self._looked_s >= LOOK_S:
                self._looked_s = self.beat_s
                self._source.look()

    def step(self) -> int:
        """Answers what has come, and returns how many messages that were; 0 if nothing came or nothing was committed."""
        began_s = self._clock()
        batch = self._source.next(self._intake.ask_for, self._intake.wait_s)
        taken_s = self._clock()
        self._meter.waited(taken_s - began_s)
        member = self._source.member()
        if member is None or not batch.messages:
            # Without a member nothing of it may be committed, and the next call tells that the partitions are gone.
            return 0
        self._intake = self._intake.seen(len(batch.messages), sum(message.size_bytes for message in batch.messages))
        serving = self._take()
        found = answered(
            batch.messages,
            serving.plan,
            serving.versions,
            model=self._model,
            topics=self._topics,
            most_bytes=self._most_bytes,
        )
        answered_s = self._clock()
        is_committed = self._sink.commit(found.outgoing, self._source.offsets(batch), member)
        self._meter.worked(answered_s - taken_s, self._clock() - answered_s)
        if not is_committed:
            self._source.rewind(batch)
            return 0
        self._source.committed(batch)
        self._count(serving, batch, found, taken_s, answered_s)
        return len(batch.messages)

    def _count(self, serving: Serving, batch: Batch, found: Answered, taken_s: float, answered_s: float) -> None:
        now_s = self._clock()
        for part in found.parts:
            version = serving.versions[part.version]
            version.count(part, began_s=taken_s, ended_s=answered_s, now_s=now_s)
            self._meter.answered(version.key, part)
            self._shadows.offer(serving.plan, serving.versions, part, answered_s - taken_s)
        self._meter.committed(batch, self._wall())
