"""A part of the simulated hours in every run; `make simulate` plays more."""

import os
import subprocess
import sys

import pytest

from tests.simulation.planted import PLANTED, planted
from tests.simulation.simulation import play


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_nothing_goes_wrong(seed: int) -> None:
    result = play(str(seed), 0.1)
    assert result.violations == [], "\n".join(result.lines)
    assert result.requests


@pytest.mark.long
def test_quiet_is_skipped_and_what_was_lived_through_is_told_apart() -> None:
    results = [play(seed, 0.1) for seed in "0234"]  # of few seeds all is loud
    assert any(result.hours > 1 for result in results)
    assert all(0.1 <= result.lived_hours < 1 for result in results)


@pytest.mark.long
def test_a_seed_plays_alike_in_every_process() -> None:
    def told(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "1", "--each", "0.05"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    once, again = told("1"), told("2")
    assert once == again
    assert len(once.splitlines()) > 100


@pytest.mark.long
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    """By the seed that found it when it was planted, or by others: each change of the code changes what seeds do."""
    with planted(name):
        assert any(play(seed, 0.1).violations for seed in (PLANTED[name].seed, *map(str, range(40))))
