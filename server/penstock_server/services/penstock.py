"""The methods of `penstock.v1.Penstock`: checked here, and forwarded to the supervisor, which sees all workers.

A worker has only its own counts. It parses each message to refuse a bad one early, and forwards the bytes unchanged.
"""

from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message

from penstock import penstock_pb2 as pb
from penstock.names import CONTROL_SERVICE
from penstock_server.call import Call
from penstock_server.parse import parse_small
from penstock_server.transport.interface import Methods, UnaryHandler

_REQUESTS: Final[dict[str, type[Message]]] = {"DriftState": pb.DriftStateRequest}

Forward = Callable[[str, bytes, Call], None]
"""Takes a method's name, its message and the call, which it answers later."""


def penstock_methods(forward: Forward) -> Methods:
    return Methods(
        {f"/{CONTROL_SERVICE}/{name}": _checked(name, kind, forward) for name, kind in _REQUESTS.items()}, {}
    )


def _checked(name: str, kind: type[Message], forward: Forward) -> UnaryHandler:
    def handle(message: bytes, call: Call) -> None:
        parse_small(kind, message, CONTROL_SERVICE)
        forward(name, message, call)

    return handle
