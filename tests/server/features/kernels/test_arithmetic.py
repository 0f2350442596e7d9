from typing import Any

import numpy as np
import pytest

from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import steps
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_server.features.spec.steps_compute import FUNCTIONS_OF_TWO
from tests.server.features.kernels.test_function import ulps

NAN, INF = float("nan"), float("inf")
EDGES = np.array([0.0, -0.0, 1, -1, 0.1, -0.1, 2.5, 3, -3, 7, 1e308, -1e308, 5e-324, 2.0**52, INF, -INF, NAN])
RANDOM = np.random.default_rng(0)
LEFT = np.concatenate([np.repeat(EDGES, len(EDGES)), RANDOM.normal(0, 10, 5000), RANDOM.integers(-50, 50, 5000)])
RIGHT = np.concatenate([np.tile(EDGES, len(EDGES)), RANDOM.normal(0, 3, 5000), RANDOM.integers(-7, 7, 5000)])


@pytest.mark.parametrize("function", FUNCTIONS_OF_TWO)
def test_a_function_of_two_is_numpys(function: Any) -> None:
    step = steps.Compute((steps.Operation(function, (0, 1)),), (2,))
    spec = FeatureSpec((NumberColumn("a"), NumberColumn("b")), Take(("a", "b"), (step,)), "FP64")
    with np.errstate(all="ignore"):
        expected = np.asarray(getattr(np, function)(LEFT, RIGHT), float)
    found = Pipeline(spec).transform({"a": LEFT, "b": RIGHT})[:, 0]
    assert ulps(found, expected) <= (4 if function in {"arctan2", "hypot", "power"} else 0)


def test_a_row_without_what_is_required_is_refused() -> None:
    step = steps.Compute((steps.Operation("isfinite", (0,)),), (0,), required=(1,))
    pipeline = Pipeline(FeatureSpec((NumberColumn("a"),), Take(("a",), (step,)), "FP64"))
    refusal = pipeline.run(np.array([1.0, NAN, INF]), (), 3, np.empty((3, 1)), None)
    assert refusal is not None
    assert refusal.found.tolist() == [-1, 0, 0]
