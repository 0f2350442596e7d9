"""What goes with a call beside its message: headers as gRPC has them, checked here, and the trace that the caller is in.

A trace is passed on as W3C's `traceparent` and `tracestate`. Nothing is imported for it: where the process has not imported
OpenTelemetry, no span can be current.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from penstock_client.errors import InvalidRequestError

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Lower-case names and values."""

TRACE_PARENT: Final = "traceparent"
TRACE_STATE: Final = "tracestate"
_RESERVED: Final = frozenset({"te", "content-type", "user-agent", "host", "connection"})
_MOST_BYTES: Final = 8192


def call_headers(own: Mapping[str, str] | None) -> Headers:
    """The headers of one call: the caller's own, and the current span of OpenTelemetry, which is the newer.

    Raises:
        InvalidRequestError: a header that is no plain text, or that is gRPC's own.

    >>> call_headers({"Authorization": "Bearer x"}), call_headers(None)
    ((('authorization', 'Bearer x'),), ())
    >>> call_headers({"grpc-timeout": "1S"})
    Traceback (most recent call last):
    penstock_client.errors.InvalidRequestError: the header 'grpc-timeout' cannot be sent with a call; expected plain text...
    """
    trace = trace_headers()
    if not own:
        return trace
    wrong = unlike_text(own)
    if wrong is not None:
        raise InvalidRequestError(
            f"the header {wrong!r} cannot be sent with a call; expected plain text of at most {_MOST_BYTES} bytes, and no "
            "name of gRPC's own"
        )
    given = tuple((name.lower(), value) for name, value in own.items())
    if trace:
        given = tuple(pair for pair in given if pair[0] not in (TRACE_PARENT, TRACE_STATE))
    return given + trace


def trace_headers() -> Headers:
    """The current span of OpenTelemetry as headers; none where there is no valid one.

    Source: W3C Trace Context, level 1, "traceparent Header": version 00, trace, parent, flags.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return ()
    current: Any = getattr(api, "get_current_span", None)
    if current is None:  # another thread is importing it just now
        return ()
    context = current().get_span_context()
    if not context.is_valid:
        return ()
    parent = (TRACE_PARENT, f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}")
    state = context.trace_state.to_header()
    return (parent, (TRACE_STATE, state)) if state else (parent,)


def unlike_text(headers: Mapping[str, str]) -> str | None:
    """The first header that is not sent as it is; None if all are.

    >>> unlike_text({"a": "b"}), unlike_text({"a-bin": "b"}), unlike_text({"te": "trailers"})
    (None, 'a-bin', 'te')
    """
    total = 0
    for name, value in headers.items():
        key = name.lower()
        is_name = key and all(character.isalnum() or character in "-_." for character in key) and key.isascii()
        is_value = isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()
        if not is_name or not is_value or key.endswith("-bin") or key.startswith("grpc-") or key in _RESERVED:
            return name
        total += len(name) + len(value)
    return None if total <= _MOST_BYTES else "all together"
