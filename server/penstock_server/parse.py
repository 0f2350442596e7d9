"""Parses the bytes of a call into its method's message, or refuses them in one sentence.

The services use it and the predictor below them too, so it belongs to the ground.
"""

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from penstock_server.errors import InvalidInputError

OPEN_INFERENCE: Final = "the Open Inference Protocol"

SMALL_BYTES: Final = 64 * 1024
"""The largest message of a method that takes names alone: parsing a longer one would hold up everybody's calls."""

MessageT = TypeVar("MessageT", bound=Message)


def parse(kind: type[MessageT], message: bytes, protocol: str) -> MessageT:
    """The message of this kind; `InvalidInputError` when the bytes hold none."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise InvalidInputError(f"the message is not a {kind.__name__} of {protocol}") from None


def parse_small(kind: type[MessageT], message: bytes, protocol: str) -> MessageT:
    """`parse` for methods that take names alone; a message above `SMALL_BYTES` is refused before it is parsed."""
    if len(message) > SMALL_BYTES:
        raise InvalidInputError(f"the message takes {len(message)} bytes, expected at most {SMALL_BYTES}")
    return parse(kind, message, protocol)
