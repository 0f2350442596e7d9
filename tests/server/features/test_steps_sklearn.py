"""The steps against the scikit-learn transformers that they stand for: exact, or within the bound that is said."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import preprocessing as pre
from sklearn.feature_extraction import FeatureHasher
from sklearn.impute import MissingIndicator, SimpleImputer

from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import steps
from penstock_server.features.spec.spec import FeatureSpec, Hash, NumberColumn, StringColumn, Take, Text
from penstock_server.features.spec.steps import Step
from penstock_server.features.spec.steps_value import FUNCTIONS
from tests.server.features.random_specs import EXACT

NAN = float("nan")
NAMES = ("a", "b", "c")
RNG = np.random.default_rng(7)
X = np.stack([RNG.normal(size=700), RNG.lognormal(size=700), RNG.integers(0, 9, 700).astype(float)], axis=1)
POSITIVE = np.abs(X) + 0.5
GAPS = np.where(RNG.random(X.shape) < 0.2, NAN, X)
# Training values, values between and beyond them, and one of huge size.
Z = np.concatenate([X, X * 3, X[::-1] / 7, [[1e150, -1e150, 1e9]]])


def run(found: tuple[Step, ...], x: NDArray[np.float64]) -> NDArray[Any]:
    spec = FeatureSpec(tuple(map(NumberColumn, NAMES)), Take(NAMES, found), "FP64")
    return Pipeline(spec).transform(dict(zip(NAMES, x.T, strict=True)))


def standard() -> tuple[Any, Step, Any]:
    fitted = pre.StandardScaler().fit(X)
    return fitted, steps.Standardise(tuple(fitted.mean_), tuple(fitted.scale_)), Z


def robust() -> tuple[Any, Step, Any]:
    fitted = pre.RobustScaler().fit(GAPS)
    return fitted, steps.Standardise(tuple(fitted.center_), tuple(fitted.scale_)), GAPS


def max_abs() -> tuple[Any, Step, Any]:
    fitted = pre.MaxAbsScaler().fit(X)
    return fitted, steps.Standardise(None, tuple(fitted.scale_)), Z


def min_max() -> tuple[Any, Step, Any]:
    fitted = pre.MinMaxScaler((-1, 3)).fit(X)
    return fitted, steps.Linear(tuple(fitted.scale_), tuple(fitted.min_)), Z


def imputer() -> tuple[Any, Step, Any]:
    fitted = SimpleImputer(strategy="median").fit(GAPS)
    return fitted, steps.Fill(tuple(fitted.statistics_)), GAPS


def imputer_of_zeros() -> tuple[Any, Step, Any]:
    fitted = SimpleImputer(missing_values=0, strategy="mean").fit(X)
    return fitted, steps.Fill(tuple(fitted.statistics_), 0), X


def indicator() -> tuple[Any, Step, Any]:
    return MissingIndicator(features="all").fit(GAPS), steps.IsMissing(), GAPS


def binarizer() -> tuple[Any, Step, Any]:
    return pre.Binarizer(threshold=0.5), steps.Binarise((0.5,)), Z


def bins() -> tuple[Any, Step, Any]:
    fitted = pre.KBinsDiscretizer(5, encode="ordinal", strategy="uniform").fit(X)
    return fitted, steps.Bucket(tuple(tuple(edges[1:-1]) for edges in fitted.bin_edges_)), Z


def polynomial() -> tuple[Any, Step, Any]:
    fitted = pre.PolynomialFeatures(3).fit(X)
    terms = (tuple(at for at, power in enumerate(row) for _ in range(power)) for row in fitted.powers_)
    return fitted, steps.Polynomial(tuple(terms)), Z


def interactions() -> tuple[Any, Step, Any]:
    fitted = pre.PolynomialFeatures(3, interaction_only=True, include_bias=False).fit(X)
    terms = (tuple(at for at, power in enumerate(row) for _ in range(power)) for row in fitted.powers_)
    return fitted, steps.Polynomial(tuple(terms)), Z


def uniform() -> tuple[Any, Step, Any]:
    fitted = pre.QuantileTransformer(n_quantiles=50).fit(GAPS)
    return fitted, steps.Quantiles(tuple(map(tuple, fitted.quantiles_.T)), tuple(fitted.references_)), GAPS * 1.2


@pytest.mark.parametrize(
    "make",
    [
        standard,
        robust,
        max_abs,
        min_max,
        imputer,
        imputer_of_zeros,
        indicator,
        binarizer,
        bins,
        polynomial,
        interactions,
        uniform,
    ],
)
def test_the_same_to_the_last_bit(make: Any) -> None:
    fitted, step, x = make()
    np.testing.assert_array_equal(run((step,), x), fitted.transform(x.copy()))


def normal() -> tuple[Any, Step, Any]:
    fitted = pre.QuantileTransformer(n_quantiles=50, output_distribution="normal").fit(GAPS)
    shares, known = tuple(fitted.references_), tuple(map(tuple, fitted.quantiles_.T))
    return fitted, steps.Quantiles(known, shares, "normal"), GAPS * 1.2


def yeo_johnson() -> tuple[Any, Step, Any]:
    fitted = pre.PowerTransformer(standardize=False).fit(X)
    return fitted, steps.Power("yeo-johnson", tuple(fitted.lambdas_)), Z[:-1]


def box_cox() -> tuple[Any, Step, Any]:
    fitted = pre.PowerTransformer("box-cox", standardize=False).fit(POSITIVE)
    return fitted, steps.Power("box-cox", tuple(fitted.lambdas_)), POSITIVE * 2


def norm(kind: Any) -> Any:
    return lambda: (pre.Normalizer(kind), steps.Normalise(kind), Z)


def spline(kind: str, degree: int, bias: bool = True) -> Any:
    def make() -> tuple[Any, Step, Any]:
        fitted = pre.SplineTransformer(6, degree, extrapolation=kind, include_bias=bias).fit(X)
        knots = tuple(tuple(each.t) for each in fitted.bsplines_)
        return fitted, steps.Spline(knots, degree, kind, bias), Z[:-1]  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize(
    ("make", "rtol", "atol"),
    [
        (normal, 2e-15, 2e-16),
        (yeo_johnson, 1e-15, 0),
        (box_cox, 1e-15, 0),
        (norm("l1"), 1e-15, 0),
        (norm("l2"), 1e-15, 0),
        (norm("max"), 0, 0),
        *(
            (spline(kind, degree), 1e-13, 1e-15)
            for kind in ("constant", "linear", "continue", "periodic")
            for degree in (2, 3)
        ),
        (spline("constant", 3, bias=False), 1e-13, 1e-15),
        (spline("constant", 1), 1e-13, 1e-15),
        (spline("periodic", 1), 1e-13, 1e-15),
    ],
)
def test_the_same_within_a_bound(make: Any, rtol: float, atol: float) -> None:
    fitted, step, x = make()
    np.testing.assert_allclose(run((step,), x), fitted.transform(x.copy()), rtol=rtol, atol=atol)


def ulps(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """How many representable numbers lie between two results at most."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    gap = np.abs(found - expected) / np.spacing(np.abs(expected))
    return float(np.where(same, 0, gap).max())


