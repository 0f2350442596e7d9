"""Chooses between a program and onnxruntime, by what both took for batches of some sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SIZES: Final = (1, 8, 64, 1024)
"""The batches that are timed."""
LIMITS: Final = (2, 16, 256)
"""Up to how many rows a batch is like each of them; more rows are like the last one."""
_MARGIN: Final = 1.05
"""How much faster kernels must be: times are noisy, and onnxruntime is what everybody knows."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which batches kernels serve.

    Attributes:
        by_size: for each of `SIZES` whether they do.
        reason: what serves, in a few words; a colon; what was measured, or why there are no kernels.
        proven_with: the key of the kernels that were proven and timed; "" where none were.
    """

    by_size: tuple[bool, ...]
    reason: str
    proven_with: str = ""

    @property
    def is_any(self) -> bool:
        """Whether kernels serve at all."""
        return any(self.by_size)

    def serves(self, rows: int) -> bool:
        """Whether kernels serve a batch of so many rows."""
        if rows <= LIMITS[0]:
            return self.by_size[0]
        if rows <= LIMITS[1]:
            return self.by_size[1]
        return self.by_size[2] if rows <= LIMITS[2] else self.by_size[3]


def none(why: str) -> Choice:
    """Onnxruntime serves everything."""
    return Choice((False,) * len(SIZES), f"onnxruntime: {why}")


def fastest(about: str, ours_s: Sequence[float], theirs_s: Sequence[float]) -> Choice:
    """The faster one for each of `SIZES`; `about` is what the program computes."""
    times = [theirs / max(ours, 1e-9) for ours, theirs in zip(ours_s, theirs_s, strict=True)]
    by_size = tuple(each >= _MARGIN for each in times)
    sizes = " / ".join(f"{size:,}" for size in SIZES)
    measured = f"{' / '.join(f'{each:.1f}' for each in times)} times as fast as onnxruntime for {sizes} rows"
    if not any(by_size):
        return none(f"kernels would be {measured}")
    if all(by_size):
        return Choice(by_size, f"kernels: {measured}; {about}")
    others = "onnxruntime serves the others; kernels are"
    return Choice(by_size, f"kernels {_batches(by_size)}: {others} {measured}; {about}")


def _batches(by_size: Sequence[bool]) -> str:
    """Which batches these are, in words.

    >>> _batches((True, True, False, False)), _batches((False, True, False, True))
    ('up to 16 rows', 'of 3 to 16 rows and above 256 rows')
    """
    spans: list[tuple[int, int | None]] = []
    for above, most, is_ours in zip((0, *LIMITS), (*LIMITS, None), by_size, strict=True):
        if is_ours and spans and spans[-1][1] == above:
            spans[-1] = spans[-1][0], most
        elif is_ours:
            spans.append((above, most))
    return " and ".join(_span(*each) for each in spans)


def _span(above: int, most: int | None) -> str:
    if most is None:
        return f"above {above} rows"
    return f"of {above + 1} to {most} rows" if above else f"up to {most} rows"
