"""How requests are traced: the table `[tracing]` of the settings file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from penstock_server.errors import InvalidInputError

Protocol = Literal["http/protobuf", "grpc"]
CERTIFICATES: Final = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
"""The variables that name a file of authorities to trust; the first counts."""


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Which requests are traced, and where their spans go.

    Headers for the collector, such as a key, come from `OTEL_EXPORTER_OTLP_HEADERS`, a certificate authority from
    `OTEL_EXPORTER_OTLP_CERTIFICATE`, and attributes of the service from `OTEL_RESOURCE_ATTRIBUTES`, as OpenTelemetry has
    them.

    Attributes:
        endpoint: an OpenTelemetry collector, `http://host:4318` or `http://host:4317` for gRPC; https is spoken over TLS. None
            traces nothing.
        protocol: of OTLP.
        sample_ratio: the share of requests to trace of those whose caller has decided nothing. One that is traced, or is
            not, says so in `traceparent`, and that holds.
        service: the name of this service; `OTEL_SERVICE_NAME` comes before it.
    """

    endpoint: str | None = None
    protocol: Protocol = "http/protobuf"
    sample_ratio: float = 0.01
    service: str = "penstock"

    def __post_init__(self) -> None:
        # Written so that NaN is refused as well.
        if not 0 <= self.sample_ratio <= 1:
            raise InvalidInputError(f"tracing.sample_ratio is {self.sample_ratio}, expected a share from 0 to 1")
        if self.endpoint is not None:
            _check(self.endpoint)

    @property
    def is_on(self) -> bool:
        """Whether spans go anywhere."""
        return self.endpoint is not None


class Service(NamedTuple):
    """What the exporter is told: what is traced, and where its spans go.

    Attributes:
        file: what workers write into.
        endpoint, protocol: of the collector.
        name: of the service.
        server_host, server_port: where it is called; no port for a socket file.
    """

    file: str
    endpoint: str
    protocol: Protocol
    name: str
    server_host: str
    server_port: int


def certificates_in(environment: Mapping[str, str]) -> Path | None:
    """The file of authorities that a collector's certificate is checked by; None for those of the system.

    Raises:
        InvalidInputError: it cannot be read; names the variable.
    """
    for name in CERTIFICATES:
        if found := environment.get(name):
            try:
                Path(found).read_bytes()
            except OSError as error:
                raise InvalidInputError(f"{name} is {found!r}, which cannot be read: {error.strerror}") from error
            return Path(found)
    return None


def _check(endpoint: str) -> None:
    wanted = "expected http://HOST:PORT or https://HOST:PORT of an OpenTelemetry collector"
    try:
        parts = urlsplit(endpoint)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise InvalidInputError(f"tracing.endpoint is {endpoint!r}, {wanted}: {error}") from error
    if parts.scheme not in ("http", "https") or not has_host or parts.query or parts.fragment:
        raise InvalidInputError(f"tracing.endpoint is {endpoint!r}, {wanted}")
    if parts.username is not None or parts.password is not None:
        # It stands in logs and on command lines.
        raise InvalidInputError(
            "tracing.endpoint holds a user or password; give them as a header in OTEL_EXPORTER_OTLP_HEADERS"
        )
