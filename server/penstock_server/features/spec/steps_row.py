"""The steps that look at several columns of a row together: a selection, products, a norm."""

from itertools import pairwise
from typing import Literal

from penstock_server.features.spec import limits
from penstock_server.features.spec.step_base import Name, StepBase


class Select(StepBase, frozen=True, tag="select"):
    """These columns of the matrix, by their positions, in this order; a column may be repeated."""

    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        limits.some(self, "columns")
        limits.at_most("columns", len(self.columns), limits.MAX_WIDTH)

    def check(self, width: int) -> None:
        for at, column in enumerate(self.columns):
            limits.between(f"columns[{at}]", column, 0, width - 1)

    def width(self, width: int) -> int:  # noqa: ARG002 - as all steps have it
        return len(self.columns)

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        return tuple(names[column] for column in self.columns)


class Polynomial(StepBase, frozen=True, tag="polynomial"):
    """One column per term: the product of the columns that it names; scikit-learn's PolynomialFeatures.

    The product is taken from the last factor to the first, which gives the same bits as building degree by degree.

    Attributes:
        terms: each the positions of its factors, in increasing order, repeated for powers; empty for the constant 1.
    """

    terms: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        limits.some(self, "terms")
        limits.at_most("terms", len(self.terms), limits.MAX_WIDTH)
        for at, term in enumerate(self.terms):
            limits.at_most(f"factors in terms[{at}]", len(term), limits.MAX_DEGREE)
            if any(left > right for left, right in pairwise(term)):
                raise ValueError(f"terms[{at}] is {list(term)}, expected its factors in increasing order")

    def check(self, width: int) -> None:
        for at, term in enumerate(self.terms):
            for factor in term:
                limits.between(f"a factor in terms[{at}]", factor, 0, width - 1)

    def width(self, width: int) -> int:  # noqa: ARG002 - as all steps have it
        return len(self.terms)

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        return tuple(Name(_product(term, names)) for term in self.terms)


class Normalise(StepBase, frozen=True, tag="normalise"):
    """Each row is divided by its norm; a row whose norm is 0 stays. NaN anywhere makes the whole row NaN.

    scikit-learn's Normalizer. Sums may differ from numpy's in the last bits, since numpy adds in another order.
    """

    norm: Literal["l1", "l2", "max"] = "l2"


def _product(term: tuple[int, ...], names: tuple[Name, ...]) -> str:
    factors = [(names[factor].text, term.count(factor)) for factor in sorted(set(term))]
    return " ".join(text if power == 1 else f"{text}^{power}" for text, power in factors) or "1"
