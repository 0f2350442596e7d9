"""A registry and its store, in memory: what is registered, which faults they have, and what they say because of them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final, Literal

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.rollout.registered import Change, DeleteAlias, DeleteTag, Expected, SetAlias, SetTag
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_server.sources.registered import RegisteredModel, RegisteredVersion, check_expected

Kind = Literal[
    "good", "slow", "refused", "trial hangs", "trial dies", "load fails", "load kills", "run kills", "run hangs",
    "damaged", "no files",
]  # fmt: skip
"""What a version's files do, once somebody reads, tries, loads or runs them."""
KINDS: Final[dict[Kind, int]] = {
    "good": 60, "slow": 6, "refused": 6, "trial hangs": 4, "trial dies": 4, "load fails": 4, "load kills": 6,
    "run kills": 6, "run hangs": 3, "damaged": 4, "no files": 3,
}  # fmt: skip
SERVABLE: Final = frozenset({"good", "slow"})
DANGEROUS: Final = frozenset({"load kills", "run kills", "run hangs"})
"""They pass the airlock; what becomes of them depends on who asks them when."""

Lie = Literal["", "empty", "partial", "stale"]


@dataclass(frozen=True)
class Registration:
    """A version: `serial` is of this registration alone."""

    serial: int
    kind: Kind
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> "Content":
        return Content(self.serial, self.kind)

    @property
    def identity(self) -> str:
        return self.content.identity


@dataclass(frozen=True)
class Model:
    versions: dict[str, Registration] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    changes: int = 0
    tags: dict[str, str] = field(default_factory=dict)


class Database:
    """A registry's database: immutable models by name, so that an earlier state is a copy of the dict."""

    def __init__(self, names: Sequence[str], serials: Iterator[int]) -> None:
        self.serials = serials
        self.models: dict[str, Model] = dict.fromkeys(names, Model())
        self.newest: dict[str, int] = dict.fromkeys(names, 0)

    def publish(self, name: str, kind: Kind, number: str | None = None, weight: str = "") -> str:
        """Registers a version; with a number of one that is there, it takes its place with other files."""
        if number is None:
            self.newest[name] = self.newest.get(name, 0) + 1
            number = str(self.newest[name])
        tags = {"penstock.weight": weight} if weight else {}
        model = self.models.get(name, Model())
        self._put(
            name, replace(model, versions={**model.versions, number: Registration(next(self.serials), kind, tags)})
        )
        return number

    def alias(self, name: str, alias: str, number: str | None) -> None:
        model = self.models[name]
        aliases = {one: other for one, other in model.aliases.items() if one != alias}
        self._put(name, replace(model, aliases=aliases if number is None else {**aliases, alias: number}))

    def delete(self, name: str, number: str, *, with_aliases: bool) -> None:
        model = self.models[name]
        versions = {one: other for one, other in model.versions.items() if one != number}
        aliases = {one: other for one, other in model.aliases.items() if other != number or not with_aliases}
        self._put(name, replace(model, versions=versions, aliases=aliases))

    def tag(self, name: str, number: str, key: str, value: str | None) -> None:
        """Sets a tag of a version, or of the model where `number` is ""; None deletes it."""
        model = self.models[name]
        former = model.versions[number].tags if number else model.tags
        tags = {one: other for one, other in former.items() if one != key}
        tags |= {} if value is None else {key: value}
        if number:
            versions = {**model.versions, number: replace(model.versions[number], tags=tags)}
            self._put(name, replace(model, versions=versions))
        else:
            self._put(name, replace(model, tags=tags))

    def _put(self, name: str, model: Model) -> None:
        self.models[name] = replace(model, changes=model.changes + 1)


