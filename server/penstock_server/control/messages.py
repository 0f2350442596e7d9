"""What the supervisor tells a worker, and what a worker tells back: frozen records, framed as length and msgpack."""

import struct
from typing import Final

import msgspec

from penstock.names import VersionState
from penstock_server.batching.limits import BatchLimits
from penstock_server.rollout.plan import TrafficPlan

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
HEAD: Final = struct.Struct("<I")


class RequestLogging(msgspec.Struct, frozen=True):
    """Where a worker writes the requests that it samples, and how many.

    `spool_bytes` is what that folder may hold, of all workers; a file is closed at `rotate_bytes` or after `rotate_s`.
    """

    spool: str
    sample_ratio: float
    spool_bytes: int
    rotate_bytes: int
    rotate_s: float


class WorkerSettings(msgspec.Struct, frozen=True):
    """What a worker is told at birth."""

    transport: str
    limits: BatchLimits
    onnx_threads: int
    onnx_threads_of: dict[str, int]
    inline_budget_s: float
    drift_window_rows: int
    max_message_bytes: int
    keepalive_s: float
    connection_age_s: float | None = None
    max_streams: int | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    request_log: RequestLogging | None = None


class Status(msgspec.Struct, frozen=True):
    """How a version stands."""

    state: VersionState
    reason: str = ""


class ModelRoutes(msgspec.Struct, frozen=True):
    """One model's plan and the standing of its versions."""

    plan: TrafficPlan | None
    statuses: dict[str, Status]


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load a version aside, counting on the board at this path, which watches features x cells for drift."""

    model: str
    version: str
    folder: str
    board: str
    features: int
    cells: int


class Serve(msgspec.Struct, frozen=True, tag=True):
    """Serve these models, whole."""

    generation: int
    models: dict[str, ModelRoutes]
    is_settled: bool


class Unload(msgspec.Struct, frozen=True, tag=True):
    """Drain and close a version."""

    model: str
    version: str


class Listen(msgspec.Struct, frozen=True, tag=True):
    """Accept calls at this address."""

    address: str


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Finish what runs and end."""

    grace_s: float


class ControlReply(msgspec.Struct, frozen=True, tag=True):
    """The reply to a `ControlRequest`, as it is on the wire."""

    number: int
    body: bytes


class ControlError(msgspec.Struct, frozen=True, tag=True):
    """There is no reply to a `ControlRequest`: the class of the error by its name, and its sentence."""

    number: int
    kind: str
    reason: str


Command = Load | Serve | Unload | Listen | Drain | ControlReply | ControlError


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """A version is warm and proven; `is_inline` tells where its batches run."""

    model: str
    version: str
    took_s: float
    is_inline: bool
    base_us: float
    row_us: float


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    """A version cannot be served."""

    model: str
    version: str
    reason: str


class Served(msgspec.Struct, frozen=True, tag=True):
    """A `Serve` is in force."""

    generation: int


class Unloaded(msgspec.Struct, frozen=True, tag=True):
    """A version is closed."""

    model: str
    version: str


class Listening(msgspec.Struct, frozen=True, tag=True):
    """Calls are accepted."""

    transport: str


class ListenFailed(msgspec.Struct, frozen=True, tag=True):
    """The address cannot be bound."""

    reason: str


class ControlRequest(msgspec.Struct, frozen=True, tag=True):
    """A caller asks what the supervisor alone knows: a method of the control plane and its message."""

    number: int
    method: str
    body: bytes


Event = Loaded | LoadFailed | Served | Unloaded | Listening | ListenFailed | ControlRequest

_commands: Final[msgspec.msgpack.Decoder[Command]] = msgspec.msgpack.Decoder(Command)
_events: Final[msgspec.msgpack.Decoder[Event]] = msgspec.msgpack.Decoder(Event)


def framed(message: Command | Event) -> bytes:
    """A message as it travels."""
    body = msgspec.msgpack.encode(message)
    return HEAD.pack(len(body)) + body


def command(body: bytes) -> Command:
    """The command in a frame's body."""
    return _commands.decode(body)


def event(body: bytes) -> Event:
    """The event in a frame's body."""
    return _events.decode(body)
