"""The calls of mlflow that serving needs, with mlflow's errors translated into Penstock's own.

Only this module of the server imports mlflow, and only at the first call, in a source's process: the import takes seconds
and 90 MB. It reads those registries that nothing lighter reads, such as PostgreSQL, and downloads from those stores that
nothing lighter knows, such as S3. It decides what a failure means: the registry does not answer, it refuses, or it has no
such model or version.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.rollout.registered import Change, DeleteAlias, DeleteTag, Expected, SetAlias, SetTag
from penstock_server.sources.registered import (
    PAGE_MODELS,
    RegisteredModel,
    RegisteredVersion,
    all_pages,
    check_expected,
    identity_of,
    name_filter,
)
from penstock_server.sources.registry import redacted, without_secrets

_CHATTER = {
    "alembic": logging.WARNING,
    "mlflow.store.db.utils": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,
}


class RegistryClient:
    """One registry, read by mlflow."""

    def __init__(self, uri: str) -> None:
        """Opens nothing yet; `uri` is as mlflow takes it."""
        self._uri = uri
        self._shown = redacted(uri)
        self._lock = threading.Lock()
        self._client_or_none: Any = None
        self._repositories: dict[str, Any] = {}

    def models(self) -> Sequence[RegisteredModel]:
        return all_pages(self._page, self._shown)

    def _page(self, token: str) -> tuple[list[RegisteredModel], str]:
        with self._translated("the list of models"):
            page = self._client().search_registered_models(max_results=PAGE_MODELS, page_token=token or None)
        return [self._model(model) for model in page], page.token or ""

    def model(self, name: str) -> RegisteredModel:
        with self._translated(f"model {name!r}"):
            return self._model(self._client().get_registered_model(name))

    def version(self, model: str, version: str) -> RegisteredVersion:
        with self._translated(f"version {version} of model {model!r}"):
            return self._version(self._client().get_model_version(model, version), model)

    def newest(self, model: str, count: int) -> list[str]:
        with self._translated(f"the versions of model {model!r}"):
            found = self._client().search_model_versions(
                name_filter(model), max_results=count, order_by=["version_number DESC"]
            )
        return [str(one.version) for one in found][:count]

    def artifact_uri(self, model: str, version: str) -> str:
        with self._translated(f"the place of the files of version {version} of model {model!r}"):
            return str(self._client().get_model_version_download_uri(model, version))

    def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        version = self.version(model, expected.version) if expected.version else None
        check_expected(expected, self.model(model), version)
        with self._translated(f"a change of model {model!r}"):
            for change in changes:
                self._make(model, change)

    def _make(self, model: str, change: Change) -> None:
        client = self._client()
        match change:
            case SetAlias(alias, version):
                client.set_registered_model_alias(model, alias, version)
            case DeleteAlias(alias):
                client.delete_registered_model_alias(model, alias)
            case SetTag("", key, value):
                client.set_registered_model_tag(model, key, value)
            case SetTag(version, key, value):
                client.set_model_version_tag(model, version, key, value)
            case DeleteTag("", key):
                client.delete_registered_model_tag(model, key)
            case DeleteTag(version, key):
                client.delete_model_version_tag(model, version, key)

    def underlying_uri(self, uri: str) -> str:
        """Where the files of a `runs:` or `models:` address are."""
        self._client()
        import mlflow

        # These two look up the registry of the whole process, whatever they are given.
        mlflow.set_tracking_uri(self._uri)
        mlflow.set_registry_uri(self._uri)
        from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
        from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

        for _ in range(8):
            scheme = uri.partition(":")[0]
            if scheme not in ("runs", "models"):
                return uri
            with self._translated("the place of its files"):
                kind = RunsArtifactRepository if scheme == "runs" else ModelsArtifactRepository
                found = kind(uri, tracking_uri=self._uri, registry_uri=self._uri).repo.artifact_uri
            if found == uri:
                return uri  # a store of its own, such as Unity Catalog
            uri = str(found)
        raise InvalidInputError("its source leads from one registry's address to the next without an end")

    def list_artifacts(self, uri: str, below: str) -> list[tuple[str, bool, int]]:
        """The entries of a folder of a version's files: path below the root, whether it is a folder, and bytes."""
        with self._translated("the list of its files"):
            entries = self._repository(uri).list_artifacts(below or None)
        return [(str(entry.path), bool(entry.is_dir), int(entry.file_size or 0)) for entry in entries]

    def download_artifact(self, uri: str, path: str, folder: Path) -> None:
        """Fetches one file of a version to the same path below `folder`."""
        with self._translated("its files"):
            self._repository(uri).download_artifacts(path, str(folder))

    def _repository(self, uri: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if uri not in self._repositories:
            self._client()
            self._repositories[uri] = get_artifact_repository(uri, tracking_uri=self._uri, registry_uri=self._uri)
        return self._repositories[uri]

    def _model(self, found: Any) -> RegisteredModel:
        versions = {str(one.version): self._version(one, found.name) for one in found.latest_versions or ()}
        return RegisteredModel(
            found.name,
            _texts(found.aliases),
            versions,
            marker=f"{found.creation_timestamp} {found.last_updated_timestamp}",
            newest=max(versions, key=lambda version: (len(version), version), default=""),
            tags=_texts(found.tags),
        )

    def _version(self, found: Any, model: str) -> RegisteredVersion:
        identity = identity_of(
            self._shown,
            (model, str(found.version)),
            created=found.creation_timestamp,
            source=found.source,
            run=found.run_id,
        )
        return RegisteredVersion(identity, _texts(found.tags), str(found.status))

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
            return InvalidInputError(f"the registry {self._shown} refuses {what}: {self._reason(error)}")
        return UnavailableError(f"the registry {self._shown} does not give {what}: {self._reason(error)}")

    def _reason(self, error: BaseException) -> str:
        """The first words of the innermost cause: mlflow wraps "connection refused" five times."""
        cause = error
        while isinstance(below := cause.__cause__ or cause.__context__, Exception):
            cause = below
        text = str(cause if isinstance(cause, OSError) else error).strip() or type(error).__name__
        lines = [line.strip(" #") for line in text.splitlines()]
        # A failed download is a heading with a colon, the file's name, and then what went wrong.
        said = " ".join(lines[:3]) if lines[0].endswith(":") else lines[0]
        return without_secrets(said, self._uri)[:300]

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
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for logger, level in _CHATTER.items():
        logging.getLogger(logger).setLevel(level)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    # Some stores give versions as numbers, others as text.
    return {name: str(value) for name, value in values.items()}
