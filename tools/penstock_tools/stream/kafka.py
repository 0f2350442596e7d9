"""The one module that speaks to Kafka: a consumer that knows what is its own, and a producer whose transactions commit both.

A batch's answers and the group's positions behind its messages are one transaction, so that either both are there or
neither. What the group is told by is taken when the messages come: a process that was away while its partitions went to
another one then speaks for a member that is gone, and the broker refuses it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.stream.message import Message, Outgoing
from penstock_tools.stream.moves import Fault, move_after, reason
from penstock_tools.stream.positions import UNKNOWN, Batch, Positions

log = structlog.get_logger(__name__)

TRANSACTION_MS: Final = 10_000
"""After so long the broker aborts a transaction whose process is gone. Until then readers wait, and so does who takes over."""
METADATA_S: Final = 10.0
STEP_S: Final = 10.0
"""How long one step of a transaction may take before it is asked for again."""
_OWN: Final = {
    "bootstrap.servers": "--brokers",
    "group.id": "--group",
    "transactional.id": "--instance",
    "auto.offset.reset": "--from",
    "enable.auto.commit": "",
    "enable.auto.offset.store": "",
    "enable.idempotence": "",
    "isolation.level": "",
    "partition.assignment.strategy": "",
}
"""What a file of settings may not say, and the option that says it; "" for what exactly once needs as it is."""


def read_config(file: Path) -> dict[str, str]:
    """Settings of Kafka's client from a file of lines `name=value`; lines that begin with # are left out.

    Raises:
        InvalidInputError: it cannot be read, a line is none, or it says what it may not.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InvalidInputError(f"{file}, line {number}: expected name=value, such as security.protocol=SASL_SSL")
        if name in _OWN:
            option = _OWN[name]
            told = f"use {option}" if option else "exactly once needs it as Penstock sets it"
            raise InvalidInputError(f"{file}, line {number}: {name} may not be set here; {told}")
        found[name] = value.strip()
    return found


class Connection:
    """How to reach the brokers, and who this process is.

    Args:
        brokers: host:port, several with commas.
        group: the consumer group.
        instance: this process's name, which stays over restarts; "" for a new one at each start.
        process: tells processes apart that have no such name.
        more: further settings of Kafka's client.
    """

    def __init__(self, brokers: str, group: str, instance: str, process: str, more: Mapping[str, str]) -> None:
        self.group = group
        self.instance = instance
        self._common: dict[str, Any] = {
            "bootstrap.servers": brokers,
            "client.id": f"penstock-stream-{instance or process}",
            "logger": _Lines(),
            "error_cb": _log_error,
            **more,
        }
        self._transactional_id = f"penstock-{group}-{instance or process}"

    def consumer(self, first: str) -> Any:
        """A consumer; `first` is where a partition is read from of which the group remembers nothing."""
        own = {
            "group.id": self.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": first,
            # What others write in transactions is read once it is committed; and the group's positions once they are settled.
            "isolation.level": "read_committed",
            # A member that joins takes partitions from others, which go on with the rest of theirs meanwhile.
            "partition.assignment.strategy": "cooperative-sticky",
        }
        usual = {"queued.max.messages.kbytes": 32_768}
        return _made(Consumer, {**usual, **_for(_CONSUMER, self._common), **own})

    def producer(self) -> Any:
        """A producer of transactions."""
        usual = {
            "transaction.timeout.ms": TRANSACTION_MS,
            # As Java's clients deal keys, so that a key's answers stand in the partition where others would look for them.
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 200_000,
        }
        return _made(Producer, {**usual, **_for(_PRODUCER, self._common), "transactional.id": self._transactional_id})


_CONSUMER: Final = frozenset(
    {
        "group.instance.id",
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "max.poll.interval.ms",
        "fetch.wait.max.ms",
        "fetch.min.bytes",
    }
    | {"queued.max.messages.kbytes", "queued.min.messages", "max.partition.fetch.bytes", "fetch.message.max.bytes"}
)
_PRODUCER: Final = frozenset(
    {"linger.ms", "compression.type", "partitioner", "transaction.timeout.ms", "acks", "batch.size"}
    | {"queue.buffering.max.messages", "queue.buffering.max.kbytes", "delivery.timeout.ms", "batch.num.messages"}
)


