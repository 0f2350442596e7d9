"""The default registry, where its artifacts go, and how a registry's address is shown without secrets.

The server and the tools share it, so that `penstock publish` and `penstock serve` use one registry without a setting.
"""

import difflib
import os
import re
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from penstock_server import paths
from penstock_server.errors import InvalidInputError, UnavailableError

HIDDEN: Final = "***"
WORKSPACE: Final = "MLFLOW_WORKSPACE"
"""The variable that names the workspace of an MLflow that has them, as its own client reads it."""

_SQLITE = "sqlite:///"
_SCHEMES: Final = (
    "http",
    "https",
    "sqlite",
    "postgresql",
    "mysql",
    "mssql",
    "databricks",
    "databricks-uc",
    "uc",
    "file",
)
_SHORTEST_SECRET: Final = 4

# With a colon before the '@' it is a password, which may hold a '/'; without one it is a user or a token, unless a '/'
# comes first, as in the path of https://docs/x@y.
_USER_AND_PASSWORD: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s@:/]*:\S*|[^\s@/]+)@")
_NAMES: Final = (
    r"[\w.-]*(?:passw|passphrase|pwd|token|secret|api[-_]?key|access[-_]?key|private[-_]?key|signature|credential)[\w.-]*"
    r"|sig|key|auth"
)
_ASSIGNED: Final = re.compile(
    rf"""((?<![A-Za-z0-9])(?:{_NAMES})["']?\s*(?:=|%3D|:\s*["']|["']:\s*)["']?)[^&\s"'<>,;]+""", re.IGNORECASE
)
_AUTHORIZATION: Final = re.compile(
    r"((?:[Aa]uthorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?|\b(?:Bearer|Basic)\s+))[A-Za-z0-9+/=._~-]{6,}"
)


def default_registry() -> str:
    """The registry's URI: `$MLFLOW_TRACKING_URI`, else an embedded one in the data folder, which is created.

    Raises:
        UnavailableError: the data folder cannot be created.
        InvalidInputError: the user has no home folder, or the data folder's path cannot be part of a URI.
    """
    if chosen := os.environ.get("MLFLOW_TRACKING_URI"):
        return chosen
    folder = paths.data_dir()
    if re.search(r"[?#%]", str(folder)):
        raise InvalidInputError(f"the data folder {folder} has a '?', '#' or '%' in its path; set PENSTOCK_DATA_DIR")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"the data folder {folder} cannot be created: {error.strerror}") from error
    return f"{_SQLITE}{folder / 'registry.db'}"


def artifact_location(registry: str) -> str | None:
    """Where an experiment of an embedded registry keeps its artifacts: the folder `artifacts` next to the database.

    Without it MLflow would write to `./mlruns` in the working directory.

    Returns:
        A `file:` URI; None for a registry that is a server and decides this itself.
    """
    if not registry.startswith(_SQLITE):
        return None
    database = sqlite_path(registry)
    return None if database is None else (database.parent / "artifacts").as_uri()


def check_uri(uri: str) -> None:
    """Checks what can be known of a registry's address without asking it.

    Raises:
        InvalidInputError: nothing can be at this address.
    """
    scheme, mark, rest = uri.removeprefix("uc:").partition("://")
    kind = scheme.partition("+")[0].lower()
    if not mark:
        kind = uri.partition(":")[0].lower() if ":" in uri.partition("/")[0] else "file"
        if kind not in ("file", "databricks", "databricks-uc", "uc") and kind not in _plugin_schemes():
            raise _unknown(uri, kind)
        return
    if kind in ("http", "https"):
        _check_http(uri.removeprefix("uc:"))
    elif kind == "sqlite":
        _check_sqlite(uri, rest)
    elif kind not in _SCHEMES and kind not in _plugin_schemes():
        raise _unknown(uri, kind)


def sqlite_path(uri: str) -> Path | None:
    """The file of a registry in sqlite; None for any other registry."""
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).absolute() if uri.startswith(_SQLITE) else None


