"""How a call over HTTP/2 ended, in gRPC's terms.

Source: gRPC over HTTP/2, "Responses" and "HTTP2 Transport Mapping"; "HTTP to gRPC Status Code Mapping".
"""

from typing import Any, Final
from urllib.parse import unquote

import grpc

from penstock_client.http2.hpack import Fields
from penstock_client.steps import Failure, failure_of

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_HTTP_CODES: Final = {
    "400": grpc.StatusCode.INTERNAL,
    "401": grpc.StatusCode.UNAUTHENTICATED,
    "403": grpc.StatusCode.PERMISSION_DENIED,
    "404": grpc.StatusCode.UNIMPLEMENTED,
    "429": grpc.StatusCode.UNAVAILABLE,
    "502": grpc.StatusCode.UNAVAILABLE,
    "503": grpc.StatusCode.UNAVAILABLE,
    "504": grpc.StatusCode.UNAVAILABLE,
}
_RESET_CODES: Final = {
    7: grpc.StatusCode.UNAVAILABLE,  # REFUSED_STREAM
    8: grpc.StatusCode.CANCELLED,
    11: grpc.StatusCode.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    12: grpc.StatusCode.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}
REFUSED_STREAM: Final = 7


class CallError(grpc.RpcError):
    """A call's end as gRPC's own exceptions tell it: the cause of the client's error."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Fields = ()) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code = code
        self._details = details
        self._trailers = trailers

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._code

    def details(self) -> str:
        """What the server, or this side, said of it."""
        return self._details

    def trailing_metadata(self) -> Any:
        """What came with the status."""
        return self._trailers


def failure(code: grpc.StatusCode, details: str, trailers: Fields = ()) -> Failure:
    """A failed attempt."""
    return failure_of(CallError(code, details, trailers))


def ended(fields: Fields) -> Failure | None:
    """What the header block that ended a response says; None for OK."""
    values = dict(fields)
    status = values.get("grpc-status")
    if status == "0":
        return None
    if status is None:
        return not_grpc(values.get(":status", "200"), "the server ended the call without a status")
    code = _CODES.get(int(status) if status.isascii() and status.isdigit() else -1, grpc.StatusCode.UNKNOWN)
    return failure(code, unquote(values.get("grpc-message", ""), errors="replace"), fields)


def not_grpc(http_status: str, details: str) -> Failure:
    """The failure that an answer means which is not gRPC's."""
    code = _HTTP_CODES.get(http_status, grpc.StatusCode.UNKNOWN)
    return failure(code, details if http_status == "200" else f"{details}, with HTTP status {http_status}")


def was_reset(error: int) -> Failure:
    """The failure that a stream's reset means."""
    return failure(
        _RESET_CODES.get(error, grpc.StatusCode.INTERNAL), f"the server reset the call (HTTP/2 error {error})"
    )
