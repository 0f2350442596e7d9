"""How a channel to the server is set up: credentials, limits, keepalive. Used by `base` for both kinds of client."""

import os
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

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """What the variables say that the command line reads too; None if they ask for no encryption.

        `PENSTOCK_TLS` is "1" or "true"; `PENSTOCK_CA`, `PENSTOCK_CERT`, `PENSTOCK_CERT_KEY` name PEM files, and
        `PENSTOCK_SERVER_NAME` the name in the server's certificate. Each of them asks for encryption.

        Raises:
            OSError: a file cannot be read.
            ValueError: of certificate and key one is missing.

        >>> Tls.from_environment({"PENSTOCK_TLS": "1"}), Tls.from_environment({})
        (Tls(root_certificates=None, certificate_chain=None, server_name=None), None)
        """
        given = {name: environment.get(variable) or None for name, variable in _VARIABLES.items()}
        is_on = environment.get("PENSTOCK_TLS", "").strip().lower() in _YES
        return cls.from_files(**given) if is_on or any(given.values()) else None

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials in gRPC's own form."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)


_VARIABLES: Final = {
    "root_certificates": "PENSTOCK_CA",
    "certificate_chain": "PENSTOCK_CERT",
    "private_key": "PENSTOCK_CERT_KEY",
    "server_name": "PENSTOCK_SERVER_NAME",
}
_YES: Final = frozenset({"1", "true", "t", "yes", "y", "on"})


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


def is_url(address: str) -> bool:
    """Whether an address is that of a server of REST.

    >>> is_url("https://models.example"), is_url("models:8001")
    (True, False)
    """
    return address.startswith(("http://", "https://"))


def addresses_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses of one or several servers, each checked.

    >>> addresses_of("one:8001,two:8001"), addresses_of(["one:8001"])
    (('one:8001', 'two:8001'), ('one:8001',))
    """
    each = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(checked_address(address.strip()) for address in each)) or (checked_address(""),)


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


def call_metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers in gRPC's form, with lower-case names."""
    return tuple((name.lower(), value) for name, value in headers.items())
