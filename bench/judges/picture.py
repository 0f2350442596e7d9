"""Draws the judges: how many good versions each rolls back against how many faults it sees, and how soon it sees each fault."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.judges.table import Outcome, Summary, summaries

_COLOURS: Final = ("#0b7285", "#1098ad", "#66d9e8", "#ced4da", "#868e96", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c")
_NEVER: Final = 120.0
"""Where a fault that is not seen within the hour is drawn."""


def draw(found: Sequence[Outcome], file: Path) -> None:
    """Draws what came of the worlds, in the format of the file's suffix."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "penstock"})
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    _trade(left, summaries(found))
    _minutes(right, [each for each in found if each.world.has_fault])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e9ecef")
        axes.set_axisbelow(True)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _trade(axes: Any, judges: Sequence[Summary]) -> None:
    for each, colour in zip(judges, _COLOURS, strict=True):
        axes.plot(
            [100 * each.false, 100 * each.most_false], [100 * each.seen] * 2, color=colour, linewidth=1, alpha=0.6
        )
        axes.plot(100 * each.false, 100 * each.seen, "o", color=colour, label=each.judge)
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("good versions rolled back in an hour, %\n(mean over kinds of hours, with a line to the worst)")
    axes.set_ylabel("faults seen, %")


def _minutes(axes: Any, faults: Sequence[Outcome]) -> None:
    rows = np.arange(len(faults))
    judges = range(len(_COLOURS))
    for at, colour in zip(judges, _COLOURS, strict=True):
        minutes = [each.judges[at].minutes for each in faults]
        shown = [value if np.isfinite(value) else _NEVER for value in minutes]
        axes.plot(shown, rows + 0.08 * (at - 4), "o", color=colour, markersize=5, label=faults[0].judges[at].judge)
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 60, _NEVER], ["1", "2", "5", "10", "20", "60", "never"])
    axes.minorticks_off()
    axes.set_yticks(rows, [each.world.name for each in faults])
    axes.invert_yaxis()
    axes.set_xlabel("median minutes from the fault to the roll-back")
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
