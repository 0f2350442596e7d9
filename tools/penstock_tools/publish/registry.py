"""The MLflow registry for the tools: its client, where artifacts go, and MLflow's errors as Penstock's.

The server's `sources.registry` decides which registry is the default.
"""

import os
import socket
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.paths import data_dir
from penstock_server.sources.mlflow_client import connect
from penstock_server.sources.registry import (
    artifact_location,
    default_registry,
    redacted,
    sqlite_path,
    without_secrets,
)

EXPERIMENT: Final = "penstock"
"""The MLflow experiment that holds the runs."""
ANSWER_S: Final = 5.0
"""How long a registry may take to show that it is there."""

_MEANINGS: Final[dict[str, type[PenstockError]]] = {
    "RESOURCE_DOES_NOT_EXIST": NotFoundError,
    "INVALID_PARAMETER_VALUE": InvalidInputError,
    "RESOURCE_ALREADY_EXISTS": InvalidInputError,
    "BAD_REQUEST": InvalidInputError,
}


@contextmanager
def opened(uri: str | None = None) -> Iterator[Any]:
    """A `mlflow.MlflowClient` for the registry; what MLflow raises inside leaves as a `PenstockError`.

    Args:
        uri: the registry's address; None for `MLFLOW_TRACKING_URI`, else a local file.

    Raises:
        NotFoundError: there is no such model or version.
        InvalidInputError: MLflow refuses what it was given, or the address.
        UnavailableError: the registry does not answer.
    """
    uri = uri or default_registry()
    check_answers(uri)
    from mlflow.exceptions import MlflowException

    try:
        _make_tables(uri)
        # A person waits for a command: it may take a little longer than a server's poll before it gives up.
        yield connect(uri, timeout_s=20, retries=2)
    except MlflowException as error:
        raise _translated(error, uri) from error


def _make_tables(uri: str) -> None:
    """Makes a registry in sqlite that is not there yet, whole or not at all.

    MLflow makes the tables in the file itself, by some fifty migrations that take seconds. Interrupted half-way, it leaves
    a file that no later command can use.
    """
    path = sqlite_path(uri)
    if path is None or not path.parent.is_dir() or _holds_something(path):
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        made = Path(scratch) / path.name
        # The first question makes the tables.
        connect(f"sqlite:///{made}").search_experiments(max_results=1)
        if path.exists() and not _holds_something(path):
            os.replace(made, path)  # an empty file, as sqlite makes when it opens one
            return
        # Of several first commands one is the first: a link never replaces what another made meanwhile.
        with suppress(FileExistsError):
            os.link(made, path)


def _holds_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def check_answers(uri: str) -> None:
    """Asks a registry behind http or https for a sign of life; others are files, or say so themselves at once.

    mlflow tries again for half a minute when nobody listens, and for minutes when nobody answers.

    Raises:
        UnavailableError: nobody listens there, or nothing came within `ANSWER_S`.
    """
    try:
        parts = urllib.parse.urlsplit(uri)
        host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return  # mlflow says what is wrong with it
    if port is None or not host or (parts.scheme in getproxies() and not proxy_bypass(host)):
        return
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
            if parts.scheme == "http":
                connection.settimeout(ANSWER_S)
                connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                connection.recv(1)
    except OSError as error:
        cause = (
            f"nothing came within {ANSWER_S:g} s" if isinstance(error, TimeoutError) else error.strerror or str(error)
        )
        raise UnavailableError(
            f"the registry {redacted(uri)} does not answer ({cause}); check its address and that it runs"
        ) from error


def experiment_id(client: Any) -> str:
    """The id of Penstock's experiment, which is created if there is none."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=_artifacts_of(client.tracking_uri)))


def _artifacts_of(uri: str) -> str | None:
    # MLflow would put a database's artifacts into the working directory.
    if uri.startswith(("postgresql", "mysql", "mssql")):
        return (data_dir() / "artifacts").as_uri()
    return artifact_location(uri)


def _translated(error: Any, uri: str) -> PenstockError:
    text = without_secrets(" ".join(str(error).split())).removeprefix(f"{error.error_code}: ")[:300]
    meaning = _MEANINGS.get(error.error_code)
    if meaning is not None:
        return meaning(f"the registry {redacted(uri)} refuses: {text}")
    return UnavailableError(
        f"the registry {redacted(uri)} does not answer; check its address and that it runs ({text})"
    )
