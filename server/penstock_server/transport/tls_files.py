"""The PEM files of a port that speaks TLS: checked before the server starts, and read again when they change."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from penstock_server.errors import InvalidInputError

log = structlog.get_logger(__name__)

_WEAK: Final = {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "MD_TOO_WEAK"}
"""OpenSSL's reasons that concern the certificate, though its key is being loaded."""

Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate, its key, and perhaps those who sign callers' certificates.

    Attributes:
        table: the table of the settings that names them, for errors.
        certificate, key, client_ca: PEM files.
    """

    table: str
    certificate: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Reads them as a handshake will.

        Raises:
            InvalidInputError: one of them cannot be used; names the setting, the file and the reason.
        """
        self._check_certificates("tls_certificate", self.certificate)
        self._check_key()
        if self.client_ca is not None:
            self._check_certificates("tls_client_ca", self.client_ca)

    def stamp(self) -> Stamp:
        """What changes when one of them does; raises `OSError` when one is not there."""
        files = (self.certificate, self.key, self.client_ca)
        found = [file.stat() for file in files if file is not None]
        return tuple((each.st_mtime_ns, each.st_ino) for each in found)

    def read(self, path: Path, setting: str) -> bytes:
        """What a file holds.

        Raises:
            InvalidInputError: it cannot be read; names the setting.
        """
        try:
            return path.read_bytes()
        except OSError as error:
            raise InvalidInputError(
                f"{self.table}.{setting}: cannot read the TLS file {path}: {error.strerror}"
            ) from error

    def _check_certificates(self, setting: str, path: Path) -> None:
        self.read(path, setting)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
        except ssl.SSLError as error:
            raise InvalidInputError(
                f"{self.table}.{setting}: {path} holds no PEM certificate ({_reason(error)})"
            ) from error

    def _check_key(self) -> None:
        self.read(self.key, "tls_key")
        asked = False

        def password() -> str:
            nonlocal asked
            asked = True
            return ""

        where, certificate, key = f"{self.table}.tls_key", self.certificate, self.key
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password)
        except (ssl.SSLError, ValueError) as error:
            if asked:
                raise InvalidInputError(
                    f"{where}: {key} is encrypted, expected a key without a password; decrypt it with `openssl pkey`"
                ) from error
            reason = getattr(error, "reason", "") or ""
            if reason == "KEY_VALUES_MISMATCH":
                raise InvalidInputError(f"{where}: {key} is not the key of the certificate in {certificate}") from error
            if reason in _WEAK:
                raise InvalidInputError(
                    f"{self.table}.tls_certificate: {certificate} is refused ({_reason(error)})"
                ) from error
            raise InvalidInputError(f"{where}: {key} holds no PEM private key ({_reason(error)})") from error


def tls_files(table: str, certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    """The files of a port; None if it speaks plain text.

    Raises:
        InvalidInputError: one of certificate and key is missing, or both beside a client CA.
    """
    if (certificate is None) != (key is None):
        raise InvalidInputError(f"{table}: TLS takes a certificate and its key, got only one of them")
    if certificate is None or key is None:
        if client_ca is not None:
            raise InvalidInputError(f"{table}: a client CA needs a TLS certificate and key, got none")
        return None
    return TlsFiles(table, certificate, key, client_ca)


class TlsContext:
    """The context of the present files: new connections use certificates that were renewed.

    Args:
        files: what it is made of.
        protocol: what callers are to choose (ALPN).
        requires_certificate: where there is a client CA, whether callers must show a certificate, or may.
    """

    def __init__(self, files: TlsFiles, protocol: str, *, requires_certificate: bool) -> None:
        self._files = files
        self._protocols: Sequence[str] = (protocol,)
        self._requires_certificate = requires_certificate
        self._stamp = files.stamp()
        self._context = self._read()

    def current(self) -> ssl.SSLContext:
        """The context for a new connection; where renewed files cannot be used, that of the former."""
        try:
            stamp = self._files.stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._context = self._read()
        except (OSError, ssl.SSLError, ValueError) as error:
            log.warning("the renewed TLS files cannot be used; the former ones stay in use", reason=str(error))
        return self._context

    def _read(self) -> ssl.SSLContext:
        files = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # RFC 9113, 9.2.1
        # An encrypted key would have OpenSSL ask at the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
        context.set_alpn_protocols(list(self._protocols))
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if self._requires_certificate else ssl.CERT_OPTIONAL
        return context


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else "not in PEM form"
