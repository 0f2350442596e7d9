"""What a case of the suite is, and how it ended: records that both wires share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from numpy.typing import NDArray

SPECIFICATION: Final = "https://github.com/kserve/open-inference-protocol/tree/main/specification/protocol"
"""Where `inference_grpc.md`, `open_inference_grpc.proto` and `inference_rest.md` are, which the cases name."""


class Outcome(StrEnum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_OFFERED = "not offered"
    """The case belongs to an extension, or to a model, that the server does not have."""


Check = Callable[[Any], str | None]
"""Says what is wrong with a reply; None if nothing is."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The request succeeds.

    Attributes:
        outputs: the outputs by name, with their values to the bit, and no others; None where any will do.
        fields: what the reply's fields hold, by name; of JSON also `a.b`.
        check: what a value cannot say.
    """

    outputs: Mapping[str, NDArray[Any]] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The request fails in one of these ways.

    Attributes:
        codes: names of gRPC's codes, or HTTP statuses; all that are good practice for this failure.
    """

    codes: tuple[str, ...]


Expected = Answered | Refused


@dataclass(frozen=True, slots=True)
class Case:
    """One rule, and how it is tried.

    Attributes:
        id: unique, such as "grpc.raw.FP32.many".
        section: what it is about, for the table.
        rule: the rule, in our own words.
        source: its place in the specification, or the extension's.
        request: what is sent, for the wire's runner.
        expected: what must come back.
        model: the model that it needs, of `contract`; empty for none.
        extension: what the server must offer, or else the case does not count; empty for the specification itself.
    """

    id: str
    section: str
    rule: str
    source: str
    request: Any
    expected: Expected
    model: str = ""
    extension: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """How a case ended: what was got, in words, where it failed."""

    case: Case
    outcome: Outcome
    got: str = ""
    seconds: float = 0.0


def described(expected: Expected) -> str:
    """What is expected, in words.

    >>> described(Refused(("NOT_FOUND", "INVALID_ARGUMENT")))
    'an error: NOT_FOUND or INVALID_ARGUMENT'
    """
    if isinstance(expected, Refused):
        return f"an error: {' or '.join(expected.codes)}"
    parts = [f"{name} = {value!r}" for name, value in expected.fields.items()]
    if expected.outputs is not None:
        parts += [f"{name}: {values.dtype} {list(values.shape)}" for name, values in expected.outputs.items()]
    return "an answer" + (f" with {', '.join(parts)}" if parts else "")
