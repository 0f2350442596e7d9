"""What people may have a rollout do, and what is written to its registry for that: a tag that whoever acts on it obeys.

Pure. The RPC and `penstock rollout` write the same.
"""

from typing import Final

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.progress import CANDIDATE, COMMAND_TAG, PROGRESS_TAG, SPEC_TAG, read_progress
from penstock_server.rollout.registered import Change, DeleteAlias, DeleteTag, RegisteredRollout, SetTag
from penstock_server.rollout.step import COMMANDS

LONGEST_NAME: Final = 100
"""Of who asks, in characters."""


def commanded(model: str, found: RegisteredRollout, word: str, by: str = "") -> tuple[Change, ...]:
    """What is to be written so that a model's rollout does something.

    Args:
        model: its name.
        found: what the registry says.
        word: one of `rollout.step.COMMANDS`.
        by: who asks, "" where nobody knows.

    Raises:
        InvalidInputError: there is no such command, or the rollout is over or has not begun.
    """
    if word not in COMMANDS:
        raise InvalidInputError(f"there is no command {word[:40]!r}; expected {', '.join(COMMANDS)}")
    if PROGRESS_TAG not in found.tags:
        if word != "abort":
            raise InvalidInputError(f"the rollout of version {found.version} of {model} has not begun")
        is_named = found.aliases.get(CANDIDATE) == found.version
        return (DeleteTag(found.version, SPEC_TAG), *((DeleteAlias(CANDIDATE),) if is_named else ()))
    progress = read_progress(found.tags[PROGRESS_TAG])
    if progress.has_ended:
        raise InvalidInputError(f"the rollout of version {found.version} of {model} is over: {progress.status}")
    # "advance" says from where, so that it is obeyed once.
    at = str(progress.stage) if word == "advance" else ""
    return (SetTag(found.version, COMMAND_TAG, f"{word} {at} {_shown(by)}"),)


def _shown(name: str) -> str:
    """A name as one line that can be shown."""
    return " ".join("".join(each if each.isprintable() else " " for each in name).split())[:LONGEST_NAME]
