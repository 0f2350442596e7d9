"""The MLflow registry as a source: aliases say what is desired, and run artifacts are the files.

It decides what a registry's state means for serving, and when a local copy is enough. `rollout.aliases` interprets the
aliases, `mlflow_client` calls mlflow, and `version_cache` keeps the copies.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.names import CANARY, ROLES
from penstock_server import paths
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.rollout.aliases import canary_version, interpret
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.mlflow_client import RegistryClient
from penstock_server.sources.registry import redacted
from penstock_server.sources.source import Desired
from penstock_server.sources.version_cache import VersionCache

_Answer = tuple[TrafficPlan | None, str | None]


class MlflowSource:
    """What an MLflow registry desires. Calls block and may come from several threads.

    Until a poll has been answered, a version that was fetched before comes from the cache without asking the registry.
    From then on `fetch` checks that the registry still has the same files, and `poll` reports copies that were handed
    out unchecked and whose version has since been replaced.

    Args:
        uri: as mlflow takes it: `http://...`, `sqlite:///...`, `postgresql://...`.
        models: the registered models to serve; empty means every model with an alias of a role.
        cache_dir: where copies are kept; None is Penstock's cache folder.

    Attributes:
        name: its name in logs and in /v1/models.
    """

    def __init__(self, uri: str, *, models: Sequence[str] = (), cache_dir: Path | None = None) -> None:
        shown = redacted(uri)
        self.name = f"mlflow {shown}" + (f" ({', '.join(sorted(models))})" if models else "")
        self._registry = RegistryClient(uri)
        self._models = tuple(dict.fromkeys(models))
        self._cache = VersionCache((cache_dir or paths.cache_dir()) / "models" / paths.file_name_for(shown))
        self._answers = False
        self._unchecked: set[tuple[str, str]] = set()

    def poll(self) -> Desired:
        """All that the registry desires now.

        Costs one call per thousand models, or one for each of `models`, and one per canary.

        Raises:
            UnavailableError: the registry does not answer.
        """
        try:
            answers = self._ask()
            problems = {name: problem for name, (_, problem) in answers.items() if problem is not None}
            problems.update(self._replaced())
        except UnavailableError:
            self._answers = False
            raise
        self._answers = True
        models = {name: plan for name, (plan, _) in answers.items() if plan is not None}
        return Desired(models=models, problems=problems)

    def fetch(self, model: str, version: str) -> Path:
        """A local folder with the version's files; see `Source.fetch`."""
        cached = self._cache.find(model, version)
        if cached is not None and not self._answers:
            return self._unchecked_copy(model, version, cached)
        try:
            registered = self._registry.version(model, version)
        except UnavailableError:
            if cached is None:
                raise
            return self._unchecked_copy(model, version, cached)
        self._unchecked.discard((model, version))
        if registered.status != "READY":
            raise UnavailableError(
                f"version {version} of model {model!r} is {registered.status} in the registry, not READY"
            )
        identity = registered.identity
        return self._cache.find(model, version, identity) or self._cache.store(
            model, version, identity, lambda folder: self._registry.download(model, version, folder)
        )

    def _ask(self) -> dict[str, _Answer]:
        if self._models:
            return {name: self._named(name) for name in self._models}
        found = self._registry.all_aliases()
        return {name: self._plan(name, found[name]) for name in found if any(role in found[name] for role in ROLES)}

    def _named(self, name: str) -> _Answer:
        try:
            return self._plan(name, self._registry.aliases(name))
        except NotFoundError as error:
            return TrafficPlan(), str(error)
        except InvalidInputError as error:
            # Refused, perhaps because a permission is missing: that says nothing about what is desired.
            return None, str(error)

    def _plan(self, name: str, aliases: Mapping[str, str]) -> _Answer:
        canary = canary_version(aliases)
        try:
            tags = {} if canary is None else self._registry.version(name, canary).tags
        except (NotFoundError, InvalidInputError) as error:
            others = {alias: version for alias, version in aliases.items() if alias != CANARY}
            return interpret(others, {})[0], f"canary {canary} is left out: {error}"
        return interpret(aliases, tags)

    def _unchecked_copy(self, model: str, version: str, copy: Path) -> Path:
        self._unchecked.add((model, version))
        return copy

    def _replaced(self) -> dict[str, str]:
        """A problem for each copy handed out unchecked that differs from what the registry now has under its name."""
        problems = {}
        for model, version in sorted(self._unchecked):
            try:
                is_same = self._registry.version(model, version).identity == self._cache.identity(model, version)
            except (NotFoundError, InvalidInputError):
                is_same = True  # it is gone, which the desired plans will show
            if is_same:
                self._unchecked.discard((model, version))
            else:
                problems[model] = (
                    f"version {version} was registered again while the registry was away; "
                    "the former one is served until it is loaded again"
                )
        return problems
