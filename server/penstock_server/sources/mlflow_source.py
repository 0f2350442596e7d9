"""The MLflow registry as a source: aliases say what is desired, and run artifacts are the files.

It decides what a registry's state means for serving, and when a local copy is enough. `rollout.aliases` interprets the
aliases, a `registered.Registry` reads the registry, and `version_cache` keeps the copies. It runs in a source's process
(`source_process`): every call blocks.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from penstock.names import CHAMPION, ROLES, role_of
from penstock_server import paths
from penstock_server.clock import Clock, monotonic
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.models.version_folder import shown
from penstock_server.rollout.aliases import aliases_of, interpret, tagged_versions
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.rollout.progress import LEASE_TAG
from penstock_server.rollout.registered import (
    REFUSED_TAG,
    TAG_PREFIX,
    Change,
    Expected,
    RegisteredRollout,
    candidate_of,
)
from penstock_server.sources import flavours, local_files, remote_files
from penstock_server.sources.budget import Budget
from penstock_server.sources.http_session import HttpSession, needs_mlflow
from penstock_server.sources.mlflow_client import RegistryClient
from penstock_server.sources.policy import by_policy, role_aliases
from penstock_server.sources.registered import RegisteredModel, RegisteredVersion, RegistryReader
from penstock_server.sources.registry import WORKSPACE, redacted, source_name, sqlite_path
from penstock_server.sources.rest_registry import RestRegistry
from penstock_server.sources.settings import MAX_VERSIONS, FetchSettings, PolicySettings
from penstock_server.sources.source import Desired, VersionFiles
from penstock_server.sources.sqlite_registry import RoleAliases, SqliteRegistry
from penstock_server.sources.version_cache import VersionCache

_VERSION: Final = re.compile(r"[0-9]{1,18}")
MAX_NAME_CHARS: Final = 500
PATIENCE_S: Final = 5.0
"""When a poll has taken longer, a version that the registry does not give makes it one that does not answer. Before, it is
the trouble of its model alone."""
MAX_TOLD: Final = 100
"""So many models without an alias of a role are told of; a registry may hold a hundred thousand."""


class MlflowSource:
    """What an MLflow registry desires, and the files of its versions.

    Args:
        uri: as mlflow takes it: `http://...`, `sqlite:///...`, `postgresql://...`.
        models: the registered models to serve; empty means every model with an alias of a role.
        cache_dir: where copies are kept; None is Penstock's cache folder.
        fetch: the bounds of a version.
        registry: reads the registry; None opens the one at `uri`.
        policy: which versions of the models are served.
    """

    def __init__(
        self,
        uri: str,
        *,
        models: Sequence[str] = (),
        cache_dir: Path | None = None,
        fetch: FetchSettings = FetchSettings(),  # noqa: B008 - frozen
        registry: RegistryReader | None = None,
        policy: PolicySettings = PolicySettings(),  # noqa: B008 - frozen
    ) -> None:
        self._policy = policy
        self._newest: dict[tuple[str, str, int], list[str]] = {}
        workspace = os.environ.get(WORKSPACE, "")
        self.name = source_name(uri, models, workspace)
        self._uri = uri
        self._shown = redacted(uri)
        self._registry_or_none: RegistryReader | None = None if registry is None else by_policy(registry, policy)
        self._models = tuple(dict.fromkeys(models))
        self._cache = VersionCache(
            cache_dir or paths.cache_dir(), f"{self._shown}#{workspace}" if workspace else self._shown
        )
        self._fetch_settings = fetch
        self._known: dict[tuple[str, str, str], RegisteredVersion] = {}

    def poll(self) -> Desired:
        """All that the registry desires now.

        Costs one call per thousand models, or one for each of `models`; one per canary or shadow that is not its model's
        newest version; and one, once, for every other version with a role that is not the newest. A policy that keeps the
        latest versions costs one per model when its versions change. A registry in sqlite costs one transaction, and one more
        for each such policy.

        Raises:
            UnavailableError: the registry does not answer.
        """
        reading = _Reading(self._registry, self._known, self._newest, self._policy)
        problems: dict[str, str] = {}
        if self._models:
            listed = [found for name in self._models if (found := self._named(name, reading, problems)) is not None]
        else:
            listed = list(_of_interest(self._all()))
        for model in listed:
            reading.take(model)
        self._known, self._newest = reading.used, reading.used_newest
        return Desired(
            reading.models,
            {**reading.problems, **problems},
            reading.identities,
            reading.rollouts,
            reading.model_tags,
            reading.refused,
        )

    def fetch(self, model: str, version: str, identity: str = "") -> Path:
        """The folder of `get`."""
        return self.get(model, version, identity).folder

    def get(self, model: str, version: str, identity: str = "") -> VersionFiles:
        """The version's files; a copy of this identity needs no registry.

        Args:
            model: the model's name.
            version: its number.
            identity: which of those that had this name and number is meant; "" takes the one that is registered now, or
                the last copy while the registry does not answer.

        Raises:
            NotFoundError: there is no such version.
            InvalidInputError: it cannot be used; says why.
            UnavailableError: the registry or the artifact store does not answer, and there is no copy.
        """
        if identity and (copy := self._cache.find(model, version, identity)) is not None:
            return copy
        try:
            registered = self._registry.version(model, version)
        except UnavailableError:
            copy = self._cache.find(model, version)
            if identity or copy is None:
                raise
            return copy
        if registered.status != "READY":
            raise UnavailableError(
                f"version {version} of model {model!r} is {registered.status[:100]} in the registry, not READY"
            )
        if identity and registered.identity != identity:
            raise UnavailableError(f"version {version} of model {model!r} has just been registered anew")
        return self._cache.find(model, version, registered.identity) or self._download(
            model, version, registered.identity
        )

    def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        """Writes to the registry; see `Registry.write`."""
        self._registry.write(model, expected, changes)

    @property
    def _registry(self) -> RegistryReader:
        if self._registry_or_none is None:
            self._registry_or_none = by_policy(_registry_of(self._uri, self._shown, self._policy), self._policy)
        return self._registry_or_none

    def _all(self) -> Sequence[RegisteredModel]:
        try:
            return self._registry.models()
        except (NotFoundError, InvalidInputError) as error:
            raise UnavailableError(f"the registry {self._shown} does not list its models: {error}") from error

    def _named(self, name: str, reading: "_Reading", problems: dict[str, str]) -> RegisteredModel | None:
        try:
            return self._registry.model(name)
        except NotFoundError as error:
            reading.models[name], problems[name] = TrafficPlan(), str(error)
        except InvalidInputError as error:
            # Refused, perhaps because a permission is missing: that says nothing about what is desired.
            problems[name] = str(error)
        return None

    def _download(self, model: str, version: str, identity: str) -> VersionFiles:
        def download(folder: Path) -> Path:
            self._fetch_files(self._registry.artifact_uri(model, version), model, folder)
            return folder

        try:
            return self._cache.store(model, version, identity, download)
        except (InvalidInputError, NotFoundError, UnavailableError) as error:
            raise type(error)(f"version {version} of model {model!r} cannot be fetched: {error}") from error

    def _fetch_files(self, uri: str, model: str, folder: Path) -> None:
        budget = Budget(self._fetch_settings)

        def inspect(fetched: Path) -> None:
            flavours.check_is_onnx(fetched, model)

        client = RegistryClient(self._uri)
        if uri.startswith(("runs:", "models:")):
            uri = client.underlying_uri(uri)
        if not uri:
            raise InvalidInputError("it was registered without a source; expected the address of an MLflow model")
        if (path := local_files.local_path(uri)) is not None:
            local_files.copy_folder(path, folder, budget, inspect)
        else:
            store = remote_files.store_of(uri, self._uri, client)
            remote_files.download(store, folder, budget, inspect, self._cache.files.take)


class _Reading:
    """One poll's way from the registry's models to the desired state."""

    def __init__(
        self,
        registry: RegistryReader,
        known: Mapping[tuple[str, str, str], RegisteredVersion],
        newest: Mapping[tuple[str, str, int], list[str]],
        policy: PolicySettings,
        clock: Clock = monotonic,
    ) -> None:
        self.models: dict[str, TrafficPlan] = {}
        self.problems: dict[str, str] = {}
        self.identities: dict[str, dict[str, str]] = {}
        self.rollouts: dict[str, RegisteredRollout] = {}
        self.model_tags: dict[str, dict[str, str]] = {}
        self.refused: dict[str, dict[str, str]] = {}
        self.used: dict[tuple[str, str, str], RegisteredVersion] = {}
        self._registry = registry
        self._known = known
        self.used_newest: dict[tuple[str, str, int], list[str]] = {}
        self._newest = newest
        self._policy = policy
        self._clock = clock
        self._started_s = clock()

    def take(self, model: RegisteredModel) -> None:
        """Adds what the registry says of one model."""
        name = model.name
        if not name.isprintable() or len(name) > MAX_NAME_CHARS:
            self.problems[ascii(name)[:200]] = (
                "the model's name is too long or not printable, so no request could name it"
            )
            return
        aliases = {alias: version for alias, version in model.aliases.items() if _VERSION.fullmatch(version)}
        sentences = [
            f"the alias {alias!r} names {shown(model.aliases[alias])}, which is no version; expected a number"
            for alias in sorted(model.aliases)
            if role_of(alias) is not None and alias not in aliases
        ]
        if CHAMPION in model.aliases and CHAMPION not in aliases:
            self.problems[name] = "; ".join(sentences)  # nonsense says nothing about what is desired
            return
        try:
            versions = self._versions(model, aliases, sentences)
        except UnavailableError as error:
            if self._clock() - self._started_s > PATIENCE_S:
                raise
            self.problems[name] = str(error)  # of this model alone: its former plan holds
            return
        tags = {version: versions[version].tags for version in tagged_versions(aliases) & versions.keys()}
        named = self._policy.of(name).champion
        plan, problem = interpret(aliases, tags, model=name, newest=model.newest, champion_alias=named)
        plan = self._with_others(model, plan, versions, sentences)
        self.models[name] = plan
        if found := {version: versions[version].identity for version in plan.versions if version in versions}:
            self.identities[name] = found
        if refused := {
            version: reason
            for version in plan.versions
            if version in versions and (reason := versions[version].tags.get(REFUSED_TAG, ""))
        }:
            self.refused[name] = refused
        if problem is not None:
            sentences.append(problem)
        if sentences:
            self.problems[name] = "; ".join(sentences)
        if own := {key: value for key, value in model.tags.items() if key.startswith(TAG_PREFIX)}:
            self.model_tags[name] = own
        self._take_rollout(model)

    def _with_others(
        self,
        model: RegisteredModel,
        plan: TrafficPlan,
        versions: dict[str, RegisteredVersion],
        sentences: list[str],
    ) -> TrafficPlan:
        """The plan with the versions that the policy keeps beside those that have a role, which it adds to `versions`."""
        policy = self._policy.of(model.name)
        if plan.champion is None or not (policy.latest or policy.versions):
            return plan
        kept: list[str] = []
        try:
            wanted = [*self._latest(model, policy.latest), *map(str, policy.versions)]
            for version in dict.fromkeys(wanted):
                if version in plan.versions or len(kept) == MAX_VERSIONS:
                    continue
                try:
                    versions[version] = self._version(model, version, is_fresh=False)
                    kept.append(version)
                except NotFoundError as error:
                    sentences.append(f"version {version} is left out: {error}")
        except InvalidInputError as error:
            sentences.append(str(error))
        return msgspec.structs.replace(plan, others=tuple(kept))

    def _latest(self, model: RegisteredModel, count: int) -> list[str]:
        """The highest versions; of a registry that tells when versions come and go, those of before while none did."""
        if not count:
            return []
        key = (model.name, model.marker, count)
        found = self._newest.get(key) if model.marker else None
        if found is None:
            found = [one for one in self._registry.newest(model.name, count) if _VERSION.fullmatch(one)]
        self.used_newest[key] = found
        return found

    def _take_rollout(self, model: RegisteredModel) -> None:
        """Adds the model's rollout, if it has one; a version that cannot be read has none for now."""
        newest = model.versions.get(model.newest)
        version = candidate_of(model.aliases, model.newest, newest.tags if newest is not None else {})
        if version is None or not _VERSION.fullmatch(version):
            return
        with suppress(UnavailableError, NotFoundError, InvalidInputError):
            found = self._version(model, version, is_fresh=True)
            tags = {key: value for key, value in found.tags.items() if key.startswith(TAG_PREFIX)}
            self.rollouts[model.name] = RegisteredRollout(version, model.aliases, tags, model.tags.get(LEASE_TAG, ""))

    def _versions(
        self, model: RegisteredModel, aliases: dict[str, str], sentences: list[str]
    ) -> dict[str, RegisteredVersion]:
        """The versions that have a role; a canary or shadow that is not registered loses its alias, with a sentence."""
        versions: dict[str, RegisteredVersion] = {}
        if CHAMPION not in aliases:
            return versions
        tagged = tagged_versions(aliases)
        for role in ROLES:
            for alias, version in aliases_of(role, aliases).items():
                if version in versions:
                    continue
                try:
                    versions[version] = self._version(model, version, is_fresh=version in tagged)
                except (NotFoundError, InvalidInputError) as error:
                    # A champion stays in the plan: the one before it serves on, and the reason is shown.
                    if role != CHAMPION:
                        del aliases[alias]
                    outcome = "cannot be served" if role == CHAMPION else "is left out"
                    sentences.append(f"{alias} {version} {outcome}: {error}")
        return versions

    def _version(self, model: RegisteredModel, version: str, *, is_fresh: bool) -> RegisteredVersion:
        """The version: it came with the list, or was asked before and cannot have changed, or is asked now.

        Args:
            model: its model.
            version: its number.
            is_fresh: whether its tags matter, which change without a sign.
        """
        if version in model.versions:
            return model.versions[version]
        key = (model.name, version, model.marker)
        found = self._known.get(key)
        if found is None or is_fresh:
            found = self._registry.version(model.name, version)
        self.used[key] = found
        return found


def _of_interest(models: Sequence[RegisteredModel]) -> Sequence[RegisteredModel]:
    """The models with an alias of a role, and the first of those that have versions and none."""
    chosen, told = [], 0
    for model in models:
        if any(role_of(alias) is not None for alias in model.aliases):
            chosen.append(model)
        elif model.newest and told < MAX_TOLD:
            told += 1
            chosen.append(model)
    return chosen


def _registry_of(uri: str, shown: str, policy: PolicySettings) -> RegistryReader:
    """The lightest way to read this registry: mlflow's own costs 90 to 150 MB."""
    path = sqlite_path(uri)
    if path is not None:
        return SqliteRegistry(
            path,
            shown,
            workspace=os.environ.get(WORKSPACE) or "default",
            roles=RoleAliases(*role_aliases(policy)),
        )
    return RestRegistry(HttpSession(uri)) if _speaks_rest(uri) else RegistryClient(uri)


def _speaks_rest(uri: str) -> bool:
    return uri.startswith(("http://", "https://")) and not needs_mlflow()
