"""What the joiner knows at the end of a step, in one file that is replaced whole: so each record counts exactly once.

How far each ring was taken, what the store holds and what was counted change together. A joiner that is killed in the middle of
a step begins it again; what it had written into the store's rows is taken back first (`intent`).
"""

import os
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from penstock_server.errors import InvalidInputError
from penstock_server.labels.store import Place, SegmentState
from penstock_server.labels.subjects import Subject
from penstock_server.labels.totals import CountedLabels

log = structlog.get_logger(__name__)

STATE: Final = "state"
INTENT: Final = "intent"
FORMAT: Final = 1


class LabelState(msgspec.Struct):
    """What is known after a step.

    Attributes:
        step: its number.
        cursors: how many records of each ring were taken, by the file's name.
        segments: of the store, oldest first.
        waiting: the numbers of the oldest label that may wait, and of the next.
        subjects: what rows are about, by number.
        counted: all that is counted.
        mature: up to where rows were old enough, by the age at which they are.
        early: answers that were deleted before they were old enough.
    """

    format: int = FORMAT
    step: int = 0
    cursors: dict[str, int] = {}
    segments: list[SegmentState] = []
    waiting: tuple[int, int] = (0, 0)
    subjects: list[Subject] = []
    counted: CountedLabels = msgspec.field(default_factory=CountedLabels)
    mature: dict[str, Place] = {}
    early: int = 0


class Intent(msgspec.Struct, frozen=True):
    """In which segments a step is about to write labels."""

    step: int = 0
    segments: tuple[int, ...] = ()


_Kept = TypeVar("_Kept", bound=msgspec.Struct)
_state: Final = msgspec.msgpack.Decoder(LabelState)
_intent: Final = msgspec.msgpack.Decoder(Intent)


def load(folder: Path) -> tuple[LabelState, Intent]:
    """The last state, a new one where there is none, and the last intent.

    A state that cannot be read is put aside, since without it nothing can be told of the files.
    """
    return _read(folder / STATE, _state, LabelState()), _read(folder / INTENT, _intent, Intent())


def peek(folder: Path) -> LabelState:
    """The last state, for a process that only reads beside the joiner.

    Raises:
        InvalidInputError: there is none, or it cannot be read.
    """
    try:
        return _state.decode((folder / STATE).read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidInputError(f"{folder} holds no labels that a server keeps: {error}") from error


def save(folder: Path, state: LabelState) -> None:
    """Replaces the last state; raises `OSError`, and then the last one stays."""
    _replace(folder / STATE, msgspec.msgpack.encode(state))


def intend(folder: Path, intent: Intent) -> None:
    """Says in which segments labels will be written, before they are."""
    _replace(folder / INTENT, msgspec.msgpack.encode(intent))


def _read(path: Path, decoder: msgspec.msgpack.Decoder[_Kept], default: _Kept) -> _Kept:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return default
    try:
        found = decoder.decode(content)
    except msgspec.MsgspecError as error:
        log.error("the state of labels cannot be read; beginning anew", file=str(path), reason=str(error))
        path.rename(path.with_suffix(".damaged"))
        return default
    return found


def _replace(path: Path, content: bytes) -> None:
    # Not synchronized with the disk: it is to outlive processes, several times a second.
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)
