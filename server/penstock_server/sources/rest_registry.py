"""Reads a registry that is an MLflow server through its REST interface, without mlflow.

Every answer is decoded strictly and bounded, since it may be anything: a proxy's page, a list without end, a name that is
no text. mlflow would take all of it into memory first.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from penstock_server.errors import NotFoundError, UnavailableError
from penstock_server.rollout.registered import Change, DeleteAlias, DeleteTag, Expected, SetAlias, SetTag
from penstock_server.sources.http_session import HttpSession
from penstock_server.sources.registered import (
    IS_PROMPT,
    PAGE_MODELS,
    RegisteredModel,
    RegisteredVersion,
    all_pages,
    check_expected,
    identity_of,
    name_filter,
)

_API: Final = "/api/2.0/mlflow"
_Number = int | str


class _Tag(msgspec.Struct):
    key: str = ""
    value: str = ""


class _Alias(msgspec.Struct):
    alias: str
    version: _Number


class _Version(msgspec.Struct):
    name: str
    version: _Number
    creation_timestamp: _Number | None = None
    source: str | None = None
    run_id: str | None = None
    status: str = "READY"
    tags: list[_Tag] = []


class _Model(msgspec.Struct):
    name: str
    creation_timestamp: _Number | None = None
    last_updated_timestamp: _Number | None = None
    aliases: list[_Alias] = []
    latest_versions: list[_Version] = []
    tags: list[_Tag] = []


class _Page(msgspec.Struct):
    registered_models: list[_Model] = []
    next_page_token: str = ""


class _Versions(msgspec.Struct):
    model_versions: list[_Version] = []


class _OneModel(msgspec.Struct):
    registered_model: _Model


class _OneVersion(msgspec.Struct):
    model_version: _Version


class _Address(msgspec.Struct):
    artifact_uri: str = ""


_pages: Final = msgspec.json.Decoder(_Page)
_models: Final = msgspec.json.Decoder(_OneModel)
_versions: Final = msgspec.json.Decoder(_OneVersion)
_found_versions: Final = msgspec.json.Decoder(_Versions)
_addresses: Final = msgspec.json.Decoder(_Address)

_ReplyT = TypeVar("_ReplyT")


class RestRegistry:
    """One MLflow server."""

    def __init__(self, session: HttpSession) -> None:
        self._session = session

    def models(self) -> Sequence[RegisteredModel]:
        return all_pages(self._page, self._session.shown)

    def _page(self, token: str) -> tuple[list[RegisteredModel], str]:
        query = {"max_results": PAGE_MODELS, **({"page_token": token} if token else {})}
        page = self._get("/registered-models/search", query, "the list of models", _pages)
        return [
            self._model(model) for model in page.registered_models if not _is_prompt(model.tags)
        ], page.next_page_token

    def model(self, name: str) -> RegisteredModel:
        reply = self._get("/registered-models/get", {"name": name}, f"model {name!r}", _models)
        return self._model(reply.registered_model)

    def version(self, model: str, version: str) -> RegisteredVersion:
        what = f"version {version} of model {model!r}"
        reply = self._get("/model-versions/get", {"name": model, "version": version}, what, _versions)
        return self._version(reply.model_version, model)

    def newest(self, model: str, count: int) -> list[str]:
        query = {"filter": name_filter(model), "order_by": "version_number DESC", "max_results": count}
        found = self._get("/model-versions/search", query, f"the versions of model {model!r}", _found_versions)
        return [str(one.version) for one in found.model_versions][:count]

    def artifact_uri(self, model: str, version: str) -> str:
        what = f"the place of the files of version {version} of model {model!r}"
        query = {"name": model, "version": version}
        return self._get("/model-versions/get-download-uri", query, what, _addresses).artifact_uri

    def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        what = f"a change of model {model!r}"
        version = self.version(model, expected.version) if expected.version else None
        check_expected(expected, self.model(model), version)
        for change in changes:
            method, path, body = _request(model, change)
            try:
                self._session.send(method, _API + path, body, what)
            except NotFoundError:
                if method != "DELETE":  # what is gone already need not be deleted
                    raise

    def _get(
        self, path: str, query: Mapping[str, object], what: str, decoder: msgspec.json.Decoder[_ReplyT]
    ) -> _ReplyT:
        body = self._session.get(_API + path, query, what)
        try:
            return decoder.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UnavailableError(
                f"the registry {self._session.shown} does not give {what}: it answers with something else "
                f"({self._session.without_secrets(str(error))})"
            ) from error

    def _model(self, found: _Model) -> RegisteredModel:
        versions = {str(one.version): self._version(one, found.name) for one in found.latest_versions}
        return RegisteredModel(
            found.name,
            {one.alias: str(one.version) for one in found.aliases},
            versions,
            marker=f"{found.creation_timestamp} {found.last_updated_timestamp}",
            newest=max(versions, key=lambda version: (len(version), version), default=""),
            tags={tag.key: tag.value for tag in found.tags},
        )

    def _version(self, found: _Version, model: str) -> RegisteredVersion:
        identity = identity_of(
            self._session.shown,
            (model, str(found.version)),
            created=found.creation_timestamp,
            source=found.source,
            run=found.run_id,
        )
        return RegisteredVersion(identity, {tag.key: tag.value for tag in found.tags}, found.status)


def _request(model: str, change: Change) -> tuple[str, str, dict[str, str]]:
    """The method, path and body of one change."""
    match change:
        case SetAlias(alias, version):
            return "POST", "/registered-models/alias", {"name": model, "alias": alias, "version": version}
        case DeleteAlias(alias):
            return "DELETE", "/registered-models/alias", {"name": model, "alias": alias}
        case SetTag(version, key, value):
            of, whose = _owner(version)
            return "POST", f"/{of}/set-tag", {"name": model, **whose, "key": key, "value": value}
        case DeleteTag(version, key):
            of, whose = _owner(version)
            return "DELETE", f"/{of}/delete-tag", {"name": model, **whose, "key": key}


def _owner(version: str) -> tuple[str, dict[str, str]]:
    return ("model-versions", {"version": version}) if version else ("registered-models", {})


def _is_prompt(tags: list[_Tag]) -> bool:
    return any(tag.key == IS_PROMPT and tag.value.lower() == "true" for tag in tags)
