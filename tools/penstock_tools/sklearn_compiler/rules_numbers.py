"""Rules of the transformers of numbers: those that scale, clip, normalise or bend them, cut them into bins, or build terms.

The order of operations is scikit-learn's, so that the results of all but the curves are equal to the last bit.
"""

from typing import Any

import numpy as np

from penstock_server.features.spec import limits
from penstock_server.features.spec.steps import (
    Binarise,
    Bucket,
    Clip,
    Linear,
    Normalise,
    OneHot,
    Polynomial,
    Power,
    Quantiles,
    Spline,
    Standardise,
    Step,
)
from penstock_tools.sklearn_compiler.refusals import NotCompiled


def standard(scaler: Any) -> list[Step]:
    """StandardScaler."""
    return _standardise(scaler.mean_ if scaler.with_mean else None, scaler.scale_ if scaler.with_std else None)


def robust(scaler: Any) -> list[Step]:
    """RobustScaler."""
    return _standardise(
        scaler.center_ if scaler.with_centering else None, scaler.scale_ if scaler.with_scaling else None
    )


def max_abs(scaler: Any) -> list[Step]:
    """MaxAbsScaler; some versions can clip."""
    steps = _standardise(None, scaler.scale_)
    return [*steps, Clip((-1.0,), (1.0,))] if getattr(scaler, "clip", False) else steps


def min_max(scaler: Any) -> list[Step]:
    """MinMaxScaler."""
    steps: list[Step] = [Linear(_floats(scaler.scale_), _floats(scaler.min_))]
    low, high = scaler.feature_range
    return [*steps, Clip((float(low),), (float(high),))] if scaler.clip else steps


def normalizer(transformer: Any) -> list[Step]:
    """Normalizer."""
    return [Normalise(transformer.norm)]


def binarizer(transformer: Any) -> list[Step]:
    """Binarizer."""
    return [Binarise((float(transformer.threshold),))]


def _floats(values: Any) -> tuple[float, ...]:
    """A fitted array as a parameter for each column."""
    return tuple(float(value) for value in values)


def _standardise(mean: Any, scale: Any) -> list[Step]:
    if mean is None and scale is None:
        return []
    return [Standardise(None if mean is None else _floats(mean), None if scale is None else _floats(scale))]


def power(transformer: Any) -> list[Step]:
    """PowerTransformer, and its own scaler."""
    bent: list[Step] = [Power(transformer.method, _floats(transformer.lambdas_))]
    return [*bent, *standard(transformer._scaler)] if transformer.standardize else bent  # noqa: SLF001 - no public name


def quantile(transformer: Any) -> list[Step]:
    """QuantileTransformer."""
    columns = tuple(_floats(column) for column in transformer.quantiles_.T)
    return [Quantiles(columns, _floats(transformer.references_), transformer.output_distribution)]


def bins(transformer: Any) -> list[Step]:
    """KBinsDiscretizer; its outermost edges bound nothing, values beyond them fall in the first and last bin."""
    bucket = Bucket(tuple(_floats(edges[1:-1]) for edges in transformer.bin_edges_))
    if transformer.encode == "ordinal":
        return [bucket]
    widths = tuple(len(edges) + 1 for edges in bucket.edges)
    return [bucket, OneHot(tuple((*range(width), -1) for width in widths), widths)]


def polynomial(transformer: Any) -> list[Step]:
    """PolynomialFeatures.

    Raises:
        ValueError: it gives more columns than a specification may have.
    """
    # Checked first: `powers_` is a matrix of all columns in and out.
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
            tuple(_floats(curve.t) for curve in transformer.bsplines_),
            int(transformer.degree),
            "refuse" if transformer.extrapolation == "error" else transformer.extrapolation,
            bool(transformer.include_bias),
            "zeros" if is_zeros else "nan",
        )
    ]
