"""The MLflow registry as a source: aliases say what is wanted, run artifacts are the files.

Decides what a registry's state means for serving and when a local copy will do. What aliases mean is `aliases.py`'s,
talking to mlflow `mlflow_client.py`'s, keeping copies `version_cache.py`'s.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.names import CANARY, ROLES
from penstock_server import paths
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.sources import aliases as alias_rules
from penstock_server.sources.mlflow_client import RegistryClient
from penstock_server.sources.registry import redacted
from penstock_server.sources.source import Desired, WantedModel
from penstock_server.sources.version_cache import VersionCache

_Answer = tuple[WantedModel | None, str | None]


class MlflowSource:
    """What an MLflow registry wants served. Calls block and may come from several threads.

    A version that was fetched before comes from the cache, without the registry, until a poll has been answered. From
    then on `fetch` makes sure that the registry still means the same files, and `poll` reports the copies that were
    handed out unchecked and turn out to be of a version since replaced.

    Attributes:
        name: What logs and the index call it.
    """

    def __init__(self, uri: str, *, models: Sequence[str] = (), cache_dir: Path | None = None) -> None:
        """Opens nothing yet.

        Args:
            uri: As mlflow takes it: `http://...`, `sqlite:///...`, `postgresql://...`.
            models: The registered models to serve; none means every one with a champion.
            cache_dir: Where copies are kept; None is Penstock's cache folder.
        """
        shown = redacted(uri)
        self.name = f"mlflow {shown}" + (f" ({', '.join(sorted(models))})" if models else "")
        self._registry = RegistryClient(uri)
        self._models = tuple(dict.fromkeys(models))
        self._cache = VersionCache((cache_dir or paths.cache_dir()) / "models" / paths.file_name_for(shown))
        self._answers = False
        self._unchecked: set[tuple[str, str]] = set()

    def poll(self) -> Desired:
        """All that the registry wants now.

        Costs one call for every thousand models, or one for each of `models`, and one for each canary.

        Raises:
            UnavailableError: The registry does not answer.
        """
        try:
            answers = self._ask()
            problems = {name: problem for name, (_, problem) in answers.items() if problem is not None}
            problems.update(self._replaced())
        except UnavailableError:
            self._answers = False
            raise
        self._answers = True
        models = {name: wanted for name, (wanted, _) in answers.items() if wanted is not None}
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
        return {name: self._wanted(name, found[name]) for name in found if any(role in found[name] for role in ROLES)}

    def _named(self, name: str) -> _Answer:
        try:
            return self._wanted(name, self._registry.aliases(name))
        except NotFoundError as error:
            return WantedModel(), str(error)
        except InvalidInputError as error:
            # Refused, for want of a permission perhaps: that says nothing about what is wanted.
            return None, str(error)

    def _wanted(self, name: str, aliases: Mapping[str, str]) -> _Answer:
        canary = alias_rules.canary_version(aliases)
        try:
            tags = {} if canary is None else self._registry.version(name, canary).tags
        except (NotFoundError, InvalidInputError) as error:
            others = {alias: version for alias, version in aliases.items() if alias != CANARY}
            return alias_rules.interpret(others, {})[0], f"canary {canary} is left out: {error}"
        return alias_rules.interpret(aliases, tags)

    def _unchecked_copy(self, model: str, version: str, copy: Path) -> Path:
        self._unchecked.add((model, version))
        return copy

    def _replaced(self) -> dict[str, str]:
        """A problem for each copy handed out unchecked that is not what the registry now has under its name."""
        problems = {}
        for model, version in sorted(self._unchecked):
            try:
                is_same = self._registry.version(model, version).identity == self._cache.identity(model, version)
            except (NotFoundError, InvalidInputError):
                is_same = True  # It is gone, and what is wanted will say so.
            if is_same:
                self._unchecked.discard((model, version))
            else:
                problems[model] = (
                    f"version {version} was registered anew while the registry was away; "
                    "what is served is the former one until it is loaded again"
                )
        return problems
