"""How far a rollout is: the record that the registry holds of it, and what the registry must say at each point.

The record is the tag `penstock.rollout.progress` of the version that is rolled out, so the registry alone says how to go on,
whoever is to go on. It is written before what follows from it: weights and aliases. Whoever reads it compares these with
`wanted`, and writes what is missing, so an end between two writes heals. A record that says that the version is rolled back
takes effect by itself: servers give such a version no traffic, whatever its aliases and weight say (`is_out`). Pure.
"""

import time
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from penstock.names import CANARY, CHAMPION, SHADOW
from penstock_server.errors import InvalidInputError
from penstock_server.rollout.spec import RolloutSpec, Stage

CANDIDATE: Final = "candidate"
"""The alias of the version that is rolled out, while it is."""
SPEC_TAG: Final = "penstock.rollout"
PROGRESS_TAG: Final = "penstock.rollout.progress"
EVIDENCE_TAG: Final = "penstock.rollout.evidence"
HISTORY_TAG: Final = "penstock.rollout.history"
COMMAND_TAG: Final = "penstock.rollout.command"
LEASE_TAG: Final = "penstock.rollout.controller"
"""A tag of the model: who acts on its rollouts."""
MAX_TAG_BYTES: Final = 4900
"""MLflow 2 takes 5,000."""

Status = Literal["running", "paused", "promoting", "promoted", "rolled_back", "aborted", "refused"]
ENDED: Final = frozenset({"promoted", "rolled_back", "aborted", "refused"})


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout's record.

    Attributes:
        spec: what it is to do, as it was when it began.
        champion: the version that it is compared with.
        status: what it does. "promoting" is written before the champion's alias, and "promoted" after it.
        stage: the place of the present stage among the specification's.
        is_applied: whether the registry has said what this stage needs; then an alias that is gone was taken by somebody.
        began_s, since_s: when the rollout and the stage began, in seconds since 1970.
        bounds: the number of the latency histogram's cell above which an answer counts as slow, by metric; fixed before the
            canary gets its first request.
        reason: why it is where it is, in a sentence.
    """

    spec: RolloutSpec
    champion: str
    status: Status
    stage: int = 0
    is_applied: bool = False
    began_s: float = 0.0
    since_s: float = 0.0
    bounds: Mapping[str, int] = msgspec.field(default_factory=dict)
    reason: str = ""
    format: int = 1

    @property
    def present(self) -> Stage:
        """The present stage."""
        return self.spec.stages[min(self.stage, len(self.spec.stages) - 1)]

    @property
    def is_last(self) -> bool:
        return self.stage >= len(self.spec.stages) - 1

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class HistoryEntry(msgspec.Struct, frozen=True, array_like=True):
    """One line of a rollout's history: when, in seconds since 1970, and what happened."""

    at_s: float
    text: str

    def __str__(self) -> str:
        return f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(self.at_s))} {self.text}"


_progress: Final = msgspec.json.Decoder(Progress)
_history: Final = msgspec.json.Decoder(list[HistoryEntry])


def read_progress(text: str) -> Progress:
    """The record in a tag.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        found = _progress.decode(text)
    except (msgspec.DecodeError, InvalidInputError, RecursionError, ValueError) as error:
        raise InvalidInputError(f"the tag '{PROGRESS_TAG}' is no record of a rollout: {str(error)[:200]}") from error
    if found.format != 1:
        raise InvalidInputError(f"the tag '{PROGRESS_TAG}' has format {found.format}; this release reads format 1")
    return found


def write_progress(progress: Progress) -> str:
    """The tag's text."""
    return msgspec.json.encode(progress).decode()


def read_history(text: str) -> list[HistoryEntry]:
    """The lines in a tag; none if it holds something else."""
    try:
        return _history.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return []


def write_history(lines: list[HistoryEntry]) -> str:
    """The tag's text: as many of the newest lines as it can hold."""
    for first in range(len(lines)):
        text = msgspec.json.encode(lines[first:]).decode()
        if len(text.encode()) <= MAX_TAG_BYTES:
            return text
    return "[]"


def is_out(tags: Mapping[str, str]) -> bool:
    """Whether these tags of a version say that its rollout ended without a promotion: then it gets no traffic.

    A weight that somebody gives it afterwards counts again once the record is gone; `penstock promote` removes it.
    """
    try:
        return PROGRESS_TAG in tags and read_progress(tags[PROGRESS_TAG]).status in {"rolled_back", "aborted"}
    except InvalidInputError:
        return False


class WantedChange(msgspec.Struct, frozen=True):
    """What the registry must say of a version: its aliases, those it must not have, and its weight and sample in percent."""

    aliases: frozenset[str]
    not_aliases: frozenset[str]
    weight: float | None = None
    sample: float | None = None


def wanted(progress: Progress) -> WantedChange:
    """What the registry must say at this point of a rollout."""
    if progress.status == "promoting":
        # It stays candidate until the record says that it was promoted: so whoever goes on finds it.
        return WantedChange(frozenset({CHAMPION, CANDIDATE}), frozenset({CANARY, SHADOW}))
    if progress.status == "promoted":
        # It has been champion. Whatever somebody makes of it afterwards is theirs.
        return WantedChange(frozenset(), frozenset({CANDIDATE}))
    if progress.has_ended:
        return WantedChange(frozenset(), frozenset({CANARY, SHADOW, CANDIDATE}))
    stage = progress.present
    if stage.is_shadow:
        return WantedChange(frozenset({CANDIDATE, SHADOW}), frozenset({CANARY}), sample=100 * progress.spec.sample)
    return WantedChange(frozenset({CANDIDATE, CANARY}), frozenset({SHADOW}), weight=100 * stage.weight)
