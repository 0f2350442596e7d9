"""What a stream shows over HTTP: metrics, and whether it is alive and ready.

Its versions have the series that a server's have, by the same names, so that dashboards, alerts and rollouts that ask
Prometheus see streams and servers alike.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from penstock_server.drift.gauges import DriftCollector
from penstock_server.drift.monitor import DriftMonitor, Watched
from penstock_server.drift.report import DriftRules, VersionDrift
from penstock_server.errors import UnavailableError
from penstock_server.metrics.prometheus import MetricsCollector, MetricsSnapshot, VersionSnapshot
from penstock_server.metrics.store import CounterStore
from penstock_tools.stream.follower import Serving
from penstock_tools.stream.version import StreamVersion

LOOK_S: Final = 1.0
SERIES: Final = 50
"""The most columns with series, as in a server by default."""
SILENT_S: Final = 120.0
"""A stream that has not come round for so long hangs; a transaction that waits for its broker comes round sooner."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of the stream.

    Attributes:
        serving: what answers; None while nothing does.
        is_joined: it has joined its group.
        idle_s: how long ago it last came round.
        problem: why nothing answers.
    """

    serving: Serving | None
    is_joined: bool
    idle_s: float
    problem: str


def unready(signs: Signs) -> str:
    """Why the stream answers nothing, in one sentence; "" if it does."""
    if signs.serving is None:
        return signs.problem
    return "" if signs.is_joined else "it has not joined its group yet"


def lifeless(signs: Signs) -> str:
    """Why the stream should be started anew; "" if it need not."""
    if not signs.is_joined or signs.idle_s < SILENT_S:
        return ""
    return f"it has not come round for {signs.idle_s:.0f} s"


class Status:
    """Joins what is known for metrics.

    Args:
        counters: what the versions counted.
        serving: what answers; None while nothing does.
        rules: when drift is an alarm.
    """

    def __init__(self, counters: CounterStore, serving: Callable[[], Serving | None], rules: DriftRules) -> None:
        self._counters = counters
        self._serving = serving
        self._monitor = DriftMonitor(lambda _: rules)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="drift", daemon=True)

    def start(self) -> None:
        """Starts to look for drift, on a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Ends that thread."""
        self._ending.set()
        self._thread.join()

    def metrics(self) -> MetricsSnapshot:
        """What a scrape shows of the versions."""
        serving = self._serving()
        versions = [] if serving is None else self._snapshots(serving)
        return MetricsSnapshot(versions, {}, offset_ns=time.time_ns() - time.monotonic_ns())

    def drift(self) -> tuple[VersionDrift, ...]:
        """The drift of each version that has a baseline."""
        return tuple(self._monitor.drift_of(one) for one in self._watched())

    def registry(self, *more: object) -> CollectorRegistry:
        """All of it for Prometheus."""
        registry = CollectorRegistry()
        for collector in (MetricsCollector(self.metrics), DriftCollector(self.drift, SERIES), *more):
            registry.register(collector)  # type: ignore[arg-type]  # each is one
        return registry

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_S):
            self._monitor.look(self._watched())

    def _watched(self) -> list[Watched]:
        serving = self._serving()
        if serving is None:
            return []
        found = []
        for version in _in_plan(serving):
            counters, reference = self._counters.of_version(version.key), version.reference
            if counters and reference is not None:
                found.append(Watched(version.key, serving.plan.roles(version.key[1]), counters, reference))
        return found

    def _snapshots(self, serving: Serving) -> list[VersionSnapshot]:
        """What was counted of each version, but for one that the stream has closed since it was in force."""
        return [
            VersionSnapshot(
                *version.key,
                roles=serving.plan.roles(name),
                weight=serving.plan.weight(name),
                counters=counters,
                class_names=version.class_names,
                fraction=serving.plan.fraction(name),
            )
            for name, version in zip(serving.plan.versions, _in_plan(serving), strict=True)
            if (counters := self._counters.of_version(version.key))
        ]


def _in_plan(serving: Serving) -> list[StreamVersion]:
    return [serving.versions[name] for name in serving.plan.versions]


class StatusServer:
    """Answers /metrics, /healthz and /readyz on a thread of its own.

    Args:
        address: host and port; port 0 picks a free one.
        registry: what /metrics shows.
        signs: what is known of the stream.

    Raises:
        UnavailableError: the port is taken.
    """

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, signs: Callable[[], Signs]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                match self.path.partition("?")[0]:
                    case "/metrics":
                        self._send(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                    case "/healthz":
                        self._tell(lifeless(signs()))
                    case "/readyz":
                        self._tell(unready(signs()))
                    case _:
                        self._send(404, b"there are /metrics, /healthz and /readyz\n")

            def log_message(self, *_: object) -> None:
                """Logs nothing: probes ask every few seconds."""

            def _tell(self, problem: str) -> None:
                self._send(503 if problem else 200, f"{problem or 'ok'}\n".encode())

            def _send(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        try:
            self._server = ThreadingHTTPServer(address, Handler)
        except OSError as error:
            raise UnavailableError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens, host:port."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
