"""The process that makes spans of what workers have written, and sends them to an OpenTelemetry collector.

The supervisor starts it when requests are traced, and again if it ends. It runs at a low priority. While the collector takes
nothing, spans wait up to a bound, and the oldest are dropped and counted. It ends when its standard input does, after it has
sent what is there, so it outlives the workers but not the server.
"""

import os
import random
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import structlog

from penstock_server import lifeline
from penstock_server.log_setup import configure_logging
from penstock_server.tracing.collector import Collector, CollectorRefusedError, collector_of, pairs_in
from penstock_server.tracing.otlp import SpanEncoder, Spans, Value
from penstock_server.tracing.settings import Service
from penstock_server.tracing.span_file import SpanFile

log = structlog.get_logger(__name__)

LOOK_S: Final = 0.25
"""How often the workers' records are taken: there is room for 4,096 per worker."""
SEND_S: Final = 1.0
"""How long spans are gathered."""
BATCH_SPANS: Final = 4096
"""The most in one request; a collector's gRPC takes 4 MiB by default, and a span about 300 bytes."""
WAITING_SPANS: Final = 65536
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
WARN_S: Final = 60.0


class Exporter:
    """Takes records, and sends their spans.

    Args:
        file: where records come from.
        encoder: makes spans of them.
        collector: takes these.
        offset_ns: what the monotonic clock is behind the time since 1970.
        fraction: a random number from 0 up to 1 at each call.
    """

    def __init__(
        self,
        file: SpanFile,
        encoder: SpanEncoder,
        collector: Collector,
        *,
        offset_ns: Callable[[], int],
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._file = file
        self._encoder = encoder
        self._collector = collector
        self._offset_ns = offset_ns
        self._fraction = fraction
        self._waiting: deque[Spans] = deque()
        self._waiting_spans = 0
        self._send_at_s = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._warn_at_s = float("-inf")

    def look(self) -> None:
        """Takes what workers have written."""
        failed = 0
        for slot in range(self._file.workers):
            records = self._file.take(slot)
            if len(records):
                names = partial(self._file.name, slot)
                for spans in self._encoder.spans(records, names, self._offset_ns()):
                    self._waiting.append(spans)
                    self._waiting_spans += spans.total
        while self._waiting_spans > WAITING_SPANS:
            failed += self._take().total
        self._file.count(sent=0, failed=failed)

    def send(self, now_s: float) -> bool:
        """Sends what has waited long enough, or is a whole batch; whether there may be more to send at once."""
        if not self._waiting or now_s < self._send_at_s:
            return False
        batch = [self._take()]
        count = batch[0].total
        while self._waiting and count + self._waiting[0].total <= BATCH_SPANS:
            batch.append(self._take())
            count += batch[-1].total
        try:
            taken = self._collector.send(self._encoder.request(batch))
        except CollectorRefusedError as error:
            self._refused(batch, count, error, now_s)
            return False
        if taken.message:
            self._warn(now_s, "the collector of traces says", reason=taken.message, rejected=taken.rejected)
        rejected = min(taken.rejected, count)
        self._file.count(sent=count - rejected, failed=rejected)
        self._pause_s = FIRST_PAUSE_S
        if self._waiting:
            return True
        self._send_at_s = now_s + SEND_S
        return False

    def finish(self, now_s: float) -> None:
        """Sends what is left, once."""
        self.look()
        self._send_at_s = now_s
        while self.send(now_s):
            pass
        self._file.count(sent=0, failed=self._waiting_spans)
        self._waiting.clear()
        self._collector.close()

    def _take(self) -> Spans:
        spans = self._waiting.popleft()
        self._waiting_spans -= spans.total
        return spans

    def _refused(self, batch: list[Spans], count: int, error: CollectorRefusedError, now_s: float) -> None:
        if error.is_final:
            self._file.count(sent=0, failed=count)
        else:
            self._waiting.extendleft(reversed(batch))
            self._waiting_spans += count
        pause_s = error.retry_after_s
        if pause_s is None:
            pause_s = self._pause_s * (0.5 + self._fraction())
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._send_at_s = now_s + min(pause_s, LONGEST_PAUSE_S)
        self._warn(now_s, "the collector of traces takes no spans", reason=str(error), waiting=self._waiting_spans)

    def _warn(self, now_s: float, what: str, **fields: Value) -> None:
        if now_s >= self._warn_at_s:
            self._warn_at_s = now_s + WARN_S
            log.warning(what, **fields)


def resource_of(name: str, environment: Mapping[str, str], instance: str) -> dict[str, Value]:
    """The attributes of the service whose spans these are; the environment's come first."""
    given = pairs_in(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    return {
        "service.instance.id": instance,
        "service.version": _version(),
        **({"service.name": name} | given),
        **({"service.name": own} if (own := environment.get("OTEL_SERVICE_NAME", "")) else {}),
    }


def server_of(host: str, port: int) -> dict[str, Value]:
    """The attributes of where a server is called."""
    return {"server.address": host, **({"server.port": port} if port else {})}


_services: Final = msgspec.json.Decoder(Service)


def main() -> None:
    """Takes and sends until standard input ends, and once more then."""
    lifeline.end_with_parent(int(sys.argv[2]))
    service = _services.decode(sys.argv[1])
    configure_logging()
    encoder = SpanEncoder(
        resource_of(service.name, os.environ, str(uuid.uuid4())),
        _version(),
        server_of(service.server_host, service.server_port),
    )
    collector = collector_of(service.endpoint, service.protocol, os.environ)
    exporter = Exporter(SpanFile(Path(service.file)), encoder, collector, offset_ns=_offset_ns)
    while not lifeline.input_has_ended(LOOK_S):
        exporter.look()
        while exporter.send(time.monotonic()):
            exporter.look()
    exporter.finish(time.monotonic())


def _offset_ns() -> int:
    return time.time_ns() - time.monotonic_ns()


def _version() -> str:
    return version("penstock")


if __name__ == "__main__":
    main()
