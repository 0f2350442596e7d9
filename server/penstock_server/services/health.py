"""grpc.health.v1: Check and Watch, for the server ("" and its service's name) and for each model by name.

Source: grpc/health/v1/health.proto.
"""

from grpc_health.v1 import health_pb2 as pb

from penstock.names import HEALTH_SERVICE, INFERENCE_SERVICE
from penstock_server.call import Call
from penstock_server.errors import NotFoundError
from penstock_server.parse import parse
from penstock_server.prediction.predictor import Predictor
from penstock_server.transport.interface import Methods, StreamReceiver

_Status = pb.HealthCheckResponse


class Health:
    """Answers checks from the predictor's routing table, and notifies watchers when it has changed.

    `drain` makes every service NOT_SERVING, so that load balancers send no more calls.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._watchers: list[_Watcher] = []
        self._is_draining = False

    @property
    def methods(self) -> Methods:
        return Methods({f"/{HEALTH_SERVICE}/Check": self.check}, {f"/{HEALTH_SERVICE}/Watch": self._watch})

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
        self._watchers = [watcher for watcher in self._watchers if not watcher.call.is_over]
        for watcher in self._watchers:
            watcher.notify(self)

    def drain(self) -> None:
        """Makes everything NOT_SERVING, and ends all watches."""
        self._is_draining = True
        self.changed()
        for watcher in self._watchers:
            watcher.call.finish()

    def _watch(self, call: Call) -> StreamReceiver:
        watcher = _Watcher(call)

        def receive(message: bytes | None) -> None:
            if message is not None and watcher.service is None:
                watcher.service = _service(message)
                # Watchers that left are dropped here too: probes come and go while nothing changes.
                self._watchers = [*(known for known in self._watchers if not known.call.is_over), watcher]
                watcher.notify(self)

        return receive


class _Watcher:
    """One Watch call, and the status last sent on it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.service: str | None = None
        self._sent: int | None = None

    def notify(self, health: Health) -> None:
        status = health.status(self.service or "")
        if status != self._sent:
            self._sent = status
            self.call.send(_Status(status=status).SerializeToString())


def _service(message: bytes) -> str:
    service: str = parse(pb.HealthCheckRequest, message, "grpc.health.v1").service
    return service
