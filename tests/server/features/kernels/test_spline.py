from typing import Any

import pytest
from sklearn import preprocessing as pre

from penstock_server.features.spec import steps
from tests.server.features.transformers import X, Z, assert_same


@pytest.mark.parametrize(
    ("extrapolation", "degree", "include_bias"),
    [
        *((kind, degree, True) for kind in ("constant", "linear", "continue", "periodic") for degree in (2, 3)),
        ("constant", 3, False),
        ("constant", 1, True),
        ("periodic", 1, True),
    ],
)
def test_spline_transformer(extrapolation: Any, degree: int, include_bias: bool) -> None:
    fitted = pre.SplineTransformer(6, degree, extrapolation=extrapolation, include_bias=include_bias).fit(X)
    knots = tuple(tuple(each.t) for each in fitted.bsplines_)
    step = steps.Spline(knots, degree, extrapolation, include_bias)
    assert_same(fitted, step, Z[:-1], rtol=1e-13, atol=1e-15)