WIDE = np.concatenate(
    [np.linspace(-20, 20, 40_001), np.geomspace(1e-300, 1e300, 4001), [0.0, -0.0, np.inf, -np.inf, NAN]]
)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_numpys_to_a_few_last_bits(function: Any) -> None:
    spec = FeatureSpec((NumberColumn("a"),), Take(("a",), (steps.Apply(function),)), "FP64")
    with np.errstate(all="ignore"):
        expected = np.asarray(getattr(np, function)(WIDE), float)
    found = Pipeline(spec).transform({"a": WIDE})[:, 0]
    assert ulps(found, expected) <= (0 if function in EXACT else 4)


@pytest.mark.parametrize("prefix", ["", "city="])
@pytest.mark.parametrize("signed", [True, False])
def test_a_hash_is_that_of_feature_hasher(prefix: str, signed: bool) -> None:
    words = ["", "a", "ab", "abc", "abcd", "abcde", "é", "Zürich", "x" * 99, *map(str, range(500))]
    hasher = FeatureHasher(13, input_type="string", alternate_sign=signed)
    expected = hasher.transform([[prefix + word] for word in words]).toarray()
    spec = FeatureSpec((StringColumn("s"),), Text("s", Hash(13, signed, prefix)), "FP64")
    np.testing.assert_array_equal(Pipeline(spec).transform({"s": words}), expected)
