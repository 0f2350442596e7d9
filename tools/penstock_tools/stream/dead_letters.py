"""What becomes of a message that has no answer: the same message in the topic of dead letters, with the reason in its headers.

Key, value and headers are as they came, so that a message can be sent again once what was wrong is put right.
"""

from typing import Final, Literal

from penstock_tools.stream.message import Headers, Message, Outgoing

Kind = Literal["unreadable", "unanswered"]
"""It holds no row of the version's columns; or the version refuses its row, or fails on it."""
KINDS: Final[tuple[Kind, ...]] = ("unreadable", "unanswered")
PREFIX: Final = "penstock."
MOST_CHARACTERS: Final = 1000
"""Of a reason: it may quote what came."""


def dead_letter(
    message: Message, kind: Kind, reason: str, *, topic: str, source: str, version: tuple[str, str]
) -> Outgoing:
    """The dead letter of a message.

    Args:
        message: as it came.
        kind: what is wrong, for programs.
        reason: what is wrong, for people.
        topic: of the dead letters.
        source: the topic that it came from.
        version: the model's name and the version that was to answer.
    """
    told = {
        "error.kind": kind,
        "error": reason[:MOST_CHARACTERS],
        "topic": source,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "timestamp_ms": "" if message.timestamp_ms is None else str(message.timestamp_ms),
        "model": version[0],
        "version": version[1],
    }
    kept = [(name, value) for name, value in message.headers or [] if not name.startswith(PREFIX)]
    headers: Headers = [*kept, *((PREFIX + name, text.encode()) for name, text in told.items() if text)]
    return Outgoing(topic, message.key, message.value, headers)
