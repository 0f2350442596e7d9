"""The fitted steps that a number goes through, each with its parameters and its meaning.

A step checks itself at birth and raises `ValueError`. What it does with NaN and the infinities is part of its meaning:
said here, carried out by `kernels`, held by tests. `fit` finds the parameters.
"""

from typing import Final

import msgspec

from penstock_server.features import limits


class Fill(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step", tag="fill"):
    """NaN becomes `value`; everything else, the infinities too, passes."""

    value: float

    def __post_init__(self) -> None:
        limits.finite(self, "value")


class Clip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step", tag="clip"):
    """Values below `low` become `low` and values above `high` become `high`, the infinities too; NaN passes.

    A side that is None is open.
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        sides = [limits.finite(self, side) for side in ("low", "high") if getattr(self, side) is not None]
        if not sides:
            raise ValueError("clip has neither low nor high, expected one at least")
        if sides != sorted(sides):
            raise ValueError(f"low {self.low} is above high {self.high}")


class Log1p(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step", tag="log1p"):
    """ln(1 + x) as numpy has it: -inf at -1, NaN below, inf at inf; NaN passes."""


class Standardise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step", tag="standardise"):
    """(x - mean) / scale, in this order of operations; NaN and the infinities pass."""

    mean: float
    scale: float

    def __post_init__(self) -> None:
        limits.finite(self, "mean")
        if limits.finite(self, "scale") <= 0:
            raise ValueError(f"scale is {self.scale}, expected a number above 0")


class Bucket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step", tag="bucket"):
    """The number of `edges` that are <= x: 0 below the first and for -inf, `len(edges)` from the last on and for inf.

    NaN has an index of its own after the others, `len(edges) + 1`. It is `numpy.digitize` of what is not NaN.
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        limits.increasing(self, "edges")
        if not self.edges:
            raise ValueError("bucket has no edges, expected one at least")


Step = Fill | Clip | Log1p | Standardise | Bucket

STEPS: Final[tuple[type[Step], ...]] = (Fill, Clip, Log1p, Standardise, Bucket)
"""Every step, in the order of their operation codes."""
