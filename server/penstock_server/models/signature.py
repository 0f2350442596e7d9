"""A model's inputs and outputs by name, datatype and shape, for modules that must not import onnxruntime."""

from dataclasses import dataclass
from typing import NamedTuple

ANY = -1
"""A dimension of any size."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor, as metadata shows it.

    Attributes:
        name: its name in requests and replies.
        datatype: the protocol's name of its type, such as FP32.
        shape: its dimensions, -1 for any size. The first of a batched tensor is the rows.
        columns: the names of a matrix's columns in their order, where the publisher named them.
        missing: the text that stands for a missing value; None if none does.
        time: the unit of times since 1970-01-01 in UTC, "ns"; None for what is no time.
        parameters: what replies say of an output beside its numbers.
        labels: the names of the classes that a row's values are of, where the publisher named them.
        is_optional: an input with a default, which requests may leave out.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    missing: str | None = None
    time: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    labels: tuple[str, ...] = ()
    is_optional: bool = False

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape is accepted."""
        return len(shape) == len(self.shape) and all(
            size >= 0 and expected in (ANY, size) for expected, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """A version's inputs and outputs.

    Attributes:
        is_batched: the first dimension of every tensor is the rows, so requests may run together.
        optional: inputs that have a default, which requests may leave out. None of their dimensions is the rows.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    is_batched: bool
    optional: tuple[TensorInfo, ...] = ()


class GivenTensor(NamedTuple):
    """What a request gives in place of an input's default: raw contents and their shape."""

    name: str
    block: bytes
    shape: tuple[int, ...]
