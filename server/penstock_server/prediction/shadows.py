"""The shadows of one champion: which of them get a copy of a batch that it has answered.

Each shadow has a share of the batches, drawn for itself, so that a batch goes to any of them or to none. How many pass until
the next that goes to one is a word that kernels count down too: a batch that nobody gets costs a comparison, and kernels run
it as without shadows. A batch is drawn whatever is in it, so each request has the same chance.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from penstock_server.prediction.shadow import ShadowTarget

NEVER: Final = 1 << 62


class Shadows:
    """Draws which shadows get the next batch; on the reactor's thread.

    Args:
        arms: each shadow, with the share of the batches that it gets, above 0 and at most 1.
        fraction: a random number from 0 up to 1 at each call.

    Attributes:
        passing: int64 [2], how many batches pass before the next that a shadow gets, and the rows that have passed since the
            last. Kernels count there too.
        is_batched: every shadow may run whole batches; else a copy needs the batch's requests one by one.
        skips_repeats: drift of one of them counts no repeats.
        is_sampled: some batches are given to none.
    """

    def __init__(
        self, arms: Sequence[tuple[ShadowTarget, float]], fraction: Callable[[], float] = random.random
    ) -> None:
        self._arms = [_Arm(target, share, fraction) for target, share in arms]
        self.passing = np.zeros(2, np.int64)
        self.is_batched = all(target.is_batched for target, _ in arms)
        self.skips_repeats = any(target.skips_repeats for target, _ in arms)
        self.is_sampled = all(share < 1 for _, share in arms)
        self._wait()

    @property
    def is_due(self) -> bool:
        """Whether a shadow gets the next batch."""
        return bool(self.passing[0] <= 0)

    def draw(self, rows: int) -> Sequence[ShadowTarget]:
        """Takes a batch of so many rows, and says who gets it; the others count that it was not drawn for them."""
        if not self.is_due:
            self.passing[0] -= 1
            self.passing[1] += rows
            return ()
        passed_rows = int(self.passing[1])
        drawn = [arm.target for arm in self._arms if arm.take(self._passed, passed_rows, rows)]
        self._wait()
        return drawn

    def _wait(self) -> None:
        self._passed = min(arm.to_pass for arm in self._arms)
        self.passing[:] = self._passed, 0


class _Arm:
    """One shadow; `to_pass` batches pass before its next."""

    def __init__(self, target: ShadowTarget, share: float, fraction: Callable[[], float]) -> None:
        self.target = target
        self._log_passing = -math.inf if share >= 1 else math.log1p(-share)
        self._fraction = fraction
        self.to_pass = self._gap()

    def take(self, passed: int, passed_rows: int, rows: int) -> bool:
        """Whether it gets a batch of so many rows, before which others have passed that nobody got."""
        is_drawn = self.to_pass == passed
        self.to_pass = self._gap() if is_drawn else self.to_pass - passed - 1
        if left_out := passed_rows + (0 if is_drawn else rows):
            self.target.left_out(left_out)
        return is_drawn

    def _gap(self) -> int:
        """How many batches pass before the next: geometric, as if each were drawn by itself."""
        if self._log_passing == -math.inf:
            return 0
        return int(min(math.log1p(-self._fraction()) / self._log_passing, NEVER))
