"""One GET request to a server's HTTP port; its failures become Penstock's errors."""

import http.client
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Final

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.client_commands.connection import PLAIN, TOKEN_VARIABLE, Encryption, token_headers

TIMEOUT_S: Final = 10.0
MAX_BYTES: Final = 64 * 1024 * 1024
"""A longer reply is cut off: no Penstock server sends one."""


class StatusError(InvalidInputError):
    """A reply with another status than 2xx.

    Attributes:
        status: the HTTP status.
        body: the reply's body.
    """

    def __init__(self, message: str, status: int, body: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


def get(url: str, encryption: Encryption = PLAIN, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """The body of the reply.

    Args:
        url: http:// or https://.
        encryption: whom https trusts, and the client's certificate.
        timeout_s: seconds until it gives up.

    Raises:
        StatusError: the reply has another status than 2xx; an `InvalidInputError`.
        InvalidInputError: the URL is not an HTTP address, or the other side does not speak HTTP.
        UnavailableError: nothing answers there.
    """
    server, path = _split(url)
    is_encrypted = server.startswith("https")
    if encryption.is_used and not is_encrypted:
        raise InvalidInputError(f"{server} is not encrypted; write https:// to use --tls, --ca or --cert")
    context = encryption.context() if is_encrypted else None
    request = urllib.request.Request(url, headers=token_headers())  # noqa: S310 - the scheme is checked
    try:
        with urllib.request.urlopen(request, timeout=timeout_s, context=context) as reply:  # noqa: S310
            body: bytes = reply.read(MAX_BYTES)
            return body
    except urllib.error.HTTPError as error:
        hint = "is it the --http-port of penstock?"
        if error.code in (401, 403):
            hint = f"it asks who calls: set {TOKEN_VARIABLE}" if error.code == 401 else "the caller has no right to it"
        raise StatusError(
            f"{server} answers {error.code} to {path}; {hint}",
            error.code,
            error.read(MAX_BYTES),
        ) from error
    except (http.client.HTTPException, ValueError) as error:
        raise InvalidInputError(f"{server} does not speak HTTP; is it the --http-port of penstock?") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InvalidInputError(
                f"{server} has a certificate that is not trusted ({reason.verify_message.rstrip('.')}); name its "
                "authority with --ca FILE"
            ) from error
        if isinstance(reason, ssl.SSLError):
            raise InvalidInputError(
                f"{server} does not speak TLS, or refuses this client's certificate ({reason.reason}); is it http://?"
            ) from error
        cause = getattr(reason, "strerror", None) or reason
        raise UnavailableError(f"no server answers at {server} ({cause}); start one with `penstock serve`") from error


def _split(url: str) -> tuple[str, str]:
    """The server's address, and the path on it."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        parts = urllib.parse.SplitResult("", "", "", "", "")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInputError(f"{url!r} is not an address; expected one such as http://127.0.0.1:8002")
    return f"{parts.scheme}://{parts.netloc}", parts.path or "/"
