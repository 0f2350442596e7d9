"""Rules of the transformers that bend numbers, cut them into bins, or build terms of them."""

from typing import Any

import numpy as np

from penstock_server.features.spec import limits
from penstock_server.features.spec.steps import Bucket, OneHot, Polynomial, Power, Quantiles, Spline, Step
from penstock_tools.sklearn_compiler.refusals import NotCompiled
from penstock_tools.sklearn_compiler.rules_numbers import floats, standard


def power(transformer: Any) -> list[Step]:
    """PowerTransformer, and the scaler that it keeps."""
    bent: list[Step] = [Power(transformer.method, floats(transformer.lambdas_))]
    return [*bent, *standard(transformer._scaler)] if transformer.standardize else bent  # noqa: SLF001 - no public name


def quantile(transformer: Any) -> list[Step]:
    """QuantileTransformer."""
    columns = tuple(floats(column) for column in transformer.quantiles_.T)
    return [Quantiles(columns, floats(transformer.references_), transformer.output_distribution)]


def bins(transformer: Any) -> list[Step]:
    """KBinsDiscretizer; its outermost edges bound nothing, values beyond them fall in the first and last bin."""
    bucket = Bucket(tuple(floats(edges[1:-1]) for edges in transformer.bin_edges_))
    if transformer.encode == "ordinal":
        return [bucket]
    widths = tuple(len(edges) + 1 for edges in bucket.edges)
    return [bucket, OneHot(tuple((*range(width), -1) for width in widths), widths)]


def polynomial(transformer: Any) -> list[Step]:
    """PolynomialFeatures.

    Raises:
        ValueError: it gives more columns than a specification may have.
    """
    # Asked first: the powers are a matrix of all columns in and out.
    limits.at_most("columns", transformer.n_output_features_, limits.MAX_WIDTH)
    columns = np.arange(transformer.n_features_in_)
    return [Polynomial(tuple(tuple(np.repeat(columns, powers).tolist()) for powers in transformer.powers_))]


def spline(transformer: Any) -> list[Step]:
    """SplineTransformer.

    Raises:
        NotCompiled: scikit-learn moves the ends of each further column where it continues straight lines linearly.
    """
    if transformer.extrapolation == "linear" and transformer.degree < 2 and len(transformer.bsplines_) > 1:
        raise NotCompiled("extrapolation='linear' of degree 0 or 1 compiles for one column; degree 2 and above for any")
    is_zeros = getattr(transformer, "handle_missing", "error") == "zeros"
    return [
        Spline(
            tuple(floats(curve.t) for curve in transformer.bsplines_),
            int(transformer.degree),
            "refuse" if transformer.extrapolation == "error" else transformer.extrapolation,
            bool(transformer.include_bias),
            "zeros" if is_zeros else "nan",
        )
    ]
