"""The figures of drift for all columns at once: which of them can be said of which column, and what they are.

Pure. `drift_evaluation` makes records of them; what a figure means, `drift` and `drift_evidence` say.
"""

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift import significance as drift_evidence
from penstock_server.drift import statistics as drift
from penstock_server.drift.reference import Reference
from penstock_server.drift.statistics import Reals
from penstock_server.features.counts import Counts
from penstock_server.features.layout_counts import EXTRA_CELLS

Said = list[float | None]
"""A figure for each column; None where it cannot be said."""


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """A list for each figure of `drift_state.ColumnDrift`, in the columns' order."""

    is_enough: list[bool]
    needed: list[int]
    effect: list[float]
    jensen_shannon: Said
    psi: Said
    psi_unbiased: Said
    p_value: Said
    ks: Said
    ks_slack: Said
    wasserstein: Said


def figures_of(reference: Reference, now: Counts, minimum_effect: float | None) -> Figures:
    """The figures of a window.

    Args:
        reference: what it is held against.
        now: the counts of the same columns.
        minimum_effect: the index that is called no drift, for all columns; None as the reference says.
    """
    known = reference.cells
    is_enough = drift.enough_rows(known, now.cells)
    effect = reference.minimum_effect if minimum_effect is None else np.full(len(known), minimum_effect)
    pair = known[is_enough], now.cells[is_enough]
    p_value = drift_evidence.p_value(*pair, effect[is_enough], reference.dispersion[is_enough])
    ks, slack, distance = _of_numbers(reference, now, is_enough)
    return Figures(
        is_enough=is_enough.tolist(),
        needed=drift.rows_needed(known, now.cells).tolist(),
        effect=effect.tolist(),
        jensen_shannon=_spread(drift.jensen_shannon(*pair), is_enough),
        psi=_spread(drift.psi(*pair), is_enough),
        psi_unbiased=_spread(drift.psi_unbiased(*pair), is_enough),
        p_value=_spread(p_value, is_enough),
        ks=ks,
        ks_slack=slack,
        wasserstein=distance,
    )


def _of_numbers(reference: Reference, now: Counts, is_enough: NDArray[np.bool_]) -> tuple[Said, Said, Said]:
    """The figures of finite numbers, where both sides have some."""
    known, current = reference.cells[:, :-EXTRA_CELLS], now.cells[:, :-EXTRA_CELLS]
    chosen = reference.is_number & is_enough & known.any(axis=1) & current.any(axis=1)
    pair = known[chosen], current[chosen]
    ks, slack = drift.kolmogorov_smirnov(*pair)
    distance = drift.wasserstein(*pair, (reference.sums[chosen], now.sums[chosen]), reference.edges[chosen])
    with np.errstate(divide="ignore", invalid="ignore"):
        in_deviations = distance / reference.deviation[chosen]
    return _spread(ks, chosen), _spread(slack, chosen), _spread(in_deviations, chosen)


def _spread(values: Reals, chosen: NDArray[np.bool_]) -> Said:
    """Values of the chosen columns at their places; None at the others', and where a value is none."""
    found: Said = [None] * len(chosen)
    for at, value in zip(np.flatnonzero(chosen).tolist(), values.tolist(), strict=True):
        found[at] = value if isfinite(value) else None
    return found
