"""How a channel to the server is set up: credentials, limits, keepalive. Used by `base` for both kinds of client."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import grpc

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted connection; with a certificate and key of its own, the client proves who it is too.

    Attributes:
        root_certificates: PEM of the authorities trusted; None for gRPC's own list.
        certificate_chain: PEM of the client's certificate.
        private_key: PEM of its key; given with the certificate or not at all.
        server_name: the name that the server's certificate must hold, where it is not the address's host.

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
        """The same from PEM files; `OSError` where one cannot be read."""
        return cls(
            root_certificates=_read(root_certificates),
            certificate_chain=_read(certificate_chain),
            private_key=_read(private_key),
            server_name=server_name,
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC takes."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def checked_address(address: str) -> str:
    """The address, if gRPC will take it for what was meant.

    Raises:
        ValueError: no port; gRPC would take 443 without a word.

    >>> checked_address("models:8001"), checked_address("unix:/run/penstock.sock")
    ('models:8001', 'unix:/run/penstock.sock')
    """
    if ":" not in address.removeprefix("dns:"):
        raise ValueError(f"the server's address is expected as host:port, got {address!r}")
    return address


def channel_options(
    tls: Tls | None, max_message_bytes: int, extra: Sequence[tuple[str, Any]]
) -> tuple[tuple[str, Any], ...]:
    """The channel options for gRPC; those in `extra` win."""
    options: dict[str, Any] = {
        "grpc.max_send_message_length": max_message_bytes,
        "grpc.max_receive_message_length": max_message_bytes,
        # A peer that vanished is noticed within 40 s, while calls wait for it; idle connections are left in peace,
        # since servers by default close on those who ping them often.
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.keepalive_permit_without_calls": 0,
        # By default a lost connection is not tried again for 1 s, and then up to 120 s: our retries would meet that
        # wait and not the server, which may be back already.
        "grpc.initial_reconnect_backoff_ms": 50,
        "grpc.max_reconnect_backoff_ms": 5_000,
        # The retries of `retry` are the only ones; two policies multiply.
        "grpc.enable_retries": 0,
        "grpc.service_config_disable_resolution": 1,
    }
    if tls is not None and tls.server_name is not None:
        options["grpc.ssl_target_name_override"] = tls.server_name
        options["grpc.default_authority"] = tls.server_name
    return tuple((options | dict(extra)).items())


def call_metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    """The headers as gRPC takes them, whose names are lower-case; None for none."""
    return tuple((name.lower(), value) for name, value in headers.items()) or None
