"""Joins several sources into one; while a source does not answer, its last known state holds.

When two sources desire the same model, the first is followed. The watcher polls each member for itself, so that one that
hangs holds up no other; /v1/models shows `states`. It runs in the supervisor, and the sources in processes of their own.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec

from penstock_server import atomic, paths
from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.models import strict_json
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.rollout.registered import Change, Expected
from penstock_server.sources import former_state
from penstock_server.sources.source import Desired, Source, VersionFiles

_MAX_BYTES = 64 * 2**20
CONFIRM_S: Final = 3600.0
"""So often the time of the file of a state that does not change is renewed: it is still that of a server that runs."""


class _Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    desired: Desired
    format: int = strict_json.FORMAT


_remembered: Final = msgspec.json.Decoder(_Remembered)


def _desired(raw: bytes) -> Desired:
    """What a file holds, of this release or of an earlier one."""
    try:
        return strict_json.decode(raw, _remembered).desired
    except InvalidInputError:
        with contextlib.suppress(InvalidInputError):
            return former_state.read(raw)
        raise


class LastKnownState:
    """What each source desired last, in one file per source.

    Args:
        cache_dir: where the files are; None is Penstock's cache folder.
    """

    def __init__(self, cache_dir: Path | None = None) -> None:
        self._folder = (cache_dir or paths.cache_dir()) / "desired"

    def recall(self, source: str) -> Desired | None:
        """What the source of this name desired last; None if nothing is known.

        Raises:
            InvalidInputError: the file is damaged; what it held is lost.
        """
        return self._read(self._path(source))

    def all(self, *, newer_than_s: float) -> Iterator[Desired]:
        """What every source of every server with this cache desired last, unless its file is older or damaged."""
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(InvalidInputError, OSError):
                if path.stat().st_mtime > newer_than_s and (found := self._read(path)) is not None:
                    yield found

    def confirm(self, source: str) -> None:
        """Renews the time of the source's file."""
        with contextlib.suppress(OSError):
            path = self._path(source)
            # The wall clock, because file times are on it.
            if time.time() - path.stat().st_mtime > CONFIRM_S:
                os.utime(path)

    def _read(self, path: Path) -> Desired | None:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise InvalidInputError(f"the last known state in {path} is too large to be one; it is ignored")
            return _desired(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInputError(f"the last known state in {path} cannot be read: {error.strerror}") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"the last known state in {path} is damaged and ignored: {error}") from error

    def remember(self, source: str, desired: Desired) -> None:
        """Replaces what is known of the source, in one step.

        Raises:
            UnavailableError: the file cannot be written; what was known before stays.
        """
        path = self._path(source)
        try:
            atomic.write(path, msgspec.json.encode(_Remembered(source=source, desired=desired)))
        except OSError as error:
            reason = error.strerror or error
            raise UnavailableError(f"the last known state cannot be written to {path}: {reason}") from error

    def _path(self, source: str) -> Path:
        return self._folder / f"{paths.file_name_for(source)}.json"


SourceCondition = Literal["starting", "answers", "away"]


@dataclass(frozen=True, slots=True)
class SourceState:
    """Whether one source answers, for /v1/models, metrics and the log.

    Attributes:
        reason: what is wrong; "" where nothing is.
        answered_s: when it answered last, in seconds since 1970; None if it has not, in this run. States that differ in it
            alone are equal.
    """

    name: str
    state: SourceCondition
    reason: str = ""
    answered_s: float | None = field(default=None, compare=False)


def combine(states: Sequence[tuple[str, Desired]]) -> tuple[Desired, Mapping[str, int]]:
    """What several sources desire as one, and which source each model comes from.

    Args:
        states: the name of each source and what it desires; an earlier source wins over a later one.

    Returns:
        The joined state, in which a model that two sources desire is a problem, and the index of each model's source.
    """
    models: dict[str, TrafficPlan] = {}
    owners: dict[str, int] = {}
    problems: dict[str, list[str]] = {}
    identities: dict[str, Mapping[str, str]] = {}
    for index, (name, desired) in enumerate(states):
        for model, problem in desired.problems.items():
            problems.setdefault(model, []).append(problem)
        for model, plan in desired.models.items():
            # A plan without versions, as for a model without a champion, gives way to one with versions.
            if model not in models or not models[model].versions:
                models[model], owners[model] = plan, index
                identities[model] = desired.identities.get(model, {})
            elif plan.versions:
                winner = states[owners[model]][0]
                problems.setdefault(model, []).append(f"{winner} and {name} both name it; the first is followed")
    joined = {model: "; ".join(sentences) for model, sentences in problems.items()}
    known = {model: own for model, own in identities.items() if own}
    followed = [(model, states[index][1]) for model, index in owners.items()]
    rollouts = {model: desired.rollouts[model] for model, desired in followed if model in desired.rollouts}
    tags = {model: desired.model_tags[model] for model, desired in followed if model in desired.model_tags}
    refused = {model: desired.refused[model] for model, desired in followed if model in desired.refused}
    return Desired(models, joined, known, rollouts, tags, refused), owners