def _for(kind: frozenset[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that only the other kind of client has, which it would complain of."""
    other = _PRODUCER if kind is _CONSUMER else _CONSUMER
    return {name: value for name, value in settings.items() if name not in other}


def _made(kind: Callable[[dict[str, Any]], Any], settings: dict[str, Any]) -> Any:
    try:
        return kind(settings)
    except KafkaException as error:
        raise InvalidInputError(f"Kafka's client refuses a setting: {error.args[0].str()}") from None
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"Kafka's client refuses a setting: {error}") from None


class Input:
    """The messages of a topic's partitions that this process holds.

    Args:
        consumer: as `Connection.consumer` makes it.
        topic: the topic.

    Attributes:
        positions: where the partitions stand.
        rebalances: how often partitions were given or taken.
        lag: how many messages of each partition waited at the last `look`.
    """

    def __init__(self, consumer: Any, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self.positions = Positions()
        self.rebalances = 0
        self.lag: Mapping[int, int] = {}
        self._reported: set[str] = set()

    def open(self) -> None:
        """Joins the group."""
        self._consumer.subscribe([self._topic], on_assign=self._given, on_revoke=self._taken, on_lost=self._taken)

    def next(self, most: int, wait_s: float) -> Batch:
        """The messages that have come: as many as `most`, else those that come within `wait_s`.

        Raises:
            UnavailableError: the client can do nothing more.
        """
        try:
            found = self._consumer.consume(most, wait_s)
        except KafkaException as error:
            raise UnavailableError(f"Kafka refuses: {error.args[0].str()}") from error
        return self.positions.batch(message for each in found if (message := self._message(each)) is not None)

    def member(self) -> Any | None:
        """What the group knows this process by now; None if it is no member, so that its messages are another's.

        It stays None from the moment that the client notices until `next` has told that the partitions are gone.
        """
        metadata = self._consumer.consumer_group_metadata()
        return metadata if self._consumer.memberid() else None

    def offsets(self, batch: Batch) -> list[Any]:
        """The positions behind a batch, as the client takes them."""
        return [TopicPartition(self._topic, partition, offset) for partition, offset in batch.after.items()]

    def committed(self, batch: Batch) -> None:
        """Goes on behind a batch."""
        self.positions = self.positions.past(batch)

    def rewind(self, batch: Batch) -> None:
        """Reads a batch's messages again, of those partitions that are still this process's."""
        for partition, offset in self.positions.rewound(batch).items():
            try:
                self._consumer.seek(TopicPartition(self._topic, partition, offset))
            except KafkaException as error:
                # It is about to be taken away, and its next holder reads from what was committed.
                log.info("a partition is not read again", partition=partition, reason=error.args[0].str())

    def look(self) -> None:
        """Notes how many messages of each partition wait, as far as the client knows without asking.

        On the thread that takes messages: the client lets no other in while it waits for some.
        """
        found: dict[int, int] = {}
        for partition, at in self.positions.next.items():
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            if high >= 0:
                found[partition] = max(0, high - max(at, low, 0))
        self.lag = found

    def close(self) -> None:
        """Leaves the group, so that others take over at once."""
        self._consumer.close()

    def _message(self, found: Any) -> Message | None:
        error = found.error()
        if error is None:
            kind, at = found.timestamp()
            return Message(
                found.partition(), found.offset(), found.key(), found.value(), at if kind else None, found.headers()
            )
        if error.fatal():
            raise UnavailableError(f"Kafka refuses: {error.str()}")
        if error.str() not in self._reported:
            self._reported.add(error.str())
            log.warning("Kafka reports", reason=error.str())
        return None

    def _given(self, consumer: Any, partitions: Sequence[Any]) -> None:
        """Takes over partitions from where the group stands, which the client and this process must see alike."""
        if partitions:
            self.rebalances += 1
        starts = _committed(consumer, partitions)
        self.positions = self.positions.given({each.partition: _start(each.offset) for each in starts})
        consumer.incremental_assign(starts)
        log.info("partitions taken over", partitions={each.partition: each.offset for each in starts})

    def _taken(self, consumer: Any, partitions: Sequence[Any]) -> None:
        """Gives up partitions; no transaction is open, since messages are asked for only between two."""
        if partitions:
            self.rebalances += 1
        numbers = [each.partition for each in partitions]
        self.positions = self.positions.without(numbers)
        consumer.incremental_unassign(partitions)
        log.info("partitions given up", partitions=numbers)


def _committed(consumer: Any, partitions: Sequence[Any]) -> list[Any]:
    """Where the group stands in partitions. While a transaction of the former holder is open, that is not known yet."""
    while partitions:
        try:
            found = consumer.committed(list(partitions), timeout=METADATA_S)
        except KafkaException as error:
            if not (error.args[0].retriable() or error.args[0].code() == KafkaError._TIMED_OUT):  # noqa: SLF001 - their name
                raise
            log.info("waiting for what the group remembers", reason=error.args[0].str())
            continue
        refused = next((each.error for each in found if each.error is not None), None)
        if refused is not None:
            raise KafkaException(refused)
        return list(found)
    return []


def _start(offset: int) -> int:
    return UNKNOWN if offset in {OFFSET_INVALID, OFFSET_BEGINNING, OFFSET_END} else int(offset)


class Output:
    """Sends answers and dead letters in transactions.

    Args:
        producer: as `Connection.producer` makes it.
        instance: the process's name in its group, for errors.

    Attributes:
        committed, aborted: how many transactions were.
    """

    def __init__(self, producer: Any, instance: str) -> None:
        self._producer = producer
        self._instance = instance
        self.committed = 0
        self.aborted = 0

    def open(self) -> None:
        """Ends what a former process with this name has left open; `UnavailableError` if it cannot."""
        self._settle(lambda: self._producer.init_transactions(STEP_S), can_abort=False)

    def commit(self, messages: Iterable[Outgoing], offsets: Sequence[Any], member: Any) -> bool:
        """Sends messages and tells the group where it stands, both or neither; false if it was neither.

        Raises:
            UnavailableError: the client can do nothing more; nothing of it was committed.
        """
        producer = self._producer
        producer.begin_transaction()
        is_done = (
            self._settle(lambda: self._send(messages), can_repeat=False)
            and self._settle(lambda: producer.send_offsets_to_transaction(offsets, member, STEP_S))
            and self._settle(lambda: producer.commit_transaction(STEP_S))
        )
        if is_done:
            self.committed += 1
            return True
        self._settle(lambda: producer.abort_transaction(STEP_S), can_abort=False)
        self.aborted += 1
        return False

    def _send(self, messages: Iterable[Outgoing]) -> None:
        produce = self._producer.produce
        for message in messages:
            while True:
                try:
                    if message.headers is None:
                        produce(message.topic, message.value, message.key)
                    else:
                        produce(message.topic, message.value, message.key, headers=message.headers)
                except BufferError:
                    # The broker takes them more slowly than they are made.
                    self._producer.poll(0.05)
                    continue
                break

    def _settle(self, step: Callable[[], object], *, can_abort: bool = True, can_repeat: bool = True) -> bool:
        """Does a step of a transaction until it is done; false if the transaction has to be aborted."""
        while True:
            try:
                step()
            except KafkaException as error:
                fault = fault_of(error.args[0])
                move = move_after(fault)
                if move == "again" and can_repeat:
                    log.info("Kafka takes its time", reason=fault.text)
                    continue
                if move == "abort" and can_abort:
                    log.warning("a transaction is aborted, and its messages are read again", reason=fault.text)
                    return False
                raise UnavailableError(reason(fault, self._instance)) from error
            return True


def fault_of(error: Any) -> Fault:
    """An error of the client as `moves` takes it."""
    return Fault(
        error.name(),
        error.str(),
        is_fatal=error.fatal(),
        aborts=error.txn_requires_abort(),
        is_passing=error.retriable() or error.code() == KafkaError._TIMED_OUT,  # noqa: SLF001 - their name
    )


def require_topics(client: Any, topics: Mapping[str, str]) -> None:
    """Checks that topics are there.

    Args:
        client: a consumer or a producer.
        topics: each with the option that names it.

    Raises:
        UnavailableError: no broker answers.
        InvalidInputError: one is not there.
    """
    for topic, option in topics.items():
        try:
            found = client.list_topics(topic, timeout=METADATA_S).topics.get(topic)
        except KafkaException as error:
            raise UnavailableError(f"no broker answers: {error.args[0].str()}") from None
        if found is None or found.error is not None:
            told = "" if found is None else f" ({found.error.str()})"
            raise InvalidInputError(f"there is no topic {topic!r}{told}; create it, or name another with {option}")


class _Lines:
    """Takes the lines of Kafka's client as a logger of Python's does."""

    def log(self, level: int, text: str, *values: object) -> None:
        write = log.warning if level >= 30 else log.debug
        write("Kafka's client", reason=text % values if values else text)


def _log_error(error: Any) -> None:
    log.warning("Kafka's client", reason=error.str())
