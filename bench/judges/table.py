"""What came of worlds and judges: simulated in parts, summed up, and written as tables in Markdown."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.judges import rules
from bench.judges.rules import ALPHA, JUDGES, Judge, Reals
from bench.judges.worlds import MINUTES, Seen, World

PART: Final = 250
"""Runs that are simulated at a time, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one judge made of one world.

    Attributes:
        judge, world: their names.
        runs: how many hours were simulated.
        false: the share that was rolled back without a fault, or before it came.
        seen: the share that was rolled back after the fault came; None without a fault.
        minutes: the median from the fault to the roll-back, infinite where less than half was rolled back.
        met: the share of the hour's requests that the version with the fault answered; None where it answers none.
    """

    judge: str
    world: str
    runs: int
    false: float
    seen: float | None = None
    minutes: float = np.inf
    met: float | None = None

    @property
    def is_within_alpha(self) -> bool:
        """Whether its false roll-backs are at most alpha, as far as so many runs can tell."""
        return self.false <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / self.runs) ** 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one world.

    Attributes:
        world: which.
        judges: what each judge made of it.
        promoted: the share of runs that Penstock shows to be within its margins in the hour, and the median of the minutes.
    """

    world: World
    judges: tuple[Found, ...]
    promoted: tuple[float, float]


def outcomes(
    worlds: Sequence[World], runs: int, seed: int, *, on_part: Callable[[str], object] = lambda _: None
) -> Iterator[Outcome]:
    """Simulates each world; `on_part` is called with its name after each part of the runs."""
    for world, seeds in zip(worlds, np.random.SeedSequence(seed).spawn(len(worlds)), strict=True):
        sizes = [min(PART, runs - start) for start in range(0, runs, PART)]
        minutes: list[list[Reals]] = [[] for _ in JUDGES]
        met: list[list[Reals]] = [[] for _ in JUDGES]
        promoted = []
        for size, part in zip(sizes, seeds.spawn(len(sizes)), strict=True):
            seen = world.simulate(np.random.default_rng(part), size)
            for at, judge in enumerate(JUDGES):
                minutes[at].append(judge.rule(seen))
                met[at].append(_met(seen, world.faulty, minutes[at][-1]))
            promoted.append(rules.promoted(seen))
            on_part(world.name)
        judged = [
            _found(judge, world, *map(np.concatenate, each)) for judge, *each in zip(JUDGES, minutes, met, strict=True)
        ]
        when = np.concatenate(promoted)
        yield Outcome(world, tuple(judged), (float(np.isfinite(when).mean()), float(np.median(when))))


def _found(judge: Judge, world: World, minutes: Reals, met: Reals) -> Found:
    if not world.has_fault:
        return Found(judge.name, world.name, len(minutes), float(np.isfinite(minutes).mean()))
    # A fault that comes in minute 30 is seen in minute 31 at the soonest.
    began = int(world.faulty.argmax())
    is_early = minutes <= began
    after = minutes[~is_early] - began
    return Found(
        judge.name,
        world.name,
        len(minutes),
        float(is_early.mean()),
        float(np.isfinite(after).sum() / len(minutes)),
        float(np.median(after)) if len(after) else np.inf,
        float(met.mean()) if np.isfinite(met).all() else None,
    )


def _met(seen: Seen, faulty: NDArray[np.bool_], minutes: Reals) -> Reals:
    """[runs] the share of all requests that the canary answered with its fault, before it was rolled back."""
    is_met = faulty & (np.arange(MINUTES) < minutes[:, None])
    total = seen.requests.sum(axis=(0, 2))
    served = np.where(is_met, seen.requests[1], 0).sum(axis=1)
    return np.divide(served, total, out=np.full(len(total), np.nan), where=total > 0)


@dataclass(frozen=True, slots=True)
class Summary:
    """A judge over all worlds: the mean and the largest share of false roll-backs, of faults seen, and of requests that
    met one."""

    judge: str
    false: float
    most_false: float
    seen: float
    met: float


def summaries(found: Sequence[Outcome]) -> list[Summary]:
    """One for each judge, over the worlds with a canary, which all judges see."""
    of_judge = [[each.judges[at] for each in found if each.world.has_canary] for at in range(len(JUDGES))]
    return [
        Summary(
            judge.name,
            fmean(each.false for each in every if each.seen is None),
            max(each.false for each in every if each.seen is None),
            fmean(each.seen for each in every if each.seen is not None),
            fmean(each.met or 0.0 for each in every if each.seen is not None),
        )
        for judge, every in zip(JUDGES, of_judge, strict=True)
    ]


def markdown(found: Sequence[Outcome]) -> str:
    """Three tables: the judges, what they say without a fault, and with one."""
    quiet = [each for each in found if not each.world.has_fault]
    faults = [each for each in found if each.world.has_fault]
    names = [judge.name for judge in JUDGES]
    runs = found[0].judges[0].runs
    parts = [
        f"{runs:,} simulated hours of each kind.",
        _table(
            ["judge", "good versions rolled back", "at worst", "faults seen", "requests that met the fault"],
            [
                [each.judge, _percent(each.false), _percent(each.most_false), _percent(each.seen), _percent(each.met)]
                for each in summaries(found)
            ],
        ),
        "Good versions rolled back within the hour, and at last how many Penstock shows to be as good, with the median time:",
        _table(
            ["both versions alike", *names, "shown as good"],
            [
                [
                    f"**{each.world.name}**: {each.world.text}",
                    *(_percent(one.false) for one in each.judges),
                    _promoted(each),
                ]
                for each in quiet
            ],
        ),
        "Faults seen within the hour, and the median of the minutes from the fault to the roll-back:",
        _table(
            ["fault", *names],
            [[f"**{each.world.name}**: {each.world.text}", *map(_seen, each.judges)] for each in faults],
        ),
        "The rules:",
        "\n".join(f"- {judge.name}: {judge.source}" for judge in JUDGES),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"


def _seen(found: Found) -> str:
    if not found.seen:
        return "-"
    early = f", {_percent(found.false)} before" if found.false > ALPHA else ""
    minutes = f"{found.minutes:.0f} min" if np.isfinite(found.minutes) else "over an hour"
    return f"{_percent(found.seen)}, {minutes}{early}"


def _promoted(outcome: Outcome) -> str:
    share, minutes = outcome.promoted
    return f"{_percent(share)}, {minutes:.0f} min" if np.isfinite(minutes) else _percent(share)