class CombinedSource:
    """One source made of one or more. Everything runs on one event loop; each member takes one poll at a time.

    Args:
        sources: at least one; where two desire the same model, the earlier is followed.
        last_known: keeps what each source desired for the next start; None forgets it.

    Attributes:
        name: the sources' names, joined.
        members: each source with what is known of it.

    Raises:
        InvalidInputError: there is no source.
    """

    def __init__(self, sources: Sequence[Source], *, last_known: LastKnownState | None = None) -> None:
        if not sources:
            raise InvalidInputError("there is nowhere to get models from; name a registry or a model repository")
        self.name = " + ".join(source.name for source in sources)
        self.members = tuple(Member(source, last_known) for source in sources)
        self._owners: Mapping[str, int] = {}

    @property
    def states(self) -> tuple[SourceState, ...]:
        """The state of each source at its last poll."""
        return tuple(member.state for member in self.members)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The sources of which nothing is known: they have not answered yet, and no last known state is there."""
        return tuple(member.source.name for member in self.members if member.known is None)

    def recall(self) -> Desired:
        """What was desired last, from the files of the last known state; polls no source, so it is quick."""
        for member in self.members:
            member.recall()
        return self.combined()

    def combined(self) -> Desired:
        """All that is desired now; for sources that do not answer, their last known state."""
        states = [(member.source.name, member.known or Desired()) for member in self.members]
        desired, self._owners = combine(states)
        return desired

    def source_of(self, model: str) -> str:
        """The name of the source that a model comes from, "" if none desires it."""
        owner = self._owners.get(model)
        return "" if owner is None else self.members[owner].source.name

    async def fetch(self, model: str, version: str, identity: str) -> VersionFiles:
        """The version's files, from the source that the model comes from; see `Source.fetch`."""
        owner = self._owners.get(model)
        if owner is None:
            raise NotFoundError(f"model {model!r} is not desired by {self.name}")
        return await self.members[owner].source.fetch(model, version, identity)

    async def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        """Writes to the source that the model comes from; see `Source.write`."""
        owner = self._owners.get(model)
        if owner is None:
            raise NotFoundError(f"model {model!r} is not desired by {self.name}")
        await self.members[owner].source.write(model, expected, changes)

    async def close(self) -> None:
        """Ends what the sources run."""
        for member in self.members:
            await member.source.close()


class Member:
    """A source, what is known of its desired state, and whether it answers."""

    def __init__(self, source: Source, last_known: LastKnownState | None) -> None:
        self.source = source
        self.known: Desired | None = None
        self.state = SourceState(source.name, "starting")
        self._last_known = last_known
        self._answered_s: float | None = None
        self._doubted: frozenset[str] = frozenset()
        self._unwritten = ""

    def recall(self) -> None:
        """Takes in the last known state, if there is one."""
        if self._last_known is None or self.known is not None:
            return
        try:
            self.known = self._last_known.recall(self.source.name)
        except InvalidInputError as error:
            self.state = SourceState(self.source.name, "starting", str(error))

    async def poll(self) -> None:
        """Takes in what the source desires now; when it does not answer, only its state changes."""
        try:
            found = await self.source.poll()
        except PenstockError as error:
            self.state = self._state("away", str(error))
            return
        except Exception as error:
            self.state = self._state("away", f"polling it failed: {type(error).__name__}")
            raise
        self._answered_s = time.time()
        former = self.known or Desired()
        found, self._doubted = found.keeping(former).doubting(former, self._doubted)
        changed, self.known = found != self.known, found
        reason = self._remember(found, changed)
        self.state = self._state("answers", self._doubts() or reason)

    def _state(self, condition: SourceCondition, reason: str) -> SourceState:
        return SourceState(self.source.name, condition, reason, self._answered_s)

    def _doubts(self) -> str:
        if not self._doubted:
            return ""
        names = ", ".join(map(repr, sorted(self._doubted)[:5])) + (", ..." if len(self._doubted) > 5 else "")
        return f"no longer lists {names}; served until the next poll says so again"

    def _remember(self, desired: Desired, changed: bool) -> str:
        if self._last_known is None:
            return ""
        if not changed:
            self._last_known.confirm(self.source.name)
            return self._unwritten
        try:
            self._last_known.remember(self.source.name, desired)
            self._unwritten = ""
        except UnavailableError as error:
            self._unwritten = str(error)
        return self._unwritten
