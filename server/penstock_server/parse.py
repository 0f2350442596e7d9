"""Parses the bytes of a call into its method's message, or refuses them in one sentence.

The services use it and the predictor below them too, so it belongs to the ground.
"""

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from penstock_server.errors import InvalidInputError

OPEN_INFERENCE: Final = "the Open Inference Protocol"

MessageT = TypeVar("MessageT", bound=Message)


def parse(kind: type[MessageT], message: bytes, protocol: str) -> MessageT:
    """The message of this kind; `InvalidInputError` when the bytes hold none."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise InvalidInputError(f"the message is not a {kind.__name__} of {protocol}") from None