class FakeRegistry:
    """What answers for a database, truly or not.

    Attributes:
        is_down: nothing answers.
        lie: what is wrong with its lists.
        is_refusing: it refuses to say anything of a version.
    """

    def __init__(self, name: str, database: Database) -> None:
        self.name = name
        self.database = database
        self.is_down = False
        self.lie: Lie = ""
        self.is_refusing = False
        self.stale: dict[str, Model] = {}

    def models(self) -> Sequence[RegisteredModel]:
        self._answer()
        shown = self.stale if self.lie == "stale" else self.database.models
        listed = [_listed(name, model) for name, model in sorted(shown.items())]
        if self.lie == "empty":
            return []
        return listed[: len(listed) // 2] if self.lie == "partial" else listed

    def model(self, name: str) -> RegisteredModel:
        self._answer()
        if name not in self.database.models:
            raise NotFoundError(f"no model {name}")
        return _listed(name, self.database.models[name])

    def version(self, model: str, version: str) -> RegisteredVersion:
        found = self._registration(model, version)
        return RegisteredVersion(found.identity, found.tags, "READY")

    def artifact_uri(self, model: str, version: str) -> str:
        return f"{self._registration(model, version).serial}"

    def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        raise UnavailableError("nothing is written here")

    def _registration(self, model: str, version: str) -> Registration:
        self._answer()
        if self.is_refusing:
            raise InvalidInputError("a permission is missing")
        shown = self.stale if self.lie == "stale" else self.database.models
        found = shown.get(model, Model()).versions.get(version)
        if found is None:
            raise NotFoundError(f"version {version} of model {model} is not registered")
        return found

    def _answer(self) -> None:
        if self.is_down:
            raise UnavailableError(f"the registry {self.name} does not answer")


def _listed(name: str, model: Model) -> RegisteredModel:
    newest = max(model.versions, key=int, default="")
    versions = {newest: model.versions[newest]} if newest else {}
    return RegisteredModel(
        name,
        dict(model.aliases),
        {number: RegisteredVersion(found.identity, found.tags, "READY") for number, found in versions.items()},
        marker=str(sorted((number, found.serial) for number, found in model.versions.items())),
        newest=newest,
        tags=dict(model.tags),
    )


class WrittenRegistry(FakeRegistry):
    """One that takes what is written. It makes changes at once and all of them, as in sqlite, or one after the other.

    Args:
        is_atomic: which of them.
        made: called after each change.
    """

    def __init__(self, name: str, database: Database, *, is_atomic: bool, made: Callable[[Change], None]) -> None:
        super().__init__(name, database)
        self.is_atomic = is_atomic
        self._made = made

    def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        version = None
        if expected.version:
            found = self._registration(model, expected.version)
            version = RegisteredVersion(found.identity, found.tags, "READY")
        check_expected(expected, self.model(model), version)
        if self.is_atomic:
            for change in changes:
                self.make(model, change)

    def make(self, model: str, change: Change) -> None:
        """Makes a change, unless nothing answers."""
        self._answer()
        match change:
            case SetAlias(alias, version):
                self.database.alias(model, alias, version)
            case DeleteAlias(alias):
                self.database.alias(model, alias, None)
            case SetTag(version, key, value):
                self.database.tag(model, version, key, value)
            case DeleteTag(version, key):
                self.database.tag(model, version, key, None)
        self._made(change)


class Store:
    """Where the files of versions are.

    Attributes:
        is_down: it does not answer.
        is_cut: it goes away in the middle of each version's files.
        is_disk_full: the server's own disk is full, where the files come to.
    """

    def __init__(self) -> None:
        self.kinds: dict[int, Kind] = {}
        self.is_down = False
        self.is_cut = False
        self.is_disk_full = False

    def download(self, serial: int, kind: Kind, folder: Path) -> None:
        if self.is_down:
            raise UnavailableError("the artifact store does not answer")
        if kind == "no files":
            raise NotFoundError("there are no files in the store")
        (folder / "MLmodel").write_text("flavors: {onnx: {data: model.onnx}}\n")
        if self.is_cut:
            (folder / "model.onnx").write_text("{")
            raise UnavailableError("the artifact store went away in the middle")
        if self.is_disk_full:
            raise OSError(28, "No space left on device")
        (folder / "model.onnx").write_text(json.dumps({"serial": serial, "kind": kind}))


class SimulatedSource(MlflowSource):
    """The real source over the registry and store of the simulation."""

    def __init__(self, registry: FakeRegistry, store: Store, cache_dir: Path) -> None:
        super().__init__(f"http://{registry.name}", cache_dir=cache_dir, registry=registry)
        self._store = store
        self._fake = registry

    def _fetch_files(self, uri: str, model: str, folder: Path) -> None:
        kinds = {
            found.serial: found.kind
            for states in (self._fake.database.models, self._fake.stale)
            for found in states.get(model, Model()).versions.values()
        }
        self._store.download(int(uri), kinds[int(uri)], folder)


@dataclass(frozen=True)
class Content:
    """What a version's files say of themselves."""

    serial: int
    kind: Kind

    @property
    def identity(self) -> str:
        return f"files-{self.serial}"

    @property
    def size_bytes(self) -> int:
        """What it takes in a worker's memory."""
        return (20 + self.serial % 3 * 20) << 20


def content_of(folder: Path) -> Content:
    """What is in a version's folder now; `OSError` or `ValueError` when nothing whole is."""
    return Content(**json.loads((folder / "model.onnx").read_text()))


def drawn_kind(random: Random) -> Kind:
    (kind,) = random.choices([*KINDS], [*KINDS.values()])
    return kind
