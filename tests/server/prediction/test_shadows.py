from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.prediction.shadows import Shadows
from tests.examples import examples


class Target:
    """Stands where a shadow does, and adds up what is left out for it."""

    def __init__(self, *, is_batched: bool = True, skips_repeats: bool = False) -> None:
        self.is_batched = is_batched
        self.skips_repeats = skips_repeats
        self.rows = 0

    def left_out(self, rows: int) -> None:
        self.rows += rows


def shadows(*shares: float, seed: int = 0) -> tuple[Any, list[Any]]:
    targets: list[Any] = [Target() for _ in shares]
    return Shadows([*zip(targets, shares, strict=True)], Random(seed).random), targets


def test_a_shadow_of_all_gets_every_batch() -> None:
    made, targets = shadows(1.0, 1.0)
    assert not made.is_sampled
    for _ in range(5):
        assert made.is_due
        assert made.draw(3) == targets
    assert [target.rows for target in targets] == [0, 0]


@examples(50)
@given(
    shares=st.lists(st.sampled_from([1e-9, 0.01, 0.3, 0.9, 1.0]), min_size=1, max_size=4),
    batches=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=200),
    seed=st.integers(0, 100),
)
def test_each_row_is_copied_left_out_or_still_to_be_told(
    shares: list[float], batches: list[tuple[int, bool]], seed: int
) -> None:
    made, targets = shadows(*shares, seed=seed)
    assert made.is_sampled == (1.0 not in shares)
    copied, total = dict.fromkeys(map(id, targets), 0), 0
    for rows, by_kernel in batches:
        total += rows
        if by_kernel and made.passing[0] > 0:  # as kernels do it
            made.passing[0] -= 1
            made.passing[1] += rows
            continue
        was_due = made.is_due
        drawn = made.draw(rows)
        assert bool(drawn) == was_due
        for target in drawn:
            copied[id(target)] += rows
    for target, share in zip(targets, shares, strict=True):
        assert copied[id(target)] + target.rows + made.passing[1] == total
        assert share < 1 or target.rows == 0


@pytest.mark.parametrize("share", [0.02, 0.25, 0.7])
def test_a_shadow_gets_its_share_whoever_else_is_there(share: float) -> None:
    made, targets = shadows(share, 0.4, seed=3)
    both = own = 0
    for _ in range(20_000):
        drawn = made.draw(1)
        own += targets[0] in drawn
        both += len(drawn) == 2
    assert abs(own - 20_000 * share) < 4 * (20_000 * share * (1 - share)) ** 0.5
    together = share * 0.4
    assert abs(both - 20_000 * together) < 4 * (20_000 * together * (1 - together)) ** 0.5


def test_what_the_shadows_need_is_what_any_of_them_needs() -> None:
    alone: Any = Target(is_batched=False)
    watched: Any = Target(skips_repeats=True)
    made = Shadows([(alone, 1.0), (watched, 0.5)])
    assert (made.is_batched, made.skips_repeats, made.is_sampled) == (False, True, False)
    assert Shadows([(watched, 0.5)]).is_sampled
