"""The calls of mlflow that serving needs, with mlflow's errors translated into Penstock's own.

Only this module of the server imports mlflow, and only at the first call: the import takes seconds. It decides what a
failure means: the registry does not answer, it refuses, or it has no such model or version. `mlflow_source` calls it.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.sources.registry import redacted, without_secrets

# The largest page of MLflow's own stores.
_PAGE_MODELS = 1000

_CHATTER = {
    "alembic": logging.WARNING,
    "mlflow.store.db.utils": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,
}


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version as the registry has it.

    Attributes:
        identity: differs between two versions that were registered with the same model and number.
        tags: text by name.
        status: `READY` unless its files are still being written, or could not be.
    """

    identity: str
    tags: Mapping[str, str]
    status: str


class RegistryClient:
    """One registry. Calls block and may come from several threads."""

    def __init__(self, uri: str) -> None:
        """Opens nothing yet; `uri` is as mlflow takes it."""
        self._uri = uri
        self._shown = redacted(uri)
        self._lock = threading.Lock()
        self._client_or_none: Any = None

    def all_aliases(self) -> dict[str, dict[str, str]]:
        """The aliases of every registered model, by name.

        Raises:
            UnavailableError: they cannot be read, whatever the reason.
        """
        found: dict[str, dict[str, str]] = {}
        page_token = None
        try:
            while True:
                with self._translated("the list of models"):
                    page = self._client().search_registered_models(max_results=_PAGE_MODELS, page_token=page_token)
                found.update((model.name, _texts(model.aliases)) for model in page)
                page_token = page.token
                if not page_token:
                    return found
        except (NotFoundError, InvalidInputError) as error:
            raise UnavailableError(f"the registry {self._shown} does not list its models: {error}") from error

    def aliases(self, model: str) -> dict[str, str]:
        """The aliases of one model, with the version of each.

        Raises:
            NotFoundError: there is no such registered model.
            InvalidInputError: the registry refuses to say.
            UnavailableError: it does not answer.
        """
        with self._translated(f"model {model!r}"):
            return _texts(self._client().get_registered_model(model).aliases)

    def version(self, model: str, version: str) -> RegisteredVersion:
        """What is registered under this model and version.

        Raises:
            NotFoundError: nothing is.
            InvalidInputError: the registry refuses to say, or the version is not a number.
            UnavailableError: it does not answer.
        """
        with self._translated(f"version {version} of model {model!r}"):
            found = self._client().get_model_version(model, version)
        described = json.dumps([found.source, found.run_id, found.creation_timestamp])
        return RegisteredVersion(
            identity=hashlib.sha256(described.encode()).hexdigest(), tags=_texts(found.tags), status=str(found.status)
        )

    def download(self, model: str, version: str, folder: Path) -> Path:
        """Fetches the version's artifacts into the empty `folder`.

        Returns:
            The folder that holds them: `folder`, or one below it.

        Raises:
            NotFoundError: there is no such version.
            InvalidInputError: its registered source is not a folder.
            UnavailableError: the registry or its artifact store does not answer.
        """
        with self._translated(f"the files of version {version} of model {model!r}"):
            source = self._client().get_model_version_download_uri(model, version)
            import mlflow.artifacts

            files = Path(
                mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=str(folder), tracking_uri=self._uri, registry_uri=self._uri
                )
            )
        if not files.is_dir() or not files.resolve().is_relative_to(folder.resolve()):
            raise InvalidInputError(
                f"version {version} of model {model!r} is registered with a source that is not a folder; expected one"
            )
        return files

    def _client(self) -> Any:
        with self._lock:
            if self._client_or_none is None:
                self._client_or_none = connect(self._uri)
            return self._client_or_none

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except PenstockError:
            raise
        except Exception as error:  # every storage plug-in of mlflow raises its own classes
            raise self._own_error(what, error) from error

    def _own_error(self, what: str, error: Exception) -> PenstockError:
        code = getattr(error, "error_code", None)
        if code == "RESOURCE_DOES_NOT_EXIST" and self._is_definite(error):
            return NotFoundError(f"{what} is not in the registry {self._shown}")
        if code in ("INVALID_PARAMETER_VALUE", "PERMISSION_DENIED") and self._is_definite(error):
            return InvalidInputError(f"the registry {self._shown} refuses {what}: {_reason(error)}")
        return UnavailableError(f"the registry {self._shown} does not give {what}: {_reason(error)}")

    def _is_definite(self, error: Exception) -> bool:
        """Whether the registry itself answered: a proxy's error page, even a 404, says nothing about a model."""
        from mlflow.exceptions import RestException

        return isinstance(error, RestException) or not self._uri.startswith("http")


def connect(uri: str, *, timeout_s: int = 10, retries: int = 1) -> Any:
    """A `mlflow.MlflowClient` of this registry that gives up soon, prints nothing and logs little.

    When the registry does not answer, mlflow itself retries for minutes; the server goes on with its last known state
    instead. Settings in the user's environment take precedence.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(timeout_s))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retries))
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    for logger, level in _CHATTER.items():
        logging.getLogger(logger).setLevel(level)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    # Some stores give versions as numbers, others as text.
    return {name: str(value) for name, value in values.items()}


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause: mlflow wraps "connection refused" five times."""
    cause = error
    while isinstance(below := cause.__cause__ or cause.__context__, Exception):
        cause = below
    text = str(cause if isinstance(cause, OSError) else error).strip() or type(error).__name__
    return without_secrets(text.splitlines()[0])[:300]
