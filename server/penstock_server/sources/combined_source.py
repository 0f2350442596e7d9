"""Several sources as one: their wishes joined, each going on from its last known state while it is away.

Decides who wins when two want the same model (the first), and what holds when one does not answer. The manager asks
this one source; the index shows `states`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from penstock_server import atomic, paths
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.models import strict_json
from penstock_server.sources.source import Desired, Source, WantedModel

_MAX_BYTES = 64 * 2**20


class _Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    desired: Desired
    format: int = strict_json.FORMAT


class LastKnownState:
    """The last known states, one file a source."""

    def __init__(self, cache_dir: Path | None = None) -> None:
        """Reads nothing yet.

        Args:
            cache_dir: Where they are kept; None is Penstock's cache folder.
        """
        self._folder = (cache_dir or paths.cache_dir()) / "desired"

    def recall(self, source: str) -> Desired | None:
        """What the source of this name wanted last; None if nothing is known.

        Raises:
            InvalidInputError: The file is damaged; what it held is lost.
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
            UnavailableError: It cannot be written; what was known before stays.
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
    """How one source is doing, for the index and the log; `reason` is empty when there is nothing to say."""

    name: str
    state: SourceCondition
    reason: str = ""


def combine(wishes: Sequence[tuple[str, Desired]]) -> tuple[Desired, Mapping[str, int]]:
    """The wishes of several sources as one, and which source each model is got from.

    Args:
        wishes: Name and wish of each source, the one that wins first.

    Returns:
        The joined wish, in which a model wanted twice is a problem as well, and the index of each model's source.
    """
    models: dict[str, WantedModel] = {}
    owners: dict[str, int] = {}
    problems: dict[str, list[str]] = {}
    for index, (name, desired) in enumerate(wishes):
        for model, problem in desired.problems.items():
            problems.setdefault(model, []).append(problem)
        for model, wanted in desired.models.items():
            # A wish for nothing, as a model without a champion is, gives way to one for something.
            if model not in models or not models[model].versions:
                models[model], owners[model] = wanted, index
            elif wanted.versions:
                winner = wishes[owners[model]][0]
                problems.setdefault(model, []).append(f"{winner} and {name} both want it; the first is followed")
    joined = {model: "; ".join(sentences) for model, sentences in problems.items()}
    return Desired(models=models, problems=joined), owners


class CombinedSource:
    """One source made of one or more. `poll` and `recall` have one caller at a time; `fetch` and `states` any number.

    Attributes:
        name: The sources' names, joined.
    """

    def __init__(self, sources: Sequence[Source], *, memory: LastKnownState | None = None) -> None:
        """Asks nobody yet.

        Args:
            sources: At least one; where two want the same model, the earlier is followed.
            memory: Where last known states outlive the process; None forgets them.

        Raises:
            InvalidInputError: There is no source.
        """
        if not sources:
            raise InvalidInputError("there is nowhere to get models from; name a registry or a model repository")
        self.name = " + ".join(source.name for source in sources)
        self._members = tuple(_Member(source, memory) for source in sources)
        self._owners: Mapping[str, int] = {}

    @property
    def states(self) -> tuple[SourceState, ...]:
        """How each source was doing when it was last asked."""
        return tuple(member.state for member in self._members)

    def recall(self) -> Desired:
        """What was wanted when the memory was last written; asks no source, so it is quick at a start."""
        for member in self._members:
            member.recall()
        return self._combined()

    def poll(self) -> Desired:
        """All that is wanted now, by sources that are away as well, as far as it is known.

        Raises:
            UnavailableError: No source answers, and nothing is known of any.
        """
        for member in self._members:
            member.ask()
        if all(member.known is None for member in self._members):
            raise UnavailableError("; ".join(member.state.reason for member in self._members))
        return self._combined()

    def fetch(self, model: str, version: str) -> Path:
        """The version's files from the source that the model is got from; see `Source.fetch`."""
        owner = self._owners.get(model)
        if owner is None:
            raise NotFoundError(f"model {model!r} is not wanted by {self.name}")
        return self._members[owner].source.fetch(model, version)

    def _combined(self) -> Desired:
        wishes = [(member.source.name, member.known or Desired()) for member in self._members]
        desired, self._owners = combine(wishes)
        return desired


class _Member:
    """A source, what is known of its wish, and how it is doing."""

    def __init__(self, source: Source, memory: LastKnownState | None) -> None:
        self.source = source
        self.known: Desired | None = None
        self.state = SourceState(source.name, "starting")
        self._memory = memory

    def recall(self) -> None:
        if self._memory is None or self.known is not None:
            return
        try:
            self.known = self._memory.recall(self.source.name)
        except InvalidInputError as error:
            self.state = SourceState(self.source.name, "starting", str(error))

    def ask(self) -> None:
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
            if self._memory is not None:
                self._memory.remember(self.source.name, desired)
        except UnavailableError as error:
            return str(error)
        return ""
