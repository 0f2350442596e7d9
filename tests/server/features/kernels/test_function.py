from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import steps
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_server.features.spec.steps_value import FUNCTIONS
from tests.server.features.random_specs import EXACT

NAN = float("nan")
WIDE = np.concatenate(
    [np.linspace(-20, 20, 40_001), np.geomspace(1e-300, 1e300, 4001), [0.0, -0.0, np.inf, -np.inf, NAN]]
)


def ulps(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """How many representable numbers lie between two results at most."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    gap = np.abs(found - expected) / np.spacing(np.abs(expected))
    return float(np.where(same, 0, gap).max())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_numpys_to_a_few_last_bits(function: Any) -> None:
    spec = FeatureSpec((NumberColumn("a"),), Take(("a",), (steps.Apply(function),)), "FP64")
    with np.errstate(all="ignore"):
        expected = np.asarray(getattr(np, function)(WIDE), float)
    found = Pipeline(spec).transform({"a": WIDE})[:, 0]
    assert ulps(found, expected) <= (0 if function in EXACT else 4)
