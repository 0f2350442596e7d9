from typing import Any

import pytest
from sklearn import preprocessing as pre

from penstock_server.features.spec import steps
from tests.server.features.transformers import X, Z, assert_same


@pytest.mark.parametrize("options", [{}, {"interaction_only": True, "include_bias": False}])
def test_polynomial_features(options: dict[str, Any]) -> None:
    fitted = pre.PolynomialFeatures(3, **options).fit(X)
    terms = (tuple(at for at, power in enumerate(row) for _ in range(power)) for row in fitted.powers_)
    assert_same(fitted, steps.Polynomial(tuple(terms)), Z)


@pytest.mark.parametrize(("norm", "rtol"), [("l1", 1e-15), ("l2", 1e-15), ("max", 0)])
def test_normalizer(norm: Any, rtol: float) -> None:
    assert_same(pre.Normalizer(norm), steps.Normalise(norm), Z, rtol=rtol)
