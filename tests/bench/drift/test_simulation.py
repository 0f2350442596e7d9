import numpy as np
import pytest

from bench.drift import simulation


def test_the_rule_of_thumb_is_not_the_rule() -> None:
    """Without drift that matters, the rule of thumb calls most windows of a hundred rows drifted."""
    found = simulation.rejections(np.random.default_rng(2), 10, 100, 0.05, 500)
    assert found.naive > 0.5
    assert found.at_5 < 0.05


@pytest.mark.parametrize("index", [0.0, 0.1, 0.25, 1.0])
def test_tilted_shares_are_at_the_index_asked_for(index: float) -> None:
    shares = np.full(20, 0.05)
    moved = simulation.tilted(shares, index)
    assert moved.sum() == pytest.approx(1)
    assert np.sum((shares - moved) * np.log(shares / moved)) == pytest.approx(index, abs=1e-9)
