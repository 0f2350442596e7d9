"""W3C Trace Context: what a caller says of the trace that its request belongs to.

Source: W3C Trace Context, level 1, "traceparent Header".
"""

import re
from typing import Final, NamedTuple

from penstock_server.call import Metadata

TRACE_PARENT: Final = "traceparent"
_VALUE: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>.{32})-(?P<span>.{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?", re.DOTALL
)
_DIGITS: Final = re.compile(r"[0-9a-f]+")
_SAMPLED: Final = 1


class Parent(NamedTuple):
    """The span that a request comes from.

    Attributes:
        trace_id: 128 bits.
        span_id: 64 bits.
        is_sampled: whether the caller traces it. Where it does not, nobody has looked whether the numbers are well formed; an
            ill-formed one is 0.
    """

    trace_id: int
    span_id: int
    is_sampled: bool


def parent_of(metadata: Metadata) -> Parent | None:
    """The span that a request with these metadata comes from; None if it names none, two, or none that is valid."""
    values = [value for name, value in metadata if name == TRACE_PARENT]
    return parent_in(values[0]) if len(values) == 1 else None


def parent_in(value: str | bytes) -> Parent | None:
    """What a `traceparent` says; None if it is not valid.

    >>> parent_in("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_sampled
    True
    """
    found = _VALUE.fullmatch(value) if isinstance(value, str) else None
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"] is not None):
        return None
    parent = Parent(_number(found["trace"]), _number(found["span"]), bool(int(found["flags"], 16) & _SAMPLED))
    return None if parent.is_sampled and not (parent.trace_id and parent.span_id) else parent


def trace_id_of(metadata: Metadata) -> str:
    """The trace that a request with these metadata belongs to, in 32 digits; "" if there is none."""
    parent = parent_of(metadata)
    return f"{parent.trace_id:032x}" if parent is not None and parent.trace_id else ""


def _number(digits: str) -> int:
    return int(digits, 16) if _DIGITS.fullmatch(digits) else 0
