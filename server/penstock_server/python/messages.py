"""What a worker and the process of a pipeline say to each other: msgpack records in frames (`frames`).

Both ends are of the same release, so messages need no version.
"""

from typing import Final, Literal

import msgspec

from penstock_server.python.description import Description


class PipelineStart(msgspec.Struct, frozen=True, tag=True):
    """Load this pipeline: the first message. `content` is the file's, whose digest was checked."""

    description: Description
    content: bytes
    folder: str
    memory_mib: int


class PipelineRun(msgspec.Struct, frozen=True, tag=True):
    """Answer these rows; blocks are those of `frame.rows_of`."""

    blocks: list[bytes]
    rows: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The pipeline is loaded; `confined` says what the process may not do."""

    confined: tuple[str, ...]


class Array(msgspec.Struct, frozen=True, array_like=True):
    """An output in raw form."""

    shape: tuple[int, ...]
    raw: bytes


class Answered(msgspec.Struct, frozen=True, tag=True):
    """The outputs in their order."""

    arrays: list[Array]


class PipelineFailed(msgspec.Struct, frozen=True, tag=True):
    """The pipeline cannot be loaded, or raised.

    Attributes:
        kind: it refuses the rows, needs more memory than it may have, or has another fault.
        text: one line, for the caller of a request that is refused, and for the log.
        trace: the traceback, for the log.
    """

    kind: Literal["refused", "memory", "fault"]
    text: str
    trace: str = ""


Command = PipelineStart | PipelineRun
Event = Ready | Answered | PipelineFailed

_commands: Final[msgspec.msgpack.Decoder[Command]] = msgspec.msgpack.Decoder(Command)
_events: Final[msgspec.msgpack.Decoder[Event]] = msgspec.msgpack.Decoder(Event)


def encoded(message: Command | Event) -> bytes:
    """A message as the body of a frame."""
    return msgspec.msgpack.encode(message)


def command(body: bytes) -> Command:
    """The command in a frame's body; `msgspec.ValidationError` if there is none."""
    return _commands.decode(body)


def event(body: bytes | bytearray) -> Event:
    """The event in a frame's body; `msgspec.ValidationError` if there is none."""
    return _events.decode(body)
