"""The calibration with few runs, and that it notices a rule that is off."""

import numpy as np
import pytest

from bench.drift import calibration
from bench.drift.calibration import Check, checks


@pytest.mark.long
def test_the_rules_err_as_often_as_they_say() -> None:
    found = list(checks(600, np.random.default_rng(1)))
    assert [check.name for check in found if not check.holds] == []
    assert len({check.name for check in found}) == len(found) > 90


@pytest.mark.parametrize(("simulated", "holds"), [(0.05, True), (0.061, True), (0.2, False)])
def test_a_value_far_from_the_expected_does_not_hold(simulated: float, holds: bool) -> None:
    assert Check("x", simulated, 0.05, 0.002, 0.015).holds is holds


@pytest.mark.parametrize("expected", calibration.RULE.values())
def test_the_expected_fall_short_of_nothing(expected) -> None:
    at_5, at_1, naive = expected
    assert len(at_5) == len(at_1) == len(calibration.INDICES)
    assert all(one <= five for one, five in zip(at_1, at_5, strict=True))
    assert len(naive) == 2
