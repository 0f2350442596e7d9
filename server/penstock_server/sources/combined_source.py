"""Joins several sources into one; while a source does not answer, its last known state holds.

When two sources desire the same model, the first is followed. The watcher polls this one source; /v1/models shows
`states`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from penstock_server import atomic, paths
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.models import strict_json
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.source import Desired, Source

_MAX_BYTES = 64 * 2**20


class _Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    desired: Desired
    format: int = strict_json.FORMAT


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
        path = self._path(source)
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise InvalidInputError(f"the last known state in {path} is too large to be one; it is ignored")
            remembered = strict_json.decode(path.read_bytes(), _Remembered)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInputError(f"the last known state in {path} cannot be read: {error.strerror}") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"the last known state in {path} is damaged and ignored: {error}") from error
        return remembered.desired

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
    """Whether one source answers, for /v1/models and the log; `reason` is empty when nothing is wrong."""

    name: str
    state: SourceCondition
    reason: str = ""


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
    for index, (name, desired) in enumerate(states):
        for model, problem in desired.problems.items():
            problems.setdefault(model, []).append(problem)
        for model, plan in desired.models.items():
            # A plan without versions, as for a model without a champion, gives way to one with versions.
            if model not in models or not models[model].versions:
                models[model], owners[model] = plan, index
            elif plan.versions:
                winner = states[owners[model]][0]
                problems.setdefault(model, []).append(f"{winner} and {name} both name it; the first is followed")
    joined = {model: "; ".join(sentences) for model, sentences in problems.items()}
    return Desired(models=models, problems=joined), owners


class CombinedSource:
    """One source made of one or more. `poll` and `recall` take one caller at a time; `fetch` and `states` any number.

    Args:
        sources: at least one; where two desire the same model, the earlier is followed.
        last_known: keeps what each source desired for the next start; None forgets it.

    Attributes:
        name: the sources' names, joined.

    Raises:
        InvalidInputError: there is no source.
    """

    def __init__(self, sources: Sequence[Source], *, last_known: LastKnownState | None = None) -> None:
        if not sources:
            raise InvalidInputError("there is nowhere to get models from; name a registry or a model repository")
        self.name = " + ".join(source.name for source in sources)
        self._members = tuple(_Member(source, last_known) for source in sources)
        self._owners: Mapping[str, int] = {}

    @property
    def states(self) -> tuple[SourceState, ...]:
        """The state of each source at its last poll."""
        return tuple(member.state for member in self._members)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The sources of which nothing is known: they have not answered yet, and no last known state is there."""
        return tuple(member.source.name for member in self._members if member.known is None)

    def recall(self) -> Desired:
        """What was desired last, from the files of the last known state; polls no source, so it is quick."""
        for member in self._members:
            member.recall()
        return self._combined()

    def poll(self) -> Desired:
        """All that is desired now; for sources that do not answer, their last known state.

        Raises:
            UnavailableError: no source answers, and none has a last known state.
        """
        for member in self._members:
            member.poll()
        if all(member.known is None for member in self._members):
            raise UnavailableError("; ".join(member.state.reason for member in self._members))
        return self._combined()

    def fetch(self, model: str, version: str) -> Path:
        """The version's files, from the source that the model comes from; see `Source.fetch`."""
        owner = self._owners.get(model)
        if owner is None:
            raise NotFoundError(f"model {model!r} is not desired by {self.name}")
        return self._members[owner].source.fetch(model, version)

    def _combined(self) -> Desired:
        states = [(member.source.name, member.known or Desired()) for member in self._members]
        desired, self._owners = combine(states)
        return desired


class _Member:
    """A source, what is known of its desired state, and whether it answers."""

    def __init__(self, source: Source, last_known: LastKnownState | None) -> None:
        self.source = source
        self.known: Desired | None = None
        self.state = SourceState(source.name, "starting")
        self._last_known = last_known

    def recall(self) -> None:
        if self._last_known is None or self.known is not None:
            return
        try:
            self.known = self._last_known.recall(self.source.name)
        except InvalidInputError as error:
            self.state = SourceState(self.source.name, "starting", str(error))

    def poll(self) -> None:
        try:
            found = self.source.poll()
        except UnavailableError as error:
            self.state = SourceState(self.source.name, "away", str(error))
            return
        found = found.keeping(self.known or Desired())
        changed, self.known = found != self.known, found
        reason = self._remember(found) if changed else self.state.reason
        self.state = SourceState(self.source.name, "answers", reason)

    def _remember(self, desired: Desired) -> str:
        try:
            if self._last_known is not None:
                self._last_known.remember(self.source.name, desired)
        except UnavailableError as error:
            return str(error)
        return ""
