"""The default registry, where its artifacts go, and how a registry's address is shown without secrets.

The server and the tools share it, so that `penstock publish` and `penstock serve` use one registry without a setting.
"""

import os
import re
from pathlib import Path

from penstock_server import paths
from penstock_server.errors import InvalidInputError, UnavailableError

_SQLITE = "sqlite:///"


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
    database = Path(registry.removeprefix(_SQLITE).partition("?")[0]).absolute()
    return (database.parent / "artifacts").as_uri()


def redacted(uri: str) -> str:
    """The URI as logs may show it: without user, password and query."""
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme.startswith(("sqlite", "file")):
        return uri
    return scheme + mark + rest.partition("?")[0].rpartition("@")[2]


def without_secrets(text: str) -> str:
    """A message of another library, without users and passwords in its URIs."""
    return re.sub(r"://[^/@\s]+@", "://", text)