def _check_http(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host:
        raise InvalidInputError(f"the registry {redacted(uri)!r} names no host; expected http://HOST:PORT")


def _check_sqlite(uri: str, rest: str) -> None:
    path = sqlite_path(uri)
    if path is None or not rest.partition("?")[0].strip("/"):
        if uri.partition("://")[0] != "sqlite":
            return  # a driver of its own, such as sqlite+pysqlcipher
        raise InvalidInputError(f"the registry {redacted(uri)!r} names no file; expected sqlite:////FOLDER/FILE")
    if not path.parent.is_dir():
        raise InvalidInputError(f"the registry {redacted(uri)!r} is in the folder {path.parent}, which does not exist")
    if path.exists() and not path.is_file():
        raise InvalidInputError(f"the registry {redacted(uri)!r} is not a file; expected a database of sqlite")


def _unknown(uri: str, scheme: str) -> InvalidInputError:
    near = difflib.get_close_matches(scheme, _SCHEMES, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return InvalidInputError(
        f"the registry {redacted(uri)!r} has the unknown scheme {scheme!r}; expected one of {', '.join(_SCHEMES)}, or a "
        f"path{meant}"
    )


def _plugin_schemes() -> set[str]:
    """Schemes that plug-ins of mlflow add."""
    return {found.name for found in entry_points(group="mlflow.model_registry_store")}


def source_name(uri: str, models: Sequence[str], workspace: str = "") -> str:
    """The name of a registry as a source, in logs and in /v1/models."""
    within = f" workspace {workspace}" if workspace else ""
    return f"mlflow {redacted(uri)}{within}" + (f" ({', '.join(sorted(models))})" if models else "")


def version_page(uri: str, model: str, version: str, *, workspace: str = "") -> str:
    """The address of a version's page in an MLflow server; "" where the registry has no pages.

    >>> version_page("http://user:word@mlflow:5000/", "a b", "3"), version_page("sqlite:////a.db", "a", "3")
    ('http://mlflow:5000/#/models/a%20b/versions/3', '')
    >>> version_page("http://mlflow:5000", "a", "3", workspace="team-a")
    'http://mlflow:5000/#/models/a/versions/3?workspace=team-a'
    """
    if not uri.startswith(("http://", "https://")):
        return ""
    within = f"?workspace={quote(workspace)}" if workspace else ""
    return f"{redacted(uri).rstrip('/')}/#/models/{quote(model, safe='')}/versions/{quote(version, safe='')}{within}"


def redacted(uri: str) -> str:
    """The URI as logs may show it: without user, password, query and fragment.

    A password may hold any character, unescaped too. So all up to the last `@` is left out, even where that may be a
    part of the path.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return re.split(r"[?#]", uri, maxsplit=1)[0] if "@" not in uri or uri[0] in "/." else uri.rpartition("@")[2]
    if scheme in ("sqlite", "file") and rest.startswith("/"):  # no authority: an '@' is the path's own
        return scheme + mark + re.split(r"[?#]", rest, maxsplit=1)[0]
    return scheme + mark + re.split(r"[?#;]", rest.rpartition("@")[2], maxsplit=1)[0]


def without_secrets(text: str, uri: str = "") -> str:
    """A message of another library without the secrets in its URIs.

    Args:
        text: the message.
        uri: the address that was used: what is secret in it is hidden wherever and however the message quotes it.
    """
    for secret in secrets_of(uri):
        text = text.replace(secret, HIDDEN)
    text = _USER_AND_PASSWORD.sub(r"\1", text)
    text = _AUTHORIZATION.sub(rf"\1{HIDDEN}", text)
    return _ASSIGNED.sub(rf"\1{HIDDEN}", text)


def secrets_of(uri: str) -> list[str]:
    """The user, the password and the values of the query, as they are written and as they are meant, longest first."""
    scheme, mark, rest = uri.partition("://")
    if not mark or (scheme in ("sqlite", "file") and rest.startswith("/") and "?" not in rest):
        return []
    before, at, after = rest.rpartition("@")
    user, _, password = before.partition(":") if at else ("", "", "")
    query = rest.partition("?")[2]
    values = [value for part in re.split(r"[&;]", query) for value in (part.partition("=")[2],)]
    values += [part.partition("=")[2] for part in re.split(r"[&;?#]", after) if "=" in part]
    found = {
        each
        for raw in (before, user, password, *values)
        for each in (raw, unquote(raw), unquote_plus(raw), quote(raw), quote(raw, safe=""))
    }
    # Shorter ones would hide parts of plain words; where they stand in a URI the patterns below hide them.
    return sorted((each for each in found if len(each) >= _SHORTEST_SECRET), key=len, reverse=True)
