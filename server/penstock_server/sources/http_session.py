"""HTTP calls to an MLflow server, or a store of files, with bounds on bytes and time.

The registry gets the credentials that mlflow would send. Whoever registers a version names its store, so that another host
gets nothing but what stands in its own address.

The standard library suffices: a session costs 8 MB where mlflow's costs 60. What only mlflow can do, such as signing for
AWS, `needs_mlflow` tells.
"""

import base64
import configparser
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPException, HTTPMessage
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import unquote, urlencode, urlsplit, urlunsplit

import msgspec

from penstock_server.clock import Clock, monotonic
from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.sources.registry import WORKSPACE, redacted, without_secrets

REGISTRY: Final = "registry"
TIMEOUT_S: Final = 10.0
"""The time of one answer, unless `MLFLOW_HTTP_REQUEST_TIMEOUT` says otherwise."""
MAX_REPLY_BYTES: Final = 32 * 2**20
_CHUNK_BYTES: Final = 256 * 1024
_ONLY_MLFLOW: Final = (
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
)
_WORKSPACE_HEADER: Final = "X-MLFLOW-WORKSPACE"
_GONE: Final = (404, 410)


class _Refusal(msgspec.Struct):
    error_code: str = ""
    message: str = ""


_refusals: Final = msgspec.json.Decoder(_Refusal)


def needs_mlflow() -> bool:
    """Whether requests need what only mlflow can do: plug-ins, or kinds of authentication that it alone knows."""
    asked = any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in _ONLY_MLFLOW)
    return asked or _has_plugins()


@cache
def _has_plugins() -> bool:
    """Looked for once, since it takes reading what every installed package says of itself."""
    return any(
        entry_points(group=group) for group in ("mlflow.request_header_provider", "mlflow.request_auth_provider")
    )


class HttpSession:
    """Calls to one server. Every call ends in time, whatever the server does.

    Args:
        uri: its address, perhaps with a user and password.
        name: what it is, in errors; only "registry" gets the registry's credentials.
        timeout_s: of one answer to its last byte; None takes `MLFLOW_HTTP_REQUEST_TIMEOUT` or `TIMEOUT_S`.
    """

    def __init__(
        self, uri: str, *, name: str = REGISTRY, timeout_s: float | None = None, clock: Clock = monotonic
    ) -> None:
        self._uri = uri
        self.shown = redacted(uri)
        self._who = f"the {name} {self.shown}"
        self._is_registry = name == REGISTRY
        self._timeout_s = timeout_s or _timeout_s()
        self._clock = clock
        parts = urlsplit(uri)
        self._base = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "penstock"}
        self._headers |= _of_registry(parts.netloc) if self._is_registry else _basic(*_in_address(parts.netloc))
        tls = _tls(is_registry=self._is_registry) if parts.scheme == "https" else None
        secured = [] if tls is None else [urllib.request.HTTPSHandler(context=tls)]
        self._opener = urllib.request.build_opener(*secured, _SameServer())

    def get(self, path: str, query: Mapping[str, object], what: str) -> bytes:
        """A reply of at most `MAX_REPLY_BYTES`; raises as `registered.Registry` says, about `what`."""
        deadline_s = self._clock() + self._timeout_s
        body = bytearray()
        for chunk in self.stream(path, query, what):
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                raise self._away(what, f"its answer has more than {MAX_REPLY_BYTES:,} bytes")
            if self._clock() > deadline_s:
                raise self._away(what, f"its answer takes longer than {self._timeout_s:g} s")
        return bytes(body)

    def stream(self, path: str, query: Mapping[str, object], what: str) -> Iterator[bytes]:
        """A reply piece by piece, of any length; each piece comes within the timeout."""
        with self._translated(what):
            address = f"{self._base}{path}" + (f"?{urlencode(query)}" if query else "")
            request = urllib.request.Request(address, headers=self._headers)  # noqa: S310 - http or https, checked before
            with self._opener.open(request, timeout=self._timeout_s) as reply:
                while chunk := reply.read1(_CHUNK_BYTES):
                    yield chunk
                if reply.length:
                    raise self._away(what, "its answer is cut short")

    def send(self, method: str, path: str, body: Mapping[str, object], what: str) -> None:
        """Sends JSON, and reads what is answered without using it; raises as `registered.Registry` says, about `what`."""
        headers = {**self._headers, "Content-Type": "application/json"}
        with self._translated(what):
            address, raw = f"{self._base}{path}", msgspec.json.encode(body)
            request = urllib.request.Request(address, raw, headers, method=method)  # noqa: S310 - http or https, checked before
            with self._opener.open(request, timeout=self._timeout_s) as reply:
                reply.read(_CHUNK_BYTES)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except PenstockError:
            raise
        except urllib.error.HTTPError as error:
            raise self._refused(what, error) from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._away(what, _reason(error)) from error

    def _refused(self, what: str, error: urllib.error.HTTPError) -> PenstockError:
        """What a status means: only the registry's own words are about a model, a proxy's error page says nothing."""
        found = _Refusal()
        with error, suppress(msgspec.DecodeError, msgspec.ValidationError, OSError, HTTPException):
            found = _refusals.decode(error.read(64 * 1024))
        if found.error_code == "RESOURCE_DOES_NOT_EXIST" and not found.message.startswith("Workspace "):
            return NotFoundError(f"{what} is not in {self._who}")
        if not self._is_registry and not found.error_code and error.code in _GONE:
            return NotFoundError(f"{what} is not in {self._who}")
        said = f"{found.error_code}: {found.message}" if found.error_code else f"HTTP {error.code} {error.reason}"
        said = self.without_secrets(said)
        if found.error_code in ("INVALID_PARAMETER_VALUE", "PERMISSION_DENIED"):
            return InvalidInputError(f"{self._who} refuses {what}: {said}")
        return self._away(what, said)

    def _away(self, what: str, reason: str) -> UnavailableError:
        return UnavailableError(f"{self._who} does not give {what}: {self.without_secrets(reason)}")

    def without_secrets(self, text: str) -> str:
        """One line, without the secrets of this session."""
        line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
        for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
            if secret := os.environ.get(name):
                line = line.replace(secret, "***")
        return without_secrets(line, self._uri)[:300]


