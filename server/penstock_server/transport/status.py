"""Maps each error to its gRPC status; no other module knows the codes."""

from dataclasses import dataclass
from typing import Final

import grpc

from penstock_server import errors
from penstock_server.call import Metadata
from penstock_server.errors import PenstockError

_CODES: Final[dict[type[PenstockError], grpc.StatusCode]] = {
    errors.InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.NotReadyError: grpc.StatusCode.UNAVAILABLE,
    # Not UNAVAILABLE, which clients retry on their own: they would triple the load when it is already too high.
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlinePassedError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ModelFailedError: grpc.StatusCode.INTERNAL,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
}
_DO_NOT_RETRY: Final[Metadata] = (("grpc-retry-pushback-ms", "-1"),)


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends: a gRPC code, its details in one sentence, and trailing metadata."""

    code: grpc.StatusCode
    details: str
    trailers: Metadata = ()

    @property
    def number(self) -> int:
        """The code as it is on the wire."""
        value: int = self.code.value[0]
        return value


OK: Final = Status(grpc.StatusCode.OK, "")


def status_of(error: PenstockError) -> Status:
    """The status that a caller sees for this error."""
    code = _CODES.get(type(error), grpc.StatusCode.INTERNAL)
    details = str(error) if type(error) in _CODES else "internal error"
    trailers = _DO_NOT_RETRY if isinstance(error, errors.OverloadedError) else ()
    return Status(code, details, trailers)
