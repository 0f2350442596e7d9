"""What a registry holds, as plain records: the same for every kind of registry.

`sqlite_registry`, `rest_registry` and `mlflow_client` read them, each from its kind of registry, and `mlflow_source`
decides what they mean for serving.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from penstock.names import VersionKey
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.rollout.registered import Change, Expected

MAX_MODELS: Final = 100_000
"""A registry that lists more is not followed: it lists without end, or more than one server should hold."""
MAX_PAGES: Final = 1_000
PAGE_MODELS: Final = 1_000
"""The largest page of MLflow's own stores."""
IS_PROMPT: Final = "mlflow.prompt.is_prompt"
"""The tag of prompts, which MLflow keeps in the table of models."""


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


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model as the registry lists it.

    Attributes:
        aliases: the version of each alias.
        versions: those versions that came with the list; others are asked for.
        tags: the model's own.
        marker: changes when versions come or go, so that what was asked before may be used again.
        newest: the highest version, "" if there is none.
    """

    name: str
    aliases: Mapping[str, str]
    versions: Mapping[str, RegisteredVersion] = field(default_factory=dict)
    marker: str = ""
    newest: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def all_pages(page_of: Callable[[str], tuple[Iterable[RegisteredModel], str]], shown: str) -> list[RegisteredModel]:
    """The models of every page of a list, each once, whatever the registry says of the pages to come.

    Args:
        page_of: the models of the page of a token, "" for the first, and the next page's token, "" for none.
        shown: the registry's address without secrets.

    Raises:
        UnavailableError: the list has no end: a token comes again, or there are too many pages or models.
    """
    found: dict[str, RegisteredModel] = {}
    seen: set[str] = set()
    token = ""
    for _ in range(MAX_PAGES):
        models, token = page_of(token)
        found.update((model.name, model) for model in models)
        if not token:
            return list(found.values())
        if token in seen or len(found) > MAX_MODELS:
            break
        seen.add(token)
    raise UnavailableError(f"the registry {shown} does not list its models: the list has no end")


class RegistryReader(Protocol):
    """Reads one registry. Calls block, for a bounded time, and come from one thread.

    All raise `UnavailableError` when it does not answer. `model`, `version` and `artifact_uri` raise `NotFoundError` when
    there is no such thing, and `InvalidInputError` when the registry refuses to say.
    """

    def models(self) -> Sequence[RegisteredModel]:
        """Every registered model."""
        ...

    def model(self, name: str) -> RegisteredModel: ...

    def version(self, model: str, version: str) -> RegisteredVersion: ...

    def newest(self, model: str, count: int) -> list[str]:
        """The highest versions of a model, the highest first."""
        ...

    def artifact_uri(self, model: str, version: str) -> str:
        """Where the version's files are."""
        ...

    def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        """Makes changes in their order, if what is expected is true; `UnavailableError` when it is not.

        A registry in sqlite makes all of them or none. Others make one after the other, and may stop midway.
        """
        ...


def check_expected(expected: Expected, model: RegisteredModel, version: RegisteredVersion | None) -> None:
    """Checks that nobody wrote meanwhile.

    Raises:
        UnavailableError: somebody did; says what is otherwise.
    """
    unmet = expected.unmet(model.tags, model.aliases, version.tags if version is not None else {})
    if unmet:
        raise UnavailableError(f"model {model.name!r} has changed meanwhile, so nothing is written: {unmet}")


def name_filter(model: str) -> str:
    """The filter of MLflow's search for the versions of a model.

    Raises:
        InvalidInputError: no filter can hold such a name.
    """
    quote = '"' if "'" in model else "'"
    if quote in model:
        raise InvalidInputError(
            f"the versions of model {model!r} cannot be searched for: its name has both kinds of quotes"
        )
    return f"name = {quote}{model}{quote}"


def identity_of(registry: str, key: VersionKey, *, created: object, source: object, run: object) -> str:
    """The identity of a version: the digest of all that tells it from one registered anew with its name and number."""
    described = [registry, *key, *(None if part is None else str(part) for part in (created, source, run))]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