class _SameServer(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the server: another one must not get the credentials."""

    def redirect_request(  # noqa: PLR0917 - the base class's
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.hostname, old.port) != (new.hostname, new.port) or old.scheme != new.scheme:
            raise UnavailableError(
                f"{redacted(req.full_url)} sends us on to another server, which is not followed; use its address"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _reason(error: Exception) -> str:
    """The words of the innermost cause."""
    cause: Any = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return f"[Errno {cause.errno}] {cause.strerror}" if cause.errno else cause.strerror
    return str(cause) or type(cause).__name__


def _timeout_s() -> float:
    with suppress(ValueError):
        asked = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", ""))
        if 0 < asked < 3600:
            return asked
    return TIMEOUT_S


def _of_registry(netloc: str) -> dict[str, str]:
    """What a registry is told of who asks, and of the workspace that is meant."""
    token, workspace = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get(WORKSPACE)
    headers = {_WORKSPACE_HEADER: workspace} if workspace else {}
    if basic := _basic(*_user_and_password(netloc)):
        return headers | basic
    return headers | ({"Authorization": f"Bearer {token}"} if token else {})


def _basic(user: str, password: str) -> dict[str, str]:
    if not (user and password):
        return {}
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def _user_and_password(netloc: str) -> tuple[str, str]:
    """From the environment or the file that `mlflow` keeps, as mlflow does; else from the address."""
    filed: Mapping[str, str] = {}
    with suppress(configparser.Error, KeyError, OSError, RuntimeError, UnicodeDecodeError):
        config = configparser.ConfigParser(interpolation=None)
        config.read(Path.home() / ".mlflow" / "credentials")
        filed = config["mlflow"]
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or filed.get("mlflow_tracking_username", "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or filed.get("mlflow_tracking_password", "")
    if user and password:
        return user, password
    return _in_address(netloc)


def _in_address(netloc: str) -> tuple[str, str]:
    given, _, secret = netloc.rpartition("@")[0].partition(":")
    return unquote(given), unquote(secret)


def _tls(*, is_registry: bool) -> ssl.SSLContext:
    """The trust and the certificate that mlflow's own settings ask for; what they say of the registry is for it alone."""
    own = ("MLFLOW_TRACKING_SERVER_CERT_PATH",) if is_registry else ()
    bundle = next(
        (os.environ[name] for name in (*own, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)), None
    )
    try:
        context = ssl.create_default_context()
        if bundle is not None:
            folder = Path(bundle).is_dir()
            context.load_verify_locations(cafile=None if folder else bundle, capath=bundle if folder else None)
        else:
            with suppress(ImportError):
                import certifi

                context.load_verify_locations(certifi.where())
        if not is_registry:
            return context
        if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate := os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
            context.load_cert_chain(certificate)
    except OSError as error:  # ssl's errors are
        raise UnavailableError(f"the certificates for https cannot be read: {error}") from error
    return context
