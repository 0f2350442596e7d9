"""grpc.health.v1: Check and Watch, for the server ("" and its service's name) and for each model by name.

Source: grpc/health/v1/health.proto.
"""

from typing import Final

from grpc_health.v1 import health_pb2 as pb

from penstock.names import HEALTH_SERVICE, INFERENCE_SERVICE
from penstock_server.call import Call
from penstock_server.errors import NotFoundError, OverloadedError
from penstock_server.parse import parse_small
from penstock_server.prediction.predictor import Predictor
from penstock_server.transport.interface import Methods, StreamReceiver

MAX_WATCHERS: Final = 1000
"""Watches of one worker; each is told of every change."""

_Status = pb.HealthCheckResponse


class Health:
    """Answers checks from the predictor's routing table, and notifies watchers when it has changed.

    `drain` makes every service NOT_SERVING, so that load balancers send no more calls; checks are answered meanwhile.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._watchers: dict[_Watcher, None] = {}
        self._is_draining = False

    @property
    def methods(self) -> Methods:
        check = f"/{HEALTH_SERVICE}/Check"
        return Methods({check: self.check}, {f"/{HEALTH_SERVICE}/Watch": self._watch}, frozenset({check}))

    def check(self, message: bytes, call: Call) -> None:
        """One status; NOT_FOUND for a service that is not known."""
        service = _service(message)
        status = self.status(service)
        if status == _Status.SERVICE_UNKNOWN:
            raise NotFoundError(f"no service or model {service!r}")
        call.finish(_Status(status=status).SerializeToString())

    def status(self, service: str) -> int:
        """The status of a service or model now."""
        routing_table = self._predictor.routing_table
        if service in {"", INFERENCE_SERVICE}:
            serves = routing_table.is_ready
        elif service in routing_table.models:
            serves = routing_table.models[service].is_ready
        else:
            return int(_Status.SERVICE_UNKNOWN)
        return int(_Status.SERVING if serves and not self._is_draining else _Status.NOT_SERVING)

    def changed(self) -> None:
        """Notifies the watchers of services whose status differs, after a swap of the table; on the reactor's thread."""
        for watcher in tuple(self._watchers):
            watcher.notify()

    def drain(self) -> None:
        """Makes everything NOT_SERVING, and ends all watches."""
        self._is_draining = True
        self.changed()
        for watcher in tuple(self._watchers):
            watcher.call.finish()
        self._watchers.clear()

    def add(self, watcher: "_Watcher") -> None:
        """Notifies a watcher from now on; `OverloadedError` when there are too many."""
        if len(self._watchers) >= MAX_WATCHERS:
            raise OverloadedError(f"{MAX_WATCHERS} health watches are open already; try again later")
        self._watchers[watcher] = None

    def remove(self, watcher: "_Watcher") -> None:
        """Forgets a watcher whose caller left."""
        self._watchers.pop(watcher, None)

    def _watch(self, call: Call) -> StreamReceiver:
        watcher = _Watcher(self, call)
        call.pending = watcher
        return watcher.receive


class _Watcher:
    """One Watch call, and the status last sent on it."""

    def __init__(self, health: Health, call: Call) -> None:
        self.call = call
        self._health = health
        self._service: str | None = None
        self._sent: int | None = None

    def receive(self, message: bytes | None) -> None:
        if message is not None and self._service is None:
            self._service = _service(message)
            self._health.add(self)
            self.notify()

    def cancelled(self) -> None:
        self._health.remove(self)

    def notify(self) -> None:
        if self.call.is_over:
            # It failed, because its caller does not read.
            self._health.remove(self)
            return
        status = self._health.status(self._service or "")
        if status != self._sent:
            self._sent = status
            self.call.send(_Status(status=status).SerializeToString())


def _service(message: bytes) -> str:
    service: str = parse_small(pb.HealthCheckRequest, message, "grpc.health.v1").service
    return service
