"""The calibration's figures with few runs, and that it tells a rule that is off."""

import numpy as np
import pytest

from bench.drift import calibration as drift_calibration
from bench.drift import simulation as drift_simulation
from bench.drift.calibration import Figure, figures


def test_the_rules_err_as_often_as_they_say() -> None:
    found = list(figures(600, np.random.default_rng(1)))
    assert [figure.name for figure in found if not figure.holds] == []
    assert len({figure.name for figure in found}) == len(found) > 90


def test_the_rule_of_thumb_is_not_the_rule() -> None:
    """Without drift that matters, the rule of thumb calls most windows of a hundred rows drifted."""
    found = drift_simulation.rejections(np.random.default_rng(2), 10, 100, 0.05, 500)
    assert found.naive > 0.5
    assert found.at_5 < 0.05


@pytest.mark.parametrize(("ours", "holds"), [(0.05, True), (0.061, True), (0.2, False)])
def test_a_figure_far_from_the_expected_does_not_hold(ours: float, holds: bool) -> None:
    assert Figure("x", ours, 0.05, 0.002, 0.015).holds is holds


@pytest.mark.parametrize("index", [0.0, 0.1, 0.25, 1.0])
def test_tilted_shares_are_at_the_index_asked_for(index: float) -> None:
    shares = np.full(20, 0.05)
    moved = drift_simulation.tilted(shares, index)
    assert moved.sum() == pytest.approx(1)
    assert np.sum((shares - moved) * np.log(shares / moved)) == pytest.approx(index, abs=1e-9)


@pytest.mark.parametrize("expected", drift_calibration.RULE.values())
def test_the_expected_fall_short_of_nothing(expected) -> None:
    at_5, at_1, naive = expected
    assert len(at_5) == len(at_1) == len(drift_calibration.INDICES)
    assert all(one <= five for one, five in zip(at_1, at_5, strict=True))
    assert len(naive) == 2
