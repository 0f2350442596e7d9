"""Whether calls to an address may go over sockets of the client's own, and where these connect.

What is not plain is grpcio's: name resolvers, proxies, client certificates, channel options, binary headers. So the answer
depends on settings and environment alone, and never changes while a client lives.
"""

import math
import os
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import grpc

from penstock_client.channel import ChannelOptions, Tls
from penstock_client.headers import unlike_text

_PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY_VARIABLES: Final = ("no_grpc_proxy", "no_proxy")
_ROOTS_VARIABLE: Final = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
_MOST_MESSAGE_BYTES: Final = 2**30
"""A longer message does not fit in HTTP/2's widest window."""
SLOW_S: Final = 2.0
"""How long an address that does not answer may keep the next one waiting."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect.

    Attributes:
        host: a name or number; empty for a socket file.
        path: the socket file; empty for a host.
        authority: what the server is called in requests.
        context: how to encrypt; None for plain text.
        server_name: the name that the server's certificate must hold.
    """

    host: str
    port: int
    path: str
    authority: str
    context: ssl.SSLContext | None = None
    server_name: str | None = None

    def connected(self, deadline_s: float, clock: Callable[[], float]) -> socket.socket:
        """A connected socket, to the first of the host's addresses that answers.

        Raises:
            TimeoutError: none did before the deadline.
            OSError: none can be reached, or the host has no address.
        """
        error: OSError = OSError(f"{self.host} has no address")
        places = list(self._places())
        for at, (family, place) in enumerate(places):
            left_s = deadline_s - clock()
            if left_s <= 0:
                raise TimeoutError
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(left_s if at == len(places) - 1 else min(left_s, SLOW_S))
                connection.connect(place)
                if family != socket.AF_UNIX:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._encrypted(connection)
            except OSError as failed:
                connection.close()
                error = failed
            except BaseException:
                connection.close()
                raise
        raise error

    def _places(self) -> Iterator[tuple[int, str | tuple[object, ...]]]:
        if self.path:
            yield socket.AF_UNIX, self.path
            return
        for family, _, _, _, place in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            yield family, place

    def _encrypted(self, connection: socket.socket) -> socket.socket:
        if self.context is None:
            return connection
        encrypted = self.context.wrap_socket(connection, server_hostname=self.server_name)
        if encrypted.selected_alpn_protocol() != "h2":
            encrypted.close()
            raise OSError("the server does not speak HTTP/2 over TLS")
        return encrypted


def target_of(
    address: str, tls: Tls | None, headers: Mapping[str, str], options: ChannelOptions, max_message_bytes: int
) -> Target | str:
    """The target of an address, or why its calls are left to grpcio.

    >>> target_of("models:8001", None, {}, (), 1000)
    Target(host='models', port=8001, path='', authority='models:8001', context=None, server_name=None)
    >>> target_of("xds:///models", None, {}, (), 1000)
    'the address xds:///models has a resolver of its own'
    """
    place = _place_of(address)
    reason = _reason(address, place, tls=tls, headers=headers, options=options, max_message_bytes=max_message_bytes)
    if place is None or reason is not None:
        return reason or "it is no address"
    try:
        context = None if tls is None else context_of(tls)
    except (OSError, ValueError) as error:  # no PEM, or no file
        return f"the certificates of authorities cannot be read: {error}"
    host, port, path = place
    authority = "localhost" if path else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if tls is None:
        return Target(host, port, path, authority)
    return Target(host, port, path, tls.server_name or authority, context, tls.server_name or host)


def _reason(
    address: str,
    place: tuple[str, int, str] | None,
    *,
    tls: Tls | None,
    headers: Mapping[str, str],
    options: ChannelOptions,
    max_message_bytes: int,
) -> str | None:
    """Why sockets do not do; None if they do."""
    if place is None:
        return f"the address {address} has a resolver of its own"
    refused = unlike_text(headers)
    host, _, path = place
    reasons = (
        (sys.platform != "linux" or socket.socket.__module__ != "socket", "the sockets are not Linux's own"),
        (bool(options), "channel options are set"),
        (max_message_bytes > _MOST_MESSAGE_BYTES, "messages may be longer than a window"),
        (refused is not None, f"the header {refused!r} is not plain text"),
        (tls is not None and tls.private_key is not None, "a client certificate is set"),
        (tls is not None and bool(path), "a socket file is encrypted"),
        (bool(host) and _has_proxy(host), "a proxy is set"),
    )
    return next((reason for is_so, reason in reasons if is_so), None)


def _place_of(address: str) -> tuple[str, int, str] | None:
    """Host, port and path of an address; None if only gRPC knows what it means."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme == "unix":
        return "", 0, rest.removeprefix("//")
    if colon and scheme == "dns":
        address = rest.removeprefix("///")
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    is_plain = host and "/" not in host and "%" not in host and host.isascii() and port.isascii() and port.isdigit()
    return (host, int(port), "") if is_plain and int(port) < 2**16 else None


def _has_proxy(host: str) -> bool:
    """Whether gRPC would go by a proxy; where a list excludes hosts, each that ends like an entry."""
    if not any(os.environ.get(name) for name in _PROXY_VARIABLES):
        return False
    excluded = next((os.environ[name] for name in _NO_PROXY_VARIABLES if os.environ.get(name)), "")
    return not any(host.lower().endswith(each.strip().lower()) for each in excluded.split(",") if each.strip())


def context_of(tls: Tls, protocol: str = "h2") -> ssl.SSLContext:
    """How Python encrypts, for a protocol that the server is to speak; raises `OSError` or `ValueError` for what is no PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    roots = tls.root_certificates
    if roots is not None:
        context.load_verify_locations(cadata=roots.decode("ascii"))
    elif os.environ.get(_ROOTS_VARIABLE):
        context.load_verify_locations(cafile=os.environ[_ROOTS_VARIABLE])
    else:
        context.load_verify_locations(
            cafile=os.path.join(os.path.dirname(grpc.__file__), "_cython/_credentials/roots.pem")
        )
    if tls.certificate_chain is not None and tls.private_key is not None:
        # OpenSSL takes the client's own certificate from a file alone.
        with tempfile.NamedTemporaryFile() as file:
            file.write(tls.certificate_chain + b"\n" + tls.private_key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def milliseconds(seconds: float) -> int:
    """A timeout in whole milliseconds, rounded up, at least one."""
    return max(1, math.ceil(seconds * 1000))
