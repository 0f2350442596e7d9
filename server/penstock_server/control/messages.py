"""The commands that the supervisor sends a worker, and the events that come back: msgpack records in frames (`frames`).

Both ends are of the same release, so messages need no version.
"""

from collections.abc import Mapping
from math import inf
from typing import Final

import msgspec

from penstock_server import frames
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import Batching
from penstock_server.capacity.estimate import BatchRuns
from penstock_server.compiled_models.choice import Choice
from penstock_server.log_setup import LogLevel
from penstock_server.rollout.plan import ModelRoutes


class Start(msgspec.Struct, frozen=True, tag=True):
    """Begin to work in this slot: the first command. Until it comes, the process only imports what it needs."""

    counters: str
    slot: int
    log_level: LogLevel = "info"


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load a version while others answer; it counts in the file `counters`, whose shape the numbers after it say.

    There it has `features` x `cells` words of drift, `joint` of tables of two columns, and cells for `steps`. When the version
    is loaded already, these are other files: they replace the loaded ones once they are loaded, and until then those answer.
    `batching` and `engine` are what the airlock found; None lets the loader find out. `identity` is that of the files.
    """

    model: str
    version: str
    folder: str
    counters: str
    features: int
    cells: int
    answers: int = 0
    joint: int = 0
    steps: int = 0
    batching: Batching | None = None
    engine: Choice | None = None
    identity: str = ""


class Serve(msgspec.Struct, frozen=True, tag=True):
    """Serve these models too, or otherwise than before, and no more those that are removed; the answer is a `Served`.

    It says what has changed since the last one, since a worker cannot miss one: they come over one stream, in their order, and
    a new process has a new stream. So a server of thousands of models sends, and its workers read, what one promotion changes.
    The answer has the same generation.
    """

    generation: int
    models: dict[str, ModelRoutes]
    is_settled: bool
    removed: tuple[str, ...] = ()

    def applied(self, routes: Mapping[str, ModelRoutes]) -> dict[str, ModelRoutes]:
        """All routes that are to be in force, of those that were before."""
        found = {**routes, **self.models}
        for model in self.removed:
            found.pop(model, None)
        return found


class Unload(msgspec.Struct, frozen=True, tag=True):
    """Drain and close a version."""

    model: str
    version: str


class Listen(msgspec.Struct, frozen=True, tag=True):
    """Accept calls at this address, from the port that workers share or from sockets of its own."""

    address: str


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Accept no more calls, finish those that run within the grace, and end."""

    grace_s: float


class SetLogLevel(msgspec.Struct, frozen=True, tag=True):
    """Log from this level on."""

    level: LogLevel


class ControlReply(msgspec.Struct, frozen=True, tag=True):
    """The reply to a `ControlRequest`, as it is on the wire."""

    number: int
    body: bytes


class ControlError(msgspec.Struct, frozen=True, tag=True):
    """A `ControlRequest` failed: the name of the error's class, and its sentence."""

    number: int
    kind: str
    reason: str


Command = Start | Load | Serve | Unload | Listen | Drain | SetLogLevel | ControlReply | ControlError


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """A version is loaded, warm, and gave the golden answers.

    Its batches run on the reactor's thread if `is_inline`, and take about `base_us + row_us * rows`. `engine` says what runs
    its graph, and why. The others are those of `capacity.estimate.BatchRuns`.
    """

    model: str
    version: str
    took_s: float
    is_inline: bool
    base_us: float
    row_us: float
    engine: str = ""
    max_rows: int = 1
    short_rows: int = 0
    objective_s: float = inf
    is_joined: bool = True
    queue_requests: int = 1 << 32
    queue_rows: int = 1 << 32

    @property
    def runs(self) -> BatchRuns:
        """How its batches run."""
        return BatchRuns(
            Cost(self.base_us / 1e6, self.row_us / 1e6),
            is_inline=self.is_inline,
            max_rows=self.max_rows,
            short_rows=self.short_rows,
            objective_s=self.objective_s,
            is_joined=self.is_joined,
            queue_requests=self.queue_requests,
            queue_rows=self.queue_rows,
        )


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    """A version cannot be served."""

    model: str
    version: str
    reason: str


class EnsembleBound(msgspec.Struct, frozen=True, tag=True):
    """An ensemble answers if the reason is "", or cannot, since a model is missing or does not fit."""

    model: str
    version: str
    reason: str


class ProcessEnded(msgspec.Struct, frozen=True, tag=True):
    """The process that runs a version for the worker ended; the worker goes on, and starts another."""

    model: str
    version: str
    how: str


class Wanted(msgspec.Struct, frozen=True, tag=True):
    """Calls wait for a model that the worker has not in memory."""

    model: str


class Served(msgspec.Struct, frozen=True, tag=True):
    """The `Serve` of this generation is in force."""

    generation: int


class Unloaded(msgspec.Struct, frozen=True, tag=True):
    model: str
    version: str


class Listening(msgspec.Struct, frozen=True, tag=True):
    """A worker accepts calls.

    Attributes:
        transport: over which transport, and what that is made of, for people.
    """

    transport: str


class ListenFailed(msgspec.Struct, frozen=True, tag=True):
    """The address cannot be bound."""

    reason: str


class ControlRequest(msgspec.Struct, frozen=True, tag=True):
    """A call that only the supervisor can answer: a method of the control plane and its message."""

    number: int
    method: str
    body: bytes


Event = (
    Loaded
    | LoadFailed
    | EnsembleBound
    | ProcessEnded
    | Wanted
    | Served
    | Unloaded
    | Listening
    | ListenFailed
    | ControlRequest
)

_commands: Final[msgspec.msgpack.Decoder[Command]] = msgspec.msgpack.Decoder(Command)
_events: Final[msgspec.msgpack.Decoder[Event]] = msgspec.msgpack.Decoder(Event)


def framed(message: Command | Event) -> bytes:
    """A message as one frame."""
    return frames.framed(msgspec.msgpack.encode(message))


def command(body: bytes) -> Command:
    """The command in a frame's body; `msgspec.ValidationError` if there is none."""
    return _commands.decode(body)


def event(body: bytes) -> Event:
    """The event in a frame's body; `msgspec.ValidationError` if there is none."""
    return _events.decode(body)
