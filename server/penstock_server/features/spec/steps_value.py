"""The steps that treat every value of a column alike: fill, clip, scale, a function, a threshold.

Each has one parameter per column, or one for all. What a step does with NaN and the infinities is part of its definition here;
the kernels follow it and tests check it. Arithmetic is float64 in the order written here, and each operation rounds.
"""

from typing import Literal, get_args

from penstock_server.features.spec import limits
from penstock_server.features.spec.limits import Real
from penstock_server.features.spec.step_base import Name, StepBase

Function = Literal[
    "abs", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "cbrt", "ceil", "cos", "cosh", "exp", "exp2",
    "expm1", "floor", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2", "logical_not", "negative",
    "reciprocal", "rint", "sign", "sin", "single", "sinh", "sqrt", "square", "tan", "tanh", "trunc",
]  # fmt: skip
"""The functions that `Apply` knows, by their names in numpy; `single` rounds to float32."""

FUNCTIONS: tuple[str, ...] = get_args(Function)


class Fill(StepBase, frozen=True, tag="fill"):
    """A value that equals `missing` becomes the column's value; others pass.

    Attributes:
        values: what replaces it, finite or NaN.
        missing: what is replaced; None is NaN. Zeros of both signs are equal.
    """

    PER_COLUMN = ("values",)

    values: tuple[Real, ...]
    missing: Real = None

    def __post_init__(self) -> None:
        limits.real_each(self, "values")
        limits.real(self, "missing")


class IsMissing(StepBase, frozen=True, tag="is_missing"):
    """1.0 where the value equals `missing`, which is NaN where it is None; else 0.0."""

    missing: Real = None

    def __post_init__(self) -> None:
        limits.real(self, "missing")


class Refuse(StepBase, frozen=True, tag="refuse"):
    """Values pass as they are; the requests of rows that hold certain values are refused, as scikit-learn refuses them.

    Attributes:
        missing: whether NaN is refused.
        largest: magnitudes above this are refused, infinities included; None takes all.
    """

    missing: bool = False
    largest: float | None = None

    def __post_init__(self) -> None:
        if not self.missing and self.largest is None:
            raise ValueError("refuse has neither missing nor largest, expected at least one")
        if self.largest is not None and limits.finite(self, "largest") <= 0:
            raise ValueError(f"largest is {self.largest}, expected a number above 0")

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        return names


class Clip(StepBase, frozen=True, tag="clip"):
    """Values below `low` become `low` and values above `high` become `high`, the infinities too; NaN passes.

    A side that is None, or None for a column, is open.
    """

    PER_COLUMN = ("low", "high")

    low: tuple[Real, ...] | None = None
    high: tuple[Real, ...] | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ValueError("clip has neither low nor high, expected at least one")
        lows = (None,) if self.low is None else limits.real_each(self, "low")
        highs = (None,) if self.high is None else limits.real_each(self, "high")
        for at in range(max(len(lows), len(highs))):
            low, high = lows[min(at, len(lows) - 1)], highs[min(at, len(highs) - 1)]
            if low is not None and high is not None and low > high:
                raise ValueError(f"low {low} is above high {high}, expected low to be at most high")


class Standardise(StepBase, frozen=True, tag="standardise"):
    """(x - mean) / scale; what is None is left out. NaN passes, the infinities as IEEE 754 has them.

    scikit-learn's StandardScaler, RobustScaler and MaxAbsScaler.
    """

    PER_COLUMN = ("mean", "scale")

    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.mean is None and self.scale is None:
            raise ValueError("standardise has neither mean nor scale, expected at least one")
        if self.mean is not None:
            limits.finite_each(self, "mean")
        if self.scale is not None and 0.0 in limits.finite_each(self, "scale"):
            raise ValueError(f"scale[{self.scale.index(0.0)}] is 0, expected another number")


class Linear(StepBase, frozen=True, tag="linear"):
    """x * scale + offset, the product rounded before the sum; what is None is left out. NaN passes.

    scikit-learn's MinMaxScaler.
    """

    PER_COLUMN = ("scale", "offset")

    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.scale is None and self.offset is None:
            raise ValueError("linear has neither scale nor offset, expected at least one")
        if self.scale is not None:
            limits.finite_each(self, "scale")
        if self.offset is not None:
            limits.finite_each(self, "offset")


class Apply(StepBase, frozen=True, tag="apply"):
    """A function of numpy, with numpy's results for NaN and the infinities, and NaN outside its domain.

    Predicates (`isnan`, `logical_not`, ...) give 1.0 and 0.0. Functions that are exact in IEEE 754 give numpy's result to
    the last bit. The others come from the C library, where numpy often has its own; they differ by at most 4 units in the
    last place.
    """

    function: Function

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise ValueError(f"function {self.function!r} is unknown, expected one of {', '.join(FUNCTIONS)}")


class Binarise(StepBase, frozen=True, tag="binarise"):
    """1.0 where x > threshold, else 0.0, for NaN too."""

    PER_COLUMN = ("threshold",)

    threshold: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        limits.finite_each(self, "threshold")
