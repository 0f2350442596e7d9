"""What is remembered of retraining over restarts: for each model, how far its champion is, and the calls for retraining.

A call is written down before anything is sent, with an id of its own, so that neither a crash nor a restart makes two of it.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from penstock_server import atomic

log = structlog.get_logger(__name__)

Outcome = Literal["sending", "sent", "running", "done", "failed", "unknown"]
"""Of a call: it is about to be sent; the other side took it, which does the rest; its command runs; that ended well, or another
version came; something did not work; a former process began it, and this one cannot know more."""

MOST_CALLS: Final = 50
"""Calls of a model that are remembered, the latest."""


class RetrainingCall(msgspec.Struct, frozen=True):
    """A call for retraining.

    Attributes:
        id: its own, which receivers may tell repetitions by.
        version: the champion that it is about, and the identity of its files.
        known: the versions that were there then.
        reason: in one sentence.
        at_s: when the rule called, in seconds since 1970.
        outcome: how far it is.
        detail: what the other side said, or what went wrong.
        attempts: how often it was tried.
        next_s: when it is tried next; while it is "sending".
        ended_s: when it was done or failed.
    """

    id: str
    rule: str
    action: str
    version: str
    identity: str
    known: tuple[str, ...]
    reason: str
    at_s: float
    outcome: Outcome = "sending"
    detail: str = ""
    attempts: int = 0
    next_s: float = 0.0
    ended_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is neither done nor failed."""
        return self.ended_s is None


class ModelState(msgspec.Struct, frozen=True):
    """What is remembered of a model.

    Attributes:
        version, identity: its champion.
        first_s: when it was seen first as the champion, in seconds since 1970.
        rows, labels: counted of it in all, over restarts.
        last_rows, last_labels: what was counted at the last look.
        calls: for retraining, the latest last.
    """

    version: str = ""
    identity: str = ""
    first_s: float = 0.0
    rows: int = 0
    labels: int = 0
    last_rows: int = 0
    last_labels: int = 0
    calls: tuple[RetrainingCall, ...] = ()

    def replaced(self, call: RetrainingCall) -> "ModelState":
        """The state with a call as it is now, which is the latest if it is new."""
        others = [each for each in self.calls if each.id != call.id]
        is_new = len(others) == len(self.calls)
        calls = (*others, call) if is_new else tuple(call if each.id == call.id else each for each in self.calls)
        return msgspec.structs.replace(self, calls=tuple(calls[-MOST_CALLS:]))


class RetrainingState(msgspec.Struct, frozen=True):
    """All models by name."""

    models: dict[str, ModelState] = {}
    format: int = 1


_states: Final = msgspec.json.Decoder(RetrainingState)


def read(file: Path | None) -> RetrainingState:
    """What a former process left; nothing where there is none. A file that cannot be read is put aside, and says so."""
    if file is None:
        return RetrainingState()
    try:
        return _states.decode(file.read_bytes())
    except FileNotFoundError:
        return RetrainingState()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("what is known of retraining cannot be read; it begins anew", file=str(file), reason=str(error))
        return RetrainingState()


def write(file: Path | None, state: RetrainingState) -> None:
    """Writes it whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    if file is not None:
        atomic.write(file, msgspec.json.encode(state))
