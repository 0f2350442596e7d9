"""How a channel to the server is set up: credentials, limits, keepalive. Used by `base` for both kinds of client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import grpc

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

ChannelOptions: TypeAlias = Sequence[tuple[str, Any]]
"""Names and values, as gRPC takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted connection; with a certificate and key, the client authenticates itself too.

    Attributes:
        root_certificates: PEM of the trusted authorities; None for gRPC's own list.
        certificate_chain: PEM of the client's certificate.
        private_key: PEM of its key; required with the certificate.
        server_name: the name that the server's certificate must hold, if it is not the address's host.

    >>> Tls(certificate_chain=b"...")
    Traceback (most recent call last):
    ValueError: certificate_chain and private_key are expected together, got one of them
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            raise ValueError("certificate_chain and private_key are expected together, got one of them")

    @classmethod
    def from_files(
        cls,
        *,
        root_certificates: str | Path | None = None,
        certificate_chain: str | Path | None = None,
        private_key: str | Path | None = None,
        server_name: str | None = None,
    ) -> Self:
        """The same from PEM files; raises `OSError` if one cannot be read."""
        return cls(
            root_certificates=_read(root_certificates),
            certificate_chain=_read(certificate_chain),
            private_key=_read(private_key),
            server_name=server_name,
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials in gRPC's own form."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def checked_address(address: str) -> str:
    """The address, checked.

    Raises:
        ValueError: it has no port; gRPC would silently use 443.

    >>> checked_address("models:8001"), checked_address("unix:/run/penstock.sock")
    ('models:8001', 'unix:/run/penstock.sock')
    """
    if ":" not in address.removeprefix("dns:"):
        raise ValueError(f"the server's address is expected as host:port, got {address!r}")
    return address


def channel_options(tls: Tls | None, max_message_bytes: int, extra: ChannelOptions) -> ChannelOptions:
    """The channel options for gRPC; those in `extra` override ours."""
    options: dict[str, int | str] = {
        "grpc.max_send_message_length": max_message_bytes,
        "grpc.max_receive_message_length": max_message_bytes,
        # While calls wait, a vanished peer is noticed within 40 s. Idle connections are not pinged, since servers
        # by default close connections that ping often.
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.keepalive_permit_without_calls": 0,
        # By default gRPC waits 1 s to 120 s before it reconnects. Our retries would fail on that wait although the
        # server may be back already.
        "grpc.initial_reconnect_backoff_ms": 50,
        "grpc.max_reconnect_backoff_ms": 5_000,
        # Only `retry` retries: two policies would multiply.
        "grpc.enable_retries": 0,
        "grpc.service_config_disable_resolution": 1,
    }
    if tls is not None and tls.server_name is not None:
        options["grpc.ssl_target_name_override"] = tls.server_name
        options["grpc.default_authority"] = tls.server_name
    return tuple((options | dict(extra)).items())


def call_metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    """The headers in gRPC's form, with lower-case names; None if there are none."""
    return tuple((name.lower(), value) for name, value in headers.items()) or None
