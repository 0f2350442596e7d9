"""A stream with a real broker: each message is answered once, whatever is killed, frozen, or comes and goes.

`broker.Broker` tells what the broker of these tests shows, and what it does not.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, TopicPartition

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.stream import kafka
from penstock_tools.stream.message import Outgoing
from tests.tools.stream.broker import QUICK, Broker
from tests.tools.stream.member import member

pytestmark = pytest.mark.slow


def rows(first, last):
    return [(f"k{at}", json.dumps({"id": at, "x": at}).encode()) for at in range(first, last)]


def run_until(stream, answered):
    """Has a stream answer so many messages."""
    deadline = time.monotonic() + 40
    while answered > 0:
        assert time.monotonic() < deadline
        answered -= stream.step()


def make(broker, topic):
    broker.make(topic, f"{topic}.out", f"{topic}.dead")


def test_answers_and_dead_letters_and_positions_are_one_transaction(broker):
    make(broker, "plain")
    broker.send("plain", [*rows(0, 300), ("bad", b"{"), ("low", b'{"id": 1, "x": -4}'), ("none", None)])
    stream, source, sink, meter = member(broker.address, "plain", "plain", "", 100)
    sink.open()
    source.open()
    run_until(stream, 303)
    source.look()
    assert source.lag == dict.fromkeys(range(4), 0)
    found = [json.loads(message.value()) for message in broker.read("plain.out", 300)]
    assert sorted(each["id"] for each in found) == list(range(300))
    assert all(each["double"] == 2 * each["id"] for each in found)
    dead = {message.key(): dict(message.headers()) for message in broker.read("plain.dead", 3)}
    assert b"no row in JSON" in dead[b"bad"]["penstock.error"]
    assert b"is -4, expected 0 or more" in dead[b"low"]["penstock.error"]
    assert b"no value" in dead[b"none"]["penstock.error"]
    # Each answer is in the partition of its message: keys are dealt in one way.
    sent = {message.key(): message.partition() for message in broker.read("plain", 303)}
    assert sum(broker.positions("plain", "plain").values()) == 303
    assert len(set(sent.values())) == 4
    source.close()
    samples = {(each.name, *each.labels.values()): each.value for family in meter.collect() for each in family.samples}
    assert samples["penstock_stream_messages_total", "toy", "1", "answered"] == 300
    assert samples["penstock_stream_messages_total", "toy", "1", "unreadable"] == 2
    assert samples["penstock_stream_messages_total", "toy", "1", "unanswered"] == 1
    assert samples["penstock_stream_end_to_end_seconds_count",] == 303


def test_an_aborted_transaction_commits_neither_answers_nor_positions_and_its_messages_come_again(broker):
    make(broker, "abort")
    broker.send("abort", rows(0, 100))
    stream, source, sink, _ = member(broker.address, "abort", "abort", "", 1000)
    sink.open()
    source.open()
    commit, refused = sink.commit, []

    def refuse_once(messages, offsets, at):
        if refused:
            return commit(messages, offsets, at)
        refused.append(len(list(messages)))
        # As `commit` does when the broker has the transaction aborted, after answers and positions were sent.
        producer = sink._producer
        producer.begin_transaction()
        sink._send(messages)
        producer.send_offsets_to_transaction(offsets, at, 10)
        producer.flush(10)
        producer.abort_transaction(10)
        return False

    sink.commit = refuse_once
    run_until(stream, 100)
    source.close()
    values, aborted = broker.committed("abort.out")
    assert sorted(json.loads(value)["id"] for value in values) == list(range(100))
    assert aborted == refused[0] > 0
    assert sum(broker.positions("abort", "abort").values()) == 100


def test_a_former_process_of_the_same_instance_can_commit_nothing(broker):
    make(broker, "fenced")
    settings = {**QUICK, "transaction.timeout.ms": "6000"}
    former = kafka.Output(kafka.Connection(broker.address, "fenced", "pod-0", "", settings).producer(), "pod-0")
    former.open()
    producer = former._producer
    producer.begin_transaction()
    producer.produce("fenced.out", b"former")
    producer.flush(10)
    # It hangs here, and another one takes its place.
    later = kafka.Output(kafka.Connection(broker.address, "fenced", "pod-0", "", settings).producer(), "pod-0")
    later.open()
    consumer = kafka.Connection(broker.address, "fenced", "", "", QUICK).consumer("earliest")
    member = consumer.consumer_group_metadata()
    assert later.commit([Outgoing("fenced.out", None, b"later")], [TopicPartition("fenced", 0, 1)], member)
    with suppress(KafkaException):
        producer.commit_transaction(3)
    consumer.close()
    assert broker.committed("fenced.out") == ([b"later"], 1)


class Group:
    """Processes of `member.py` in one group, and messages that go on coming."""

    def __init__(self, broker: Broker, topic: str, folder: Path, *, most: int, instances: bool = False) -> None:
        make(broker, topic)
        self.topic = topic
        self.sent = 0
        self._broker = broker
        self._folder = folder
        self._most = str(most)
        self._instances = instances
        self._producer = broker.producer()
        self._started = 0
        self._logs = [folder, folder]
        self.processes = [self.start(0), self.start(1)]
        for slot in (0, 1):
            self.until_given(slot, 1)

    def start(self, slot: int) -> subprocess.Popen:
        name = f"member-{slot}" if self._instances else ""
        command = [sys.executable, str(Path(__file__).parent / "member.py")]
        arguments = [self._broker.address, self.topic, self.topic, name, self._most]
        self._started += 1
        self._logs[slot] = self._folder / f"member-{self._started}.log"
        with self._logs[slot].open("w") as log:
            return subprocess.Popen([*command, *arguments], stdout=log, stderr=log)

    def given(self, slot: int) -> int:
        """How often a member was given partitions."""
        events = [json.loads(line) for line in self._logs[slot].read_text().splitlines() if line.startswith("{")]
        return sum(each["event"] == "partitions taken over" and bool(each["partitions"]) for each in events)

    def until_given(self, slot: int, times: int) -> None:
        deadline = time.monotonic() + 60
        while self.given(slot) < times:
            assert time.monotonic() < deadline, self._logs[slot].read_text()
            time.sleep(0.05)

    def feed(self, messages: int) -> None:
        for key, value in rows(self.sent, self.sent + messages):
            self._producer.produce(self.topic, value, key)
        self.sent += messages
        assert self._producer.flush(20) == 0

    def answered(self) -> list[int]:
        return [json.loads(value)["id"] for value in self._broker.committed(f"{self.topic}.out")[0]]

    def until_answered(self, messages: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.answered()) < messages:
            assert time.monotonic() < deadline, f"{len(self.answered())} of {messages} answered"
            time.sleep(0.05)

    def end(self) -> list[int]:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        return [process.wait(30) for process in self.processes]


def disturb(group: Group, events: int, draw: random.Random) -> None:
    """Kills, stops, freezes and starts members while they answer, each when both have partitions.

    Tansu sometimes never goes on with a group of which a member is gone before it was given some.
    """
    for _ in range(events):
        group.feed(3000)
        group.until_answered(group.sent - draw.randrange(500, 3000))
        slot = draw.randrange(2)
        process, given = group.processes[slot], group.given(slot)
        how = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
        process.send_signal(how)
        if how == signal.SIGSTOP:
            # Longer than a session: all of these are answered once its partitions have gone to the other one. Then it wakes up.
            group.feed(500)
            group.until_answered(group.sent)
            process.send_signal(signal.SIGCONT)
            group.until_given(slot, given + 1)
        else:
            process.wait(30)
            group.processes[slot] = group.start(slot)
            group.until_given(slot, 1)
    group.until_answered(group.sent)


@pytest.mark.parametrize("instances", [False, True], ids=["no names", "names that stay"])
@pytest.mark.timeout(300)
@pytest.mark.long
@pytest.mark.skipif(
    "PENSTOCK_KILL_STREAMS" not in os.environ,
    reason="this broker may never go on with a group whose member died on a busy machine; PENSTOCK_KILL_STREAMS=1 runs it",
)
def test_nothing_is_lost_or_doubled_over_kills_and_rebalances(broker, tmp_path, instances):
    group = Group(broker, f"kills{int(instances)}", tmp_path, most=50, instances=instances)
    try:
        disturb(group, 10, random.Random(instances))
    finally:
        codes = group.end()
    assert codes == [0, 0]
    found = group.answered()
    assert len(found) == len(set(found)) == group.sent


@pytest.mark.long
@pytest.mark.timeout(120)
def test_one_that_is_killed_in_the_middle_loses_and_doubles_nothing(broker, tmp_path):
    group = Group(broker, "killed", tmp_path, most=50)
    try:
        group.feed(4000)
        group.until_answered(500)
        group.processes[0].kill()
        group.processes[0].wait()
        group.until_answered(4000)
    finally:
        codes = group.end()
    assert codes == [-signal.SIGKILL, 0]
    found = group.answered()
    assert len(found) == len(set(found)) == 4000


def test_topics_that_are_not_there_are_named(broker):
    consumer = kafka.Connection(broker.address, "g", "", "", QUICK).consumer("earliest")
    with pytest.raises(InvalidInputError, match=r"there is no topic 'nowhere'.*--in"):
        kafka.require_topics(consumer, {"nowhere": "--in"})
    consumer.close()


def test_brokers_that_are_not_there_are_told(monkeypatch):
    monkeypatch.setattr(kafka, "METADATA_S", 0.5)
    consumer = kafka.Connection("127.0.0.1:1", "g", "", "", QUICK).consumer("earliest")
    with pytest.raises(UnavailableError, match="no broker answers"):
        kafka.require_topics(consumer, {"rows": "--in"})
    consumer.close()
