"""How the shadows compare with their champions, as /v1/shadows tells it: totals of all workers since a version was loaded."""

from collections.abc import Sequence
from typing import Any

import msgspec
from numpy.typing import NDArray

from penstock.names import SHADOW
from penstock_server.metrics.counters import (
    SCORE_EDGES,
    SHADOW_DROPS,
    SHADOW_RESULTS,
    TIME_RATIO_EDGES,
)
from penstock_server.metrics.prometheus import VersionSnapshot, class_pairs, summed


class ClassPair(msgspec.Struct, frozen=True):
    """Rows to which the champion gave one class and the shadow another, or the same."""

    champion: str
    shadow: str
    rows: int


class Cell(msgspec.Struct, frozen=True):
    """What is at most so much, and more than the cell before; None for what is more than all."""

    at_most: float | None
    count: int


class ShadowReport(msgspec.Struct, frozen=True):
    """One version that is a shadow, or was one.

    Attributes:
        is_shadow: it is one now.
        sample: how many of the champion's batches it gets, in percent; None while it is no shadow.
        rows: by result, of rows that the champion answered: `agree` and `disagree` were compared, of `failed` the shadow's run
            failed, and `refused` the shadow refuses.
        dropped: rows that were not copied, by reason.
        agreement: the share of agreeing among the compared rows; None before the first.
        classes: rows by both classes; none for models without classes.
        score_distance: rows by how far apart the scores are.
        time_ratio: the shadow's time for all its batches over the champion's for the same; None before the first.
        time_ratios: batches by the same ratio of each.
        slower: the share of its batches for which the shadow took longer than the champion; None before the first.
    """

    model: str
    version: str
    is_shadow: bool
    sample: float | None
    rows: dict[str, int]
    dropped: dict[str, int]
    agreement: float | None
    classes: tuple[ClassPair, ...]
    score_distance: tuple[Cell, ...]
    time_ratio: float | None
    time_ratios: tuple[Cell, ...]
    slower: float | None


def reports(versions: Sequence[VersionSnapshot]) -> list[ShadowReport]:
    """A report for each version that is a shadow or that has been compared."""
    return [report(version) for version in versions if is_shadowing(version)]


def to_json(versions: Sequence[VersionSnapshot]) -> bytes:
    """What /v1/shadows shows."""
    return msgspec.json.encode({"shadows": reports(versions)})


def is_shadowing(version: VersionSnapshot) -> bool:
    """Whether a version is a shadow or has been one since it was loaded."""
    return (
        SHADOW in version.roles
        or bool(summed(version.counters, "shadow").any())
        or bool(summed(version.counters, "shadow_drops").any())
    )


def report(version: VersionSnapshot) -> ShadowReport:
    """The report of one version."""
    workers = version.counters
    rows = dict(zip(SHADOW_RESULTS, summed(workers, "shadow").tolist(), strict=True))
    compared = rows["agree"] + rows["disagree"]
    champion_ns, shadow_ns = summed(workers, "pair_ns").tolist()
    ratios = summed(workers, "time_ratios")
    batches = int(ratios.sum())
    return ShadowReport(
        version.model,
        version.version,
        is_shadow=SHADOW in version.roles,
        sample=None if version.fraction is None else 100 * version.fraction,
        rows=rows,
        dropped=dict(zip(SHADOW_DROPS, summed(workers, "shadow_drops").tolist(), strict=True)),
        agreement=rows["agree"] / compared if compared else None,
        classes=tuple(ClassPair(*names, count) for names, count in class_pairs(version).items()),
        score_distance=_cells(SCORE_EDGES, summed(workers, "scores")),
        time_ratio=shadow_ns / champion_ns if champion_ns else None,
        time_ratios=_cells(TIME_RATIO_EDGES, ratios),
        slower=int(ratios[TIME_RATIO_EDGES.index(1.0) + 1 :].sum()) / batches if batches else None,
    )


def _cells(edges: Sequence[float], counts: NDArray[Any]) -> tuple[Cell, ...]:
    return tuple(Cell(edge, int(count)) for edge, count in zip((*edges, None), counts.tolist(), strict=True))
