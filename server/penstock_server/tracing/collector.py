"""Sends spans to an OpenTelemetry collector, over HTTP or gRPC.

Source: OpenTelemetry protocol 1.x, "OTLP/HTTP Request" and "OTLP/gRPC": which answers mean that the same may be sent again, and
how soon. The environment's variables are those of "OpenTelemetry Protocol Exporter".
"""

import gzip
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from penstock_server.redirections import NoRedirection
from penstock_server.tracing.settings import certificates_in

TIMEOUT_S: Final = 5.0
_PATH: Final = "/v1/traces"
_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_HTTP_AGAIN: Final = frozenset({429, 502, 503, 504})
_GRPC_AGAIN: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS", "RESOURCE_EXHAUSTED"}
)
_LEVEL: Final = 1
_MAX_REPLY_BYTES: Final = 1 << 20
HEADERS: Final = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
COMPRESSION: Final = ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
"""Compression costs as much as the rest of a span's way, so it is off unless it is asked for, as OpenTelemetry has it."""


class CollectorRefusedError(Exception):
    """The collector did not take a request.

    Attributes:
        is_final: it will not take it later either.
        retry_after_s: it takes nothing before; None if it does not say.
    """

    def __init__(self, reason: str, *, is_final: bool, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.is_final = is_final
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Taken:
    """What a collector said of a request that it took.

    Attributes:
        rejected: how many spans it dropped.
        message: why, or a warning.
    """

    rejected: int = 0
    message: str = ""


class Collector(Protocol):
    """Where spans go."""

    def send(self, request: bytes) -> Taken:
        """Sends an `ExportTraceServiceRequest`; raises `CollectorRefusedError`."""
        ...

    def close(self) -> None:
        """Closes its connections."""


class HttpCollector:
    """A collector over HTTP.

    Args:
        endpoint: its address; `/v1/traces` is added, unless it ends so.
        headers: sent with each request.
        certificates: a file of authorities to trust; None trusts the system's.
        is_gzip: requests are compressed.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str], certificates: Path | None, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        base = endpoint.rstrip("/")
        self._url = base if base.endswith(_PATH) else base + _PATH
        self._headers = {
            **headers,
            "Content-Type": "application/x-protobuf",
            **({"Content-Encoding": "gzip"} if is_gzip else {}),
            "User-Agent": "penstock",
        }
        handlers: list[urllib.request.BaseHandler] = [NoRedirection()]
        if urlsplit(endpoint).scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=certificates)))
        self._opener = urllib.request.build_opener(*handlers)

    def send(self, request: bytes) -> Taken:
        body = gzip.compress(request, _LEVEL) if self._is_gzip else request
        asked = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310 - the settings check it
        try:
            with self._opener.open(asked, timeout=TIMEOUT_S) as reply:
                return _taken(reply.read(_MAX_REPLY_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                retry_after_s = _seconds(error.headers.get("Retry-After", ""))
                is_final = error.code not in _HTTP_AGAIN
            raise CollectorRefusedError(f"HTTP {error.code}", is_final=is_final, retry_after_s=retry_after_s) from error
        except (OSError, HTTPException) as error:
            raise CollectorRefusedError(str(getattr(error, "reason", error)), is_final=False) from error

    def close(self) -> None:
        """Nothing is kept open."""


class GrpcCollector:
    """A collector over gRPC.

    Args:
        endpoint: its address.
        headers: sent with each request.
        certificates: a file of authorities to trust; None trusts those of gRPC.
        is_gzip: requests are compressed.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str], certificates: Path | None, *, is_gzip: bool) -> None:
        import grpc

        parts = urlsplit(endpoint)
        target = parts.netloc if parts.port else f"{parts.netloc}:{443 if parts.scheme == 'https' else 4317}"
        options = [("grpc.primary_user_agent", "penstock")]
        if parts.scheme == "https":
            roots = None if certificates is None else certificates.read_bytes()
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_METHOD)
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._error = grpc.RpcError
        self._compression = grpc.Compression.Gzip if is_gzip else grpc.Compression.NoCompression

    def send(self, request: bytes) -> Taken:
        try:
            reply = self._export(request, timeout=TIMEOUT_S, metadata=self._metadata, compression=self._compression)
        except self._error as error:
            code = error.code().name
            raise CollectorRefusedError(f"{code}: {error.details()}", is_final=code not in _GRPC_AGAIN) from error
        return _taken(reply)

    def close(self) -> None:
        self._channel.close()


def collector_of(endpoint: str, protocol: str, environment: Mapping[str, str]) -> Collector:
    """The collector at an address.

    Args:
        endpoint: its address.
        protocol: `grpc` or `http/protobuf`.
        environment: may name headers, certificates and compression.

    Raises:
        InvalidInputError: the file of certificates cannot be read.
        ssl.SSLError: it holds none.
    """
    kind = GrpcCollector if protocol == "grpc" else HttpCollector
    return kind(
        endpoint,
        pairs_in(_first(environment, HEADERS)),
        certificates_in(environment),
        is_gzip=_first(environment, COMPRESSION) == "gzip",
    )


def pairs_in(text: str) -> dict[str, str]:
    """The pairs of a variable such as `OTEL_RESOURCE_ATTRIBUTES`; what is no pair is passed over.

    >>> pairs_in("team=fraud,region=eu%2Dwest")
    {'team': 'fraud', 'region': 'eu-west'}
    """
    pairs = [pair.partition("=") for pair in text.split(",")]
    return {name.strip(): unquote(value.strip()) for name, sign, value in pairs if name.strip() and sign}


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _taken(reply: bytes) -> Taken:
    try:
        partial = ExportTraceServiceResponse.FromString(reply).partial_success
    except Exception:  # noqa: BLE001 - protobuf's error; it was taken, whatever was said about it
        return Taken()
    return Taken(partial.rejected_spans, partial.error_message)


def _seconds(text: str) -> float | None:
    return float(text) if text.strip().isdigit() else None
