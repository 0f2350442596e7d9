"""A few rollouts through faults in every run; `python -m tests.simulation --rollouts 100` plays more."""

import pytest

from tests.simulation.planted import ROLLOUTS_PLANTED, planted
from tests.simulation.rollouts import roll


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_a_rollout_ends_as_it_must(seed: int) -> None:
    result = roll(str(seed))
    assert result.violations == [], "\n".join(result.lines)
    assert result.outcome == {"good": "promoted", "bad": "rolled_back"}[result.kind]
    assert result.faults


@pytest.mark.long
@pytest.mark.parametrize("name", ROLLOUTS_PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    """By the seed that found it when it was planted, or by others: each change of the code changes what seeds do."""
    with planted(name):
        assert any(roll(seed).violations for seed in (ROLLOUTS_PLANTED[name].seed, *map(str, range(12))))
