"""Rows, and the scikit-learn transformers that steps stand for: what `kernels/test_*.py` hold the kernels against."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_server.features.spec.steps import Step

NAN = float("nan")
NAMES = ("a", "b", "c")
RNG = np.random.default_rng(7)
X = np.stack([RNG.normal(size=700), RNG.lognormal(size=700), RNG.integers(0, 9, 700).astype(float)], axis=1)
POSITIVE = np.abs(X) + 0.5
GAPS = np.where(RNG.random(X.shape) < 0.2, NAN, X)
# Training values, values between and beyond them, and one of huge size.
Z = np.concatenate([X, X * 3, X[::-1] / 7, [[1e150, -1e150, 1e9]]])


def run(step: Step, x: NDArray[np.float64]) -> NDArray[Any]:
    spec = FeatureSpec(tuple(map(NumberColumn, NAMES)), Take(NAMES, (step,)), "FP64")
    return Pipeline(spec).transform(dict(zip(NAMES, x.T, strict=True)))


def assert_same(fitted: Any, step: Step, x: NDArray[np.float64], *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """The step gives what the fitted transformer gives: to the last bit, unless a bound is given."""
    with np.errstate(over="ignore"):
        expected = fitted.transform(x.copy())
    np.testing.assert_allclose(run(step, x), expected, rtol=rtol, atol=atol)
