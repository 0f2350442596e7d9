import numpy as np
from sklearn import preprocessing as pre

from penstock_server.features.spec import steps
from tests.server.features.transformers import GAPS, POSITIVE, X, Z, assert_same


def test_quantile_transformer() -> None:
    fitted = pre.QuantileTransformer(n_quantiles=50).fit(GAPS)
    known = tuple(map(tuple, fitted.quantiles_.T))
    assert_same(fitted, steps.Quantiles(known, tuple(fitted.references_)), GAPS * 1.2)


def test_quantile_transformer_to_the_normal_distribution() -> None:
    fitted = pre.QuantileTransformer(n_quantiles=50, output_distribution="normal").fit(GAPS)
    shares, known = tuple(fitted.references_), tuple(map(tuple, fitted.quantiles_.T))
    assert_same(fitted, steps.Quantiles(known, shares, "normal"), GAPS * 1.2)


def test_normal_quantiles_have_scipys_bits_from_end_to_end() -> None:
    # Shares themselves: those near an end lie in the tails.
    shares = np.concatenate(
        [np.linspace(0, 1, 4001), 10.0 ** -np.linspace(0, 7, 999), 1 - 10.0 ** -np.linspace(1, 7, 999)]
    )
    columns = GAPS.shape[1]
    ends = np.repeat([[0.0], [1.0]], columns, axis=1)
    fitted = pre.QuantileTransformer(n_quantiles=2, output_distribution="normal").fit(ends)
    step = steps.Quantiles(((0.0, 1.0),), (0.0, 1.0), "normal")
    assert_same(fitted, step, np.repeat(shares[:, None], columns, axis=1))


def test_yeo_johnson() -> None:
    fitted = pre.PowerTransformer(standardize=False).fit(X)
    # Older versions of scikit-learn subtract 1 from a power, which costs the last digits of results near 0.
    atol = 4e-16 if hasattr(fitted, "_yeo_johnson_transform") else 0.0
    assert_same(fitted, steps.Power("yeo-johnson", tuple(fitted.lambdas_)), Z[:-1], rtol=1e-15, atol=atol)


def test_box_cox() -> None:
    fitted = pre.PowerTransformer("box-cox", standardize=False).fit(POSITIVE)
    assert_same(fitted, steps.Power("box-cox", tuple(fitted.lambdas_)), POSITIVE * 2, rtol=1e-15)
