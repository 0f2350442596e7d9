"""The tools' way to an MLflow registry: a client, where artifacts go, and MLflow's errors in Penstock's words.

Decides which of Penstock's errors each of MLflow's becomes. What is written there is `publish`'s and `promote`'s
business; which registry is meant when nobody names one, the server's `models.registry` says for both sides.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.paths import data_dir
from penstock_server.sources.registry import artifact_location, default_registry, redacted, without_secrets

EXPERIMENT: Final = "penstock"
"""The MLflow experiment that holds the runs."""

_MEANINGS: Final[dict[str, type[PenstockError]]] = {
    "RESOURCE_DOES_NOT_EXIST": NotFoundError,
    "INVALID_PARAMETER_VALUE": InvalidInputError,
    "RESOURCE_ALREADY_EXISTS": InvalidInputError,
    "BAD_REQUEST": InvalidInputError,
}
# MLflow's own answer to a registry that is away is to try for minutes; a command says so while one is looking.
_SETTINGS: Final = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_CHATTER: Final = {
    "alembic": logging.WARNING,
    "mlflow.store.db.utils": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,
}


@contextmanager
def opened(uri: str | None = None) -> Iterator[Any]:
    """A `mlflow.MlflowClient` for the registry; what MLflow raises inside leaves as a `PenstockError`.

    Args:
        uri: the registry's address; None for `MLFLOW_TRACKING_URI`, else the embedded one.

    Raises:
        NotFoundError: MLflow knows no such thing.
        InvalidInputError: MLflow refuses what it was given, or the address.
        UnavailableError: the registry does not answer.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    uri = uri or default_registry()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for logger, level in _CHATTER.items():
        logging.getLogger(logger).setLevel(level)
    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        raise _translated(error, uri) from error


def experiment_id(client: Any) -> str:
    """The id of Penstock's experiment, made when it is not there."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=_artifacts_of(client.tracking_uri)))


def _artifacts_of(uri: str) -> str | None:
    """Never the working directory, which is where MLflow would put a database's artifacts."""
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
