"""Methods that only the supervisor can answer, since a worker has only its own counts, files and plans.

A worker parses each message to refuse a bad one early, and forwards the bytes unchanged.
"""

from collections.abc import Callable, Mapping

from google.protobuf.message import Message

from penstock_server.call import Call
from penstock_server.parse import parse_small
from penstock_server.transport.interface import UnaryHandler

Forward = Callable[[str, bytes, Call], None]
"""Takes a method's name, its message and the call, which it answers later."""


def forwarded(
    service: str, requests: Mapping[str, type[Message]], forward: Forward, *, protocol: str
) -> dict[str, UnaryHandler]:
    """The handlers of a service's methods by their paths.

    Args:
        service: its full name.
        requests: the message that each method takes, by its name.
        forward: sends a message on.
        protocol: what errors call the messages' contract.
    """
    return {f"/{service}/{name}": _checked(name, kind, forward, protocol) for name, kind in requests.items()}


def _checked(name: str, kind: type[Message], forward: Forward, protocol: str) -> UnaryHandler:
    def handle(message: bytes, call: Call) -> None:
        parse_small(kind, message, protocol)
        forward(name, message, call)

    return handle
