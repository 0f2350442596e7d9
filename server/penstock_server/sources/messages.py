"""What the supervisor asks a source's process, and the answers: msgpack records in frames (`frames`).

They go over a socket, not a command line, which other users of the machine can read: a registry's address may hold a
password. Both ends are of the same release, so messages need no version.
"""

from typing import Final

import msgspec

from penstock_server.rollout.registered import Change, Expected
from penstock_server.sources.settings import PolicySettings
from penstock_server.sources.source import Desired


class Registry(msgspec.Struct, frozen=True, tag=True):
    """An MLflow registry, as `mlflow_source.MlflowSource` takes it."""

    uri: str
    models: tuple[str, ...] = ()
    workspace: str = ""


class Directory(msgspec.Struct, frozen=True, tag=True):
    """A folder, as `directory_source.DirectorySource` takes it."""

    folder: str


class Open(msgspec.Struct, frozen=True, tag=True):
    """The first message: the source that the process is for, and the cache folder and the bounds that it works with."""

    source: Registry | Directory
    cache_dir: str
    fetch_mib: float
    fetch_files: int
    cache_mib: float
    cache_keep: int
    policy: PolicySettings = PolicySettings()


class Poll(msgspec.Struct, frozen=True, tag=True):
    """State all that is desired: answered by `Polled` or `Failed`."""


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """Fetch a version's files: answered by `Fetched` or `Failed`."""

    model: str
    version: str
    identity: str


class Write(msgspec.Struct, frozen=True, tag=True):
    """Make changes in the registry: answered by `Written` or `Failed`."""

    model: str
    expected: Expected
    changes: tuple[Change, ...]


class Sweep(msgspec.Struct, frozen=True, tag=True):
    """Delete from the cache what nobody needs, and end; not answered."""


class Polled(msgspec.Struct, frozen=True, tag=True):
    desired: Desired


class Fetched(msgspec.Struct, frozen=True, tag=True):
    """The files are in this folder, on which the process keeps a lease until it gets its next message."""

    folder: str
    identity: str


class Written(msgspec.Struct, frozen=True, tag=True):
    """All of it was written."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The name of the error's class, and its sentence."""

    kind: str
    reason: str


Request = Open | Poll | Fetch | Write | Sweep
Answer = Polled | Fetched | Written | Failed

_requests: Final[msgspec.msgpack.Decoder[Request]] = msgspec.msgpack.Decoder(Request)
_answers: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """A message as a frame's body."""
    return msgspec.msgpack.encode(message)


def request(body: bytes) -> Request:
    """The request in a frame's body; `msgspec.ValidationError` if there is none."""
    return _requests.decode(body)


def answer(body: bytes) -> Answer:
    """The answer in a frame's body; `msgspec.DecodeError` if there is none."""
    return _answers.decode(body)
