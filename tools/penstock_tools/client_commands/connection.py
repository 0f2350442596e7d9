"""How a command reaches a server: the address, the encryption, and the sentence that says why nobody answers there.

gRPC reports alike that nobody listens, that the other side speaks TLS, and that it does not. So when a call has failed, this
module looks for itself, by one connection of its own.
"""

import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock_client import Client, ServerUnavailableError, Tls
from penstock_server.errors import InvalidInputError, UnavailableError

LOOK_S: Final = 2.0
"""How long the look at the other side may take."""
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What an HTTP/2 client says first: the preface, and a frame of no settings."""
_REFUSES: Final = (
    "refuses the connection; it asks for a client's certificate that it trusts: --cert FILE --cert-key FILE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """How the connection is encrypted.

    Attributes:
        tls: whether it is; a file makes it so too.
        ca: PEM of the trusted authorities; None for gRPC's own list.
        certificate: PEM of the client's certificate; with `key`.
        key: PEM of its key.
        server_name: the name in the server's certificate, if it is not the address's host.
    """

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    @property
    def is_used(self) -> bool:
        """Whether the connection is encrypted."""
        return self.tls or any((self.ca, self.certificate, self.key, self.server_name))

    def context(self) -> ssl.SSLContext:
        """The same for Python's own connections.

        Raises:
            InvalidInputError: a file cannot be read, holds no PEM, or does not fit the other.
        """
        if (self.certificate is None) != (self.key is None):
            missing = "cert-key" if self.key is None else "cert"
            raise InvalidInputError(f"--{missing} is missing; --cert and --cert-key go together")
        context = ssl.create_default_context()
        for file in (self.ca, self.certificate, self.key):
            _check_readable(file)
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInputError(
                f"{self.ca} holds no certificates in PEM; expected those of the authorities"
            ) from error
        try:
            if self.certificate is not None and self.key is not None:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInputError(
                f"{self.certificate} and {self.key} are no certificate and its key in PEM: {_reason(error)}"
            ) from error
        return context

    def credentials(self) -> Tls | None:
        """The same for the client; raises as `context` does."""
        if not self.is_used:
            return None
        self.context()
        return Tls.from_files(
            root_certificates=self.ca,
            certificate_chain=self.certificate,
            private_key=self.key,
            server_name=self.server_name,
        )


PLAIN: Final = Encryption()
TOKEN_VARIABLE: Final = "PENSTOCK_TOKEN"  # noqa: S105 - a name


def token_headers() -> dict[str, str]:
    """What a command shows of its caller: the token in the environment, if there is one. Options could be read by others."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    return {"authorization": f"Bearer {token}"} if token else {}


@contextmanager
def connected(server: str, encryption: Encryption = PLAIN, *, timeout_s: float = 10.0) -> Iterator[Client]:
    """A client of the server.

    Args:
        server: its gRPC address, as host:port.
        encryption: how the connection is encrypted.
        timeout_s: seconds until a call gives up.

    Raises:
        InvalidInputError: an option is wrong, or the two sides do not agree on TLS; says what to add or to leave out.
        UnavailableError: nothing answers there.
        PenstockClientError: what else ends a call inside.
    """
    if server.startswith(("http://", "https://")):
        raise InvalidInputError(f"--server is {server!r}; expected the gRPC address, as host:port")
    credentials = encryption.credentials()
    # gRPC's core writes lines of its own to standard error; what they say is in the sentence.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        client = Client(server, timeout_s=timeout_s, tls=credentials, headers=token_headers())
    except ValueError as error:
        raise InvalidInputError(f"--server is {server!r}, --timeout {timeout_s:g}: {error}") from error
    with client:
        try:
            yield client
        except ServerUnavailableError as error:
            if client.is_live(timeout_s=min(timeout_s, LOOK_S)):
                raise  # the server answers: its own sentence says what is wrong
            raise _unreachable(server, encryption) from error


def _unreachable(server: str, encryption: Encryption) -> InvalidInputError | UnavailableError:
    found = re.fullmatch(r"(?:dns:(?://[^/]*/)?|ipv[46]:)?(\[[^\]]*\]|[^:/\[\]]+):(\d{1,5})", server)
    reason = None if found is None else look(found[1].strip("[]"), int(found[2]), encryption)
    if reason is not None:
        return InvalidInputError(f"the server at {server} {reason}")
    return UnavailableError(
        f"no server answers at {server}; start one with `penstock serve`, or name its address with --server"
    )


def look(host: str, port: int, encryption: Encryption) -> str | None:
    """Why a server that listens there cannot be talked to; None if nobody listens, or for another reason."""
    try:
        with socket.create_connection((host, port), timeout=LOOK_S) as connection:
            connection.settimeout(LOOK_S)
            if encryption.is_used:
                return _look_through_tls(connection, encryption.server_name or host, encryption.context())
            return _look_without_tls(connection)
    except OSError:
        return None


def _look_without_tls(connection: socket.socket) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        context.wrap_socket(connection).close()
    except ssl.SSLError as error:
        # An alert is an answer in TLS too, such as that a certificate is asked for.
        if "ALERT" not in (error.reason or ""):
            return None
    return "speaks TLS; add --tls, and --ca FILE for an authority of your own"


def _look_through_tls(connection: socket.socket, name: str, context: ssl.SSLContext) -> str | None:
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=name) as encrypted:
            encrypted.sendall(_PREFACE)
            # A gRPC server says something first, unless it refuses the client: some with an alert, some without.
            return None if encrypted.recv(1) else _REFUSES
    except ssl.SSLCertVerificationError as error:
        return (
            f"has a certificate that is not trusted ({error.verify_message.rstrip('.')}); name its authority with --ca "
            "FILE, or the name in it with --server-name"
        )
    except ssl.SSLError as error:
        return _REFUSES if "ALERT" in (error.reason or "") else "does not speak TLS; leave out --tls, --ca and --cert"


def _check_readable(file: Path | None) -> None:
    if file is None:
        return
    try:
        file.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}") from error


def _no_password() -> str:
    # Without it OpenSSL would ask at the terminal, and gRPC cannot take one.
    return ""


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or type(error).__name__
    return str(reason).lower().replace("_", " ")
