"""The settings of the gRPC port: limits, the life of connections, TLS; the same for every transport."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import structlog

from penstock_server.errors import InvalidInputError
from penstock_server.transport.tls_files import TlsFiles, tls_files

log = structlog.get_logger(__name__)

TransportName = Literal["native", "completion-queue", "aio"]
NATIVE: Final = "native"
COMPLETION_QUEUE: Final = "completion-queue"
AIO: Final = "aio"
Compression = Literal["none", "gzip"]
_GZIP: Final = 2
"""`GRPC_COMPRESS_GZIP` of grpc's core."""
_LAST_CALLS_MS: Final = 30_000
"""How long a connection's calls may still take after it was asked to close."""


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Limits and identity of the gRPC port.

    Attributes:
        max_message_bytes: the largest message in either direction; grpc's own default is 4 MiB.
        keepalive_s: how often an idle connection is probed.
        connection_age_s: after about this time (a tenth more or less) a connection is asked to close: its calls end and
            the client connects again, which spreads clients over new replicas. None sets no age.
        max_streams: calls in flight per connection; more wait at the client. None sets no limit.
        compression: how replies are compressed for callers that take it: it saves network, and costs more time than most
            predictions, so that compiled kernels take no requests then. Compressed requests are always understood.
        allow_control: callers may have the server read its sources at once (`RepositoryModelLoad`). Nobody is asked who they
            are, unless `tls_client_ca` does.
        tls_certificate, tls_key: PEM files; both or neither.
        tls_client_ca: a PEM file; when given, callers must show a certificate that it signed.
    """

    max_message_bytes: int = 64 * 1024 * 1024
    keepalive_s: float = 60.0
    connection_age_s: float | None = None
    max_streams: int | None = None
    compression: Compression = "none"
    allow_control: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None

    def __post_init__(self) -> None:
        if not 1024 <= self.max_message_bytes < 2**31 or not 1 <= self.keepalive_s <= 86_400:
            raise InvalidInputError(
                "the gRPC port takes max_message_bytes from 1,024 to 2,147,483,647 and keepalive_s from 1 to 86,400, got "
                f"{self.max_message_bytes} and {self.keepalive_s}"
            )
        if self.connection_age_s is not None and not 0.1 <= self.connection_age_s <= 1e6:
            raise InvalidInputError(f"connection_age_s is {self.connection_age_s}, expected 0.1 to 1,000,000 seconds")
        if self.max_streams is not None and not 1 <= self.max_streams < 2**31:
            raise InvalidInputError(f"max_streams is {self.max_streams}, expected 1 to 2,147,483,647")
        if self.compression not in get_args(Compression):
            raise InvalidInputError(f"grpc.compression is {self.compression!r}, expected 'none' or 'gzip'")
        tls_files("grpc", self.tls_certificate, self.tls_key, self.tls_client_ca)

    def options(self) -> list[tuple[str, int | str]]:
        """The channel arguments for grpc."""
        keepalive_ms = int(self.keepalive_s * 1000)
        options: list[tuple[str, int | str]] = []
        if self.connection_age_s is not None:
            options += [
                ("grpc.max_connection_age_ms", int(self.connection_age_s * 1000)),
                ("grpc.max_connection_age_grace_ms", _LAST_CALLS_MS),
            ]
        if self.compression == "gzip":
            options.append(("grpc.default_compression_algorithm", _GZIP))
        if self.max_streams is not None:
            options.append(("grpc.max_concurrent_streams", self.max_streams))
        return [
            *options,
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", keepalive_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.max_ping_strikes", 0),
        ]

    @property
    def tls(self) -> TlsFiles | None:
        """The files of the port; None if it speaks plain text."""
        return tls_files("grpc", self.tls_certificate, self.tls_key, self.tls_client_ca)

    def server_credentials(self) -> Any | None:
        """The TLS credentials for grpc, or None for plain text: new connections use files that were renewed."""
        files = self.tls
        if files is None:
            return None
        import grpc  # 75 ms and 8 MB, which the supervisor does without

        used: object = None  # so that the first connection looks at what came since they were read

        def renewed() -> Any:
            """The configuration of files that have changed and can be used; None to go on with the former."""
            nonlocal used
            try:
                stamp = files.stamp()
                if stamp == used:
                    return None
                used = stamp
                files.check()
                return _configuration(files)
            except (OSError, InvalidInputError) as error:
                log.warning("the renewed TLS files cannot be used; the former ones stay in use", reason=str(error))
                return None

        return grpc.dynamic_ssl_server_credentials(
            _configuration(files), renewed, require_client_authentication=files.client_ca is not None
        )


def _configuration(files: TlsFiles) -> Any:
    import grpc

    pair = (files.read(files.key, "tls_key"), files.read(files.certificate, "tls_certificate"))
    roots = None if files.client_ca is None else files.read(files.client_ca, "tls_client_ca")
    return grpc.ssl_server_certificate_configuration([pair], roots)
