"""Which messages a process takes, and what its group remembers of them: pure, so that each case is a row of a table.

A message is taken if its partition is this process's and if it was not taken before. What the consumer hands out may hold
others: those of a partition that was given up a moment ago, and those that come a second time after a partition came back
or a transaction was aborted. Two records say all of it: where each partition that is held stands, and what a batch makes of
that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock_tools.stream.message import Message

UNKNOWN = -1
"""Where a partition stands of which the group remembers nothing; every offset is behind it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are answered in one transaction.

    Attributes:
        messages: these, each partition's in the order of its offsets.
        before: where its partitions stand if the transaction does not come about: the first offset of each.
        after: where they stand if it does: the offset after the last of each, which is what the group remembers.
    """

    messages: Sequence[Message]
    before: Mapping[int, int]
    after: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Positions:
    """Where the partitions stand that this process holds.

    Attributes:
        next: the offset of the next message that is taken, by partition; `UNKNOWN` if any is.
    """

    next: Mapping[int, int] = field(default_factory=dict)

    def given(self, starts: Mapping[int, int]) -> "Positions":
        """With partitions that this process holds from now on, each from an offset on."""
        return Positions({**self.next, **starts})

    def without(self, partitions: Iterable[int]) -> "Positions":
        """Without partitions that it does not hold any more."""
        gone = set(partitions)
        return Positions({partition: at for partition, at in self.next.items() if partition not in gone})

    def batch(self, messages: Iterable[Message]) -> Batch:
        """Those of these messages that are taken."""
        standing = dict(self.next)
        taken: list[Message] = []
        before: dict[int, int] = {}
        for message in messages:
            partition, offset = message.partition, message.offset
            at = standing.get(partition)
            if at is not None and offset >= at:
                standing[partition] = offset + 1
                taken.append(message)
                if partition not in before:
                    before[partition] = offset
        return Batch(taken, before, {partition: standing[partition] for partition in before})

    def past(self, batch: Batch) -> "Positions":
        """After a batch whose transaction was committed."""
        return self.given({partition: at for partition, at in batch.after.items() if partition in self.next})

    def rewound(self, batch: Batch) -> Mapping[int, int]:
        """Where to read again after a batch whose transaction was aborted, for the partitions that are still held."""
        return {partition: at for partition, at in batch.before.items() if partition in self.next}
