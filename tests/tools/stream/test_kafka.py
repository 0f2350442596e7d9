"""The consumer and the producer with a client that does as told: what cannot be had of a broker at will."""

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.stream import kafka
from penstock_tools.stream.message import Message, Outgoing
from penstock_tools.stream.positions import UNKNOWN, Batch, Positions


def error(code=KafkaError._TIMED_OUT, *, fatal=False, retriable=False, aborts=False):
    return KafkaException(KafkaError(code, "told so", fatal, retriable, aborts))


class Producer:
    """Fails each step as often as it is told."""

    def __init__(self, **failures):
        self.failures = {name: list(errors) for name, errors in failures.items()}
        self.done = []

    def _step(self, name):
        if self.failures.get(name):
            raise self.failures[name].pop(0)
        self.done.append(name)

    def init_transactions(self, timeout):
        self._step("init")

    def begin_transaction(self):
        self._step("begin")

    def produce(self, topic, value, key, **more):
        self._step("produce")

    def poll(self, timeout):
        self._step("poll")

    def send_offsets_to_transaction(self, offsets, member, timeout):
        self._step("offsets")

    def commit_transaction(self, timeout):
        self._step("commit")

    def abort_transaction(self, timeout):
        self._step("abort")


def sent(**failures):
    producer = Producer(**failures)
    output = kafka.Output(producer, "pod-0")
    done = output.commit([Outgoing("t", None, b"a"), Outgoing("t", None, b"b")], [TopicPartition("in", 0, 1)], object())
    assert (output.committed, output.aborted) == (int(done), int(not done))
    return done, producer.done


def test_answers_then_positions_then_the_end():
    assert sent() == (True, ["begin", "produce", "produce", "offsets", "commit"])


def test_what_passes_is_tried_again():
    passing = {"offsets": [error(retriable=True), error()], "commit": [error()]}
    assert sent(**passing) == (True, ["begin", "produce", "produce", "offsets", "commit"])


def test_waits_where_the_broker_is_slow_and_sends_nothing_twice():
    done, steps = sent(produce=[BufferError(), BufferError()])
    assert done
    assert steps == ["begin", "poll", "poll", "produce", "produce", "offsets", "commit"]


@pytest.mark.parametrize("step", ["produce", "offsets", "commit"])
def test_aborts_what_can_no_longer_be_committed(step):
    done, steps = sent(**{step: [error(KafkaError.ILLEGAL_GENERATION, aborts=True)]})
    assert not done
    assert steps[-1] == "abort"
    assert "commit" not in steps


@pytest.mark.parametrize("step", ["produce", "offsets", "commit"])
def test_ends_when_it_is_fenced(step):
    with pytest.raises(UnavailableError, match="another process with --instance pod-0"):
        sent(**{step: [error(KafkaError._FENCED, fatal=True)]})


class Consumer:
    def __init__(self, *, member="m"):
        self.member = member
        self.assigned, self.sought, self.positions = [], [], {}
        self.failures = []

    def subscribe(self, topics, **callbacks):
        self.callbacks = callbacks

    def committed(self, partitions, timeout):
        if self.failures:
            raise self.failures.pop(0)
        return [
            TopicPartition(each.topic, each.partition, self.positions.get(each.partition, -1001)) for each in partitions
        ]

    def incremental_assign(self, partitions):
        self.assigned += [(each.partition, each.offset) for each in partitions]

    def incremental_unassign(self, partitions):
        self.assigned = [each for each in self.assigned if each[0] not in [one.partition for one in partitions]]

    def consumer_group_metadata(self):
        return object()

    def memberid(self):
        return self.member

    def seek(self, partition):
        if partition.partition == 1:
            raise error(KafkaError._STATE)
        self.sought.append((partition.partition, partition.offset))


def partitions(*numbers):
    return [TopicPartition("rows", number) for number in numbers]


def test_begins_where_the_group_stands_and_waits_until_that_is_known():
    consumer = Consumer()
    consumer.positions = {0: 7}
    consumer.failures = [error(), error(retriable=True)]
    source = kafka.Input(consumer, "rows")
    source.open()
    consumer.callbacks["on_assign"](consumer, partitions(0, 1))
    assert consumer.assigned == [(0, 7), (1, -1001)]
    assert source.positions.next == {0: 7, 1: UNKNOWN}
    consumer.callbacks["on_assign"](consumer, [])  # a rebalance that changes nothing here
    consumer.callbacks["on_lost"](consumer, partitions(0))
    assert source.positions.next == {1: UNKNOWN}
    assert consumer.assigned == [(1, -1001)]
    assert source.rebalances == 2


def test_one_that_the_group_does_not_know_any_more_commits_nothing():
    assert kafka.Input(Consumer(member=""), "rows").member() is None
    assert kafka.Input(Consumer(), "rows").member() is not None


def test_reads_again_what_was_aborted_where_it_still_may():
    consumer = Consumer()
    source = kafka.Input(consumer, "rows")
    source.positions = Positions({0: 5, 1: 5})
    source.rewind(Batch([Message(0, 5, None, b"")], {0: 5, 1: 5, 2: 5}, {0: 6, 1: 6, 2: 6}))
    assert consumer.sought == [(0, 5)]


def test_reads_settings(tmp_path):
    file = tmp_path / "client.properties"
    file.write_text("# ours\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n")
    assert kafka.read_config(file) == {"security.protocol": "SASL_SSL", "sasl.password": "a=b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "line 1: expected name=value"),
        ("a=1\nisolation.level=read_uncommitted", "line 2: isolation.level may not be set.*exactly once"),
        ("group.id=g", "use --group"),
    ],
)
def test_says_which_setting_is_wrong(tmp_path, text, told):
    file = tmp_path / "client.properties"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=told):
        kafka.read_config(file)


def test_says_what_the_client_refuses():
    connection = kafka.Connection("127.0.0.1:1", "g", "", "p", {"no.such": "1"})
    with pytest.raises(InvalidInputError, match=r"refuses a setting.*no\.such"):
        connection.consumer("earliest")
