"""What `penstock stream` does once its options are read: puts the parts together, runs the stream, and ends it in order."""

import os
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from penstock_server.clock import monotonic
from penstock_server.control.verdict import LoadSettings
from penstock_server.drift.report import DriftRules
from penstock_server.errors import InvalidInputError
from penstock_server.metrics.store import CounterStore
from penstock_server.python.settings import PythonSettings
from penstock_server.sources.registry import default_registry
from penstock_tools.batch.scoring import SLICE_ROWS
from penstock_tools.stream import kafka
from penstock_tools.stream.answering import Topics
from penstock_tools.stream.arrow_rows import ArrowRows
from penstock_tools.stream.codec import Format, MakeCodec
from penstock_tools.stream.follower import Follower, Serving, registry_source
from penstock_tools.stream.intake import Intake
from penstock_tools.stream.json_rows import JsonRows
from penstock_tools.stream.meter import Meter
from penstock_tools.stream.shadows import ShadowThread
from penstock_tools.stream.status import Signs, Status, StatusServer
from penstock_tools.stream.stream import Stream
from penstock_tools.stream.version import VersionLoader

log = structlog.get_logger(__name__)

MESSAGE_BYTES: Final = 1_000_000
"""The largest message that Kafka's client sends, unless message.max.bytes says another."""
ROOM_BYTES: Final = 1024
"""What a message has around its value."""
POLL_S: Final = 2.0
LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `penstock stream`.

    Attributes:
        brokers: host:port, several with commas.
        source, answers, dead_letters: the topics.
        group: the consumer group.
        instance: this process's name in it, which stays over restarts; "" for none.
        keep: the fields that go from a message into its answer.
        schema: a file with an Avro schema.
        schema_registry: the address of a Schema Registry.
        first: where a partition is read from of which the group remembers nothing.
        registry: None for `MLFLOW_TRACKING_URI`, else a local file.
        most_messages, most_bytes: in one batch.
        wait_s: the longest that a message waits for others.
        config: a file with further settings of Kafka's client.
        host, http_port: where metrics are shown.
    """

    model: str
    brokers: str
    source: str
    answers: str
    dead_letters: str
    group: str
    instance: str = ""
    format: Format = "json"
    keep: tuple[str, ...] = ()
    schema: Path | None = None
    schema_registry: str | None = None
    first: str = "earliest"
    registry: str | None = None
    most_messages: int = 5000
    most_bytes: int = 16 << 20
    wait_s: float = 0.02
    config: Path | None = None
    host: str = "127.0.0.1"
    http_port: int = 8003
    allows_python: bool = False

    def __post_init__(self) -> None:
        topics = (self.source, self.answers, self.dead_letters)
        if len(set(topics)) < len(topics):
            raise InvalidInputError(
                f"messages come from {self.source!r}, answers go to {self.answers!r} and dead letters to "
                f"{self.dead_letters!r}; expected three topics"
            )
        if self.format == "avro" and (self.schema is None) == (self.schema_registry is None):
            raise InvalidInputError("Avro needs either --schema or --schema-registry, which say what messages hold")
        if self.format != "avro" and (self.schema, self.schema_registry) != (None, None):
            raise InvalidInputError(f"--schema and --schema-registry are for --format avro, not {self.format}")
        if self.most_messages < 1:
            raise InvalidInputError(f"--max-messages is {self.most_messages}, expected at least 1")
        if not 0 <= self.wait_s <= 60:
            raise InvalidInputError(f"--wait-ms is {self.wait_s * 1e3:g}, expected 0 to 60000")


def run(request: Request, announce: Callable[[str], None]) -> None:
    """Answers messages until SIGTERM or SIGINT; then commits the batch that it is at, and leaves its group.

    Args:
        request: the arguments.
        announce: called once with a line that says that the stream runs.

    Raises:
        InvalidInputError: an argument is wrong, or a topic is not there.
        UnavailableError: no broker answers, a port is taken, or another process has taken this one's place.
    """
    more = {} if request.config is None else kafka.read_config(request.config)
    stopper = _Stopper()
    with ExitStack() as stack:
        for name in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, name, signal.signal(name, stopper))
        process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        connection = kafka.Connection(request.brokers, request.group, request.instance, process, more)
        consumer, producer = connection.consumer(request.first), connection.producer()
        source = kafka.Input(consumer, request.source)
        stack.callback(source.close)
        sink = kafka.Output(producer, request.instance)
        topics = Topics(request.source, request.answers, request.dead_letters)
        kafka.require_topics(consumer, {request.source: "--in"})
        kafka.require_topics(producer, {request.answers: "--out", request.dead_letters: "--dead-letters"})

        counters = stack.enter_context(CounterStore())
        make = _codec(request)
        python = PythonSettings(allow=request.allows_python)
        loader = VersionLoader(make, counters, request.keep, DriftRules().window_rows, request.allows_python)
        registry = default_registry() if request.registry is None else request.registry
        follower = Follower(
            request.model,
            partial(registry_source, registry, request.model),
            loader,
            interval_s=POLL_S,
            how=LoadSettings(max_rows=SLICE_ROWS, python=python),
        )
        shadows = ShadowThread()
        meter = Meter(
            lag=lambda: source.lag,
            transactions=lambda: (sink.committed, sink.aborted),
            rebalances=lambda: source.rebalances,
            topic=request.source,
        )
        stream = Stream(
            request.model,
            topics,
            source,
            sink,
            follower.take,
            shadows=shadows,
            meter=meter,
            intake=Intake(request.most_messages, request.most_bytes, request.wait_s),
            most_bytes=int(more.get("message.max.bytes", MESSAGE_BYTES)) - ROOM_BYTES,
        )
        status = Status(counters, lambda: follower.serving, DriftRules())
        server = StatusServer(
            (request.host, request.http_port),
            status.registry(meter),
            lambda: Signs(follower.serving, stream.is_joined, monotonic() - stream.beat_s, follower.problem),
        )
        stack.callback(server.close)
        stack.callback(follower.close)
        stack.callback(shadows.close)
        follower.start()
        log.info("waiting for a version", model=request.model, http=server.address)
        if not _wait(follower, stopper):
            return
        sink.open()
        source.open()
        status.start()
        stack.callback(status.close)
        stopper.stop = stream.stop
        if not stopper.is_stopping:
            announce(
                f"penstock streams {request.model} {_served(follower.serving)}: {request.source} -> {request.answers}, "
                f"dead letters {request.dead_letters}, group {request.group}; metrics http://{server.address}/metrics"
            )
            stream.run()
        log.info("leaving the group")


class _Stopper:
    """Handles the signals that end a stream: the first has it end in order, a second at once.

    Attributes:
        stop: called at the first.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self.stop: Callable[[], None] = lambda: None

    def __call__(self, number: int, _frame: Any) -> None:
        if self.is_stopping:
            os._exit(128 + number)
        self.is_stopping = True
        self.stop()


def _wait(follower: Follower, stopper: _Stopper) -> bool:
    """Waits until something can answer, and says what it waits for; false if it is to end before."""
    told = ""
    while not follower.wait(LOOK_S):
        if stopper.is_stopping:
            return False
        if follower.problem != told:
            told = follower.problem
            log.info("nothing can answer yet", reason=told)
    return not stopper.is_stopping


def _served(serving: Serving | None) -> str:
    return "" if serving is None else f"version {serving.plan.champion}"


def _codec(request: Request) -> MakeCodec:
    """Makes the codecs of the format."""
    if request.format == "json":
        return JsonRows
    if request.format == "arrow":
        return ArrowRows
    from penstock_tools.stream.avro_rows import AvroRows
    from penstock_tools.stream.schemas import RegisteredSchemas, SchemaFile

    if request.schema is not None:
        return partial(AvroRows, schemas=SchemaFile(request.schema))
    from confluent_kafka.schema_registry import SchemaRegistryClient

    try:
        client = SchemaRegistryClient({"url": request.schema_registry})
    except ValueError as error:
        raise InvalidInputError(f"--schema-registry is wrong: {error}") from None
    return partial(AvroRows, schemas=RegisteredSchemas(client, request.answers))
