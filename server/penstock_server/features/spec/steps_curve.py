"""The steps that bend a column along a fitted curve: powers, quantiles, cycles and splines.

They are scikit-learn's transformers with their fitted numbers. Where a result passes through the C library (`log1p`,
`expm1`, `pow`, `sin`), it may differ from numpy's in the last bits; tests hold the bounds.
"""

from itertools import pairwise
from typing import Literal

import msgspec

from penstock_server.features.spec import limits
from penstock_server.features.spec.step_base import Name, StepBase


class Cyclic(StepBase, frozen=True, tag="cyclic"):
    """Each column gives two: sin and cos of 2π·x/period, the product first; NaN and the infinities give NaN."""

    PER_COLUMN = ("period",)

    period: tuple[float, ...]

    def __post_init__(self) -> None:
        if min(limits.finite_each(self, "period")) <= 0:
            raise ValueError(f"period is {min(self.period)}, expected a number above 0")

    def width(self, width: int) -> int:
        return 2 * width

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        return tuple(Name(f"{function}({name.text})") for name in names for function in ("sin", "cos"))


class Power(StepBase, frozen=True, tag="power"):
    """The Yeo-Johnson or Box-Cox power of each column, as scikit-learn's PowerTransformer without its scaler.

    NaN passes. Box-Cox is made for x > 0; below 0 it gives NaN.
    """

    PER_COLUMN = ("lambdas",)

    method: Literal["yeo-johnson", "box-cox"]
    lambdas: tuple[float, ...]

    def __post_init__(self) -> None:
        limits.finite_each(self, "lambdas")


class Quantiles(StepBase, frozen=True, tag="quantiles"):
    """The share of training values below each value, as in scikit-learn's QuantileTransformer.

    It is the mean of the interpolations from below and from above, and 0 or 1 at and beyond the ends. With the distribution
    "normal" it becomes a quantile of the standard normal distribution, from that of 1e-7 to that of 1 - 1e-7. NaN passes.

    Attributes:
        quantiles: for each column n training quantiles, increasing; equal neighbours are allowed.
        references: the n shares that belong to them, increasing.
    """

    PER_COLUMN = ("quantiles",)

    quantiles: tuple[tuple[float, ...], ...]
    references: tuple[float, ...]
    distribution: Literal["uniform", "normal"] = "uniform"

    def __post_init__(self) -> None:
        limits.increasing(self, "references")
        if not self.references:
            raise ValueError("references is empty, expected one for each quantile")
        if not 0 <= self.references[0] <= self.references[-1] <= 1:
            raise ValueError(
                f"references go from {self.references[0]} to {self.references[-1]}, expected shares from 0 to 1"
            )
        checked = []
        for at, given in enumerate(limits.some(self, "quantiles")):
            what = f"quantiles[{at}]"
            if len(given) != len(self.references):
                raise ValueError(f"{what} has {len(given)} numbers, expected {len(self.references)} as references has")
            checked.append(limits.increasing_of(what, given, strictly=False))
        msgspec.structs.force_setattr(self, "quantiles", tuple(checked))


class Spline(StepBase, frozen=True, tag="spline"):
    """Each column gives its B-spline basis functions, as scikit-learn's SplineTransformer; equal to about 1e-13.

    An infinity that is continued, or moved by periods, gives NaN.

    Attributes:
        knots: for each column the whole knot vector t, increasing (equal neighbours are allowed), n + degree + 1 of them
            where there are n basis functions before a periodic spline joins its ends.
        degree: of the polynomials.
        extrapolation: what is beyond t[degree] and t[-degree - 1]; "refuse" refuses the row's request.
        include_bias: False leaves out each column's last function.
        missing: what NaN gives: NaN everywhere, or zeros.
    """

    PER_COLUMN = ("knots",)

    knots: tuple[tuple[float, ...], ...]
    degree: int
    extrapolation: Literal["constant", "linear", "continue", "periodic", "refuse"] = "constant"
    include_bias: bool = True
    missing: Literal["nan", "zeros"] = "nan"

    def __post_init__(self) -> None:
        limits.between("degree", self.degree, 0, limits.MAX_SPLINE_DEGREE)
        checked = []
        for at, given in enumerate(limits.some(self, "knots")):
            knots = limits.increasing_of(f"knots[{at}]", given, strictly=False)
            if len(knots) != len(self.knots[0]):
                raise ValueError(
                    f"knots[{at}] has {len(knots)} numbers, expected {len(self.knots[0])} as the first has"
                )
            checked.append(knots)
        msgspec.structs.force_setattr(self, "knots", tuple(checked))
        functions = len(self.knots[0]) - self.degree - 1
        if functions < max(1, self.degree + 1) or (self.extrapolation == "periodic" and functions <= 2 * self.degree):
            raise ValueError(f"knots[0] has {len(self.knots[0])} numbers, too few for the degree {self.degree}")
        for knots in self.knots:
            self._check_domain(knots)

    def _check_domain(self, knots: tuple[float, ...]) -> None:
        """Checks that the knots around the domain differ: de Boor's formula divides by their differences."""
        inner = knots[self.degree : len(knots) - self.degree]
        if self.degree and not all(low < high for low, high in pairwise(inner)):
            raise ValueError(f"the knots {inner[:3]}... repeat inside the domain, expected them to increase there")

    @property
    def functions(self) -> int:
        """How many columns each column gives."""
        joined = self.degree if self.extrapolation == "periodic" else 0
        return len(self.knots[0]) - self.degree - 1 - joined - (not self.include_bias)

    def width(self, width: int) -> int:
        return width * self.functions

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        return tuple(Name(f"{name.text}_sp_{at}") for name in names for at in range(self.functions))
