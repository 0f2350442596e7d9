"""One step of a rollout: from what the registry says and what is known, to what is to be written.

Pure, and repeated from the registry's own words each time, so it does not matter who took the steps before, or whether all of
a step's writes were made: the next one writes what is missing. The record is written first, and its consequences after it
(`rollout.progress`).
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from penstock.names import CANARY, CHAMPION, SHADOW
from penstock_server.errors import InvalidInputError
from penstock_server.rollout.aliases import SAMPLE_TAG, WEIGHT_TAG
from penstock_server.rollout.decision import Decision, VersionHealth, decide
from penstock_server.rollout.evidence import Evidence, percent_text
from penstock_server.rollout.progress import (
    CANDIDATE,
    COMMAND_TAG,
    PROGRESS_TAG,
    SPEC_TAG,
    Progress,
    read_progress,
    wanted,
    write_progress,
)
from penstock_server.rollout.registered import Change, DeleteAlias, DeleteTag, RegisteredRollout, SetAlias, SetTag
from penstock_server.rollout.sequential import exceedance_edge
from penstock_server.rollout.spec import QUANTILES, Metric, RolloutSpec, parse

BOUND_REQUESTS = 1000
"""So many of the champion's requests say what its quantiles are."""
COMMANDS = ("pause", "resume", "advance", "abort")


class Known(msgspec.Struct, frozen=True):
    """What is known apart from the registry.

    Attributes:
        evidence: of this rollout.
        health: how the version stands.
        champion_latency: how many of the champion's requests took how long: the cells of its histogram.
        now_s: the time, in seconds since 1970.
        distance_edges: the upper ends of the cells of distances between scores.
    """

    evidence: Evidence
    health: VersionHealth
    champion_latency: Sequence[int]
    now_s: float
    distance_edges: Sequence[float]


class RolloutStep(msgspec.Struct, frozen=True):
    """What is to be written, in this order, and what there is to say.

    Attributes:
        progress: the record after it; None before a rollout begins.
        event: a line for the history; "" where nothing happened.
        decision: what was decided, if it was asked.
    """

    changes: tuple[Change, ...] = ()
    progress: Progress | None = None
    event: str = ""
    decision: Decision | None = None


def next_step(found: RegisteredRollout, known: Known) -> RolloutStep:
    """What is to be done about a rollout now.

    Args:
        found: what the registry says.
        known: what is known besides.
    """
    text = found.tags.get(PROGRESS_TAG)
    if text is None:
        return _begin(found, known)
    try:
        progress = read_progress(text)
    except InvalidInputError:
        # Somebody wrote over it: nothing is known of how far it was, so it ends.
        return _end(
            found, Progress(spec=RolloutSpec(), champion="", status="running"), "aborted", "its record is damaged"
        )
    if progress.has_ended:
        return RolloutStep(_missing(found, progress), progress)
    if (why := _somebody_else(found, progress)) is not None:
        # Where it is champion already, only its other roles are left to be taken.
        return _end(found, progress, "promoting" if found.aliases.get(CHAMPION) == found.version else "aborted", why)
    return _command(found, progress, known) or _go_on(found, progress, known)


def _go_on(found: RegisteredRollout, progress: Progress, known: Known) -> RolloutStep:
    """What is to be done about a rollout that nobody has interfered with."""
    missing = _missing(found, progress)
    if missing:
        return RolloutStep(missing, progress)
    if progress.status == "promoting":
        return _end(found, progress, "promoted", progress.reason)
    if not progress.is_applied:
        return _record(found, progress, "", is_applied=True, since_s=known.now_s)
    decision = decide(progress, known.evidence, known.health, known.now_s, distance_edges=known.distance_edges)
    return _act(found, progress, known, decision)


def _act(found: RegisteredRollout, progress: Progress, known: Known, decision: Decision) -> RolloutStep:
    match decision.action:
        case "roll back":
            step = _end(found, progress, "rolled_back", decision.reason)
        case "advance" | "promote" if progress.status == "paused":
            step = RolloutStep(progress=progress)
        case "advance":
            step = _advance(found, progress, known, decision.reason)
        case "promote":
            reason = f"all steps are through; {decision.reason}"
            step = _record(found, progress, f"promoting: {reason}", status="promoting", reason=reason)
        case _:
            step = RolloutStep(progress=progress)
    return msgspec.structs.replace(step, decision=decision)


def _begin(found: RegisteredRollout, known: Known) -> RolloutStep:
    champion = found.aliases.get(CHAMPION, "")
    if not champion or champion == found.version:
        return RolloutStep()  # there is nothing to compare it with, or nothing to do
    try:
        spec = parse(found.tags.get(SPEC_TAG, ""))
    except InvalidInputError as error:
        refused = Progress(
            spec=RolloutSpec(), champion=champion, status="refused", began_s=known.now_s, since_s=known.now_s,
            reason=str(error),
        )  # fmt: skip
        return RolloutStep(
            (SetTag(found.version, PROGRESS_TAG, write_progress(refused)), *_missing(found, refused)),
            refused,
            f"refused: {error}",
        )
    progress = Progress(
        spec=spec, champion=champion, status="running", stage=-1, began_s=known.now_s, since_s=known.now_s
    )
    return _advance(found, progress, known, f"begun beside champion {champion}")


def _advance(found: RegisteredRollout, progress: Progress, known: Known, reason: str) -> RolloutStep:
    """To the next stage; a canary's first one begins once it is known what slow is."""
    stage = progress.stage + 1
    bounds = progress.bounds
    asked = [metric for metric in progress.spec.gates if metric in QUANTILES]
    if asked and not bounds and not progress.spec.stages[stage].is_shadow:
        if (seen := sum(known.champion_latency)) < BOUND_REQUESTS:
            waiting = (
                f"waits for {BOUND_REQUESTS:,} requests of the champion, to know how long they take; {seen:,} so far"
            )
            return RolloutStep(progress=None if progress.stage < 0 else progress, decision=Decision("hold", waiting))
        bounds = bounds_of(asked, known.champion_latency)
    return _record(
        found,
        progress,
        f"{progress.spec.stages[stage]}: {reason}",
        stage=stage,
        bounds=bounds,
        is_applied=False,
        since_s=known.now_s,
        reason=reason,
    )


def bounds_of(metrics: Iterable[Metric], latency: Sequence[int]) -> dict[str, int]:
    """By metric, the cell of a champion's histogram above which a request is slow; the last with an end where none is."""
    cells = {metric: exceedance_edge(latency, QUANTILES[metric]) for metric in metrics}
    return {metric: len(latency) - 2 if cell is None else cell for metric, cell in cells.items()}


def _end(found: RegisteredRollout, progress: Progress, status: str, reason: str) -> RolloutStep:
    return _record(found, progress, f"{status.replace('_', ' ')}: {reason}", status=status, reason=reason)


def _record(found: RegisteredRollout, progress: Progress, event: str, **changed: object) -> RolloutStep:
    """A new record, and what follows from it."""
    after = msgspec.structs.replace(progress, **changed)
    return RolloutStep(
        (SetTag(found.version, PROGRESS_TAG, write_progress(after)), *_missing(found, after)), after, event
    )


def _somebody_else(found: RegisteredRollout, progress: Progress) -> str | None:
    """What somebody did to the model that ends the rollout; None if nobody did."""
    champion = found.aliases.get(CHAMPION, "")
    if champion == found.version and progress.status != "promoting":
        return "somebody promoted it"
    if champion not in (progress.champion, found.version):
        return (
            f"the champion is {champion or 'gone'}, no longer {progress.champion}: what is known compares it with that"
        )
    gone = sorted(
        alias for alias in wanted(progress).aliases - {CHAMPION, CANDIDATE} if found.aliases.get(alias) != found.version
    )
    if progress.is_applied and progress.status != "promoting" and gone:
        return f"somebody took its alias {gone[0]!r}"
    return None


def _command(found: RegisteredRollout, progress: Progress, known: Known) -> RolloutStep | None:
    """What somebody asked for, by a tag that goes when it is done."""
    asked = found.tags.get(COMMAND_TAG)
    if asked is None or progress.status == "promoting":
        return None
    done = DeleteTag(found.version, COMMAND_TAG)
    word, _, rest = asked.strip().partition(" ")
    at, _, who = rest.partition(" ")
    by = f" by {who[:100]}" if who else " by hand"
    match word:
        case "pause":
            step = _record(found, progress, f"paused{by}", status="paused", reason=f"paused{by}")
        case "resume":
            step = _record(
                found, progress, f"resumed{by}", status="running", reason=f"resumed{by}", began_s=known.now_s
            )
        case "abort":
            step = _end(found, progress, "aborted", f"aborted{by}")
        case "advance" if at in ("", str(progress.stage)):
            # It names the stage that it leads out of, so that it is done once however often it is read.
            step = _forced(found, progress, known, by)
        case _:
            step = RolloutStep(
                progress=progress, event=f"{asked[:60]!r} is no command or is done; known are {', '.join(COMMANDS)}"
            )
    return msgspec.structs.replace(step, changes=(*step.changes, done))


def _forced(found: RegisteredRollout, progress: Progress, known: Known, by: str) -> RolloutStep:
    if not progress.is_last:
        return _advance(found, msgspec.structs.replace(progress, status="running"), known, f"advanced{by}")
    reason = f"promoted{by}, whatever is known"
    return _record(found, progress, f"promoting: {reason}", status="promoting", reason=reason)


def _missing(found: RegisteredRollout, progress: Progress) -> tuple[Change, ...]:
    """What the registry does not say yet. Weights before aliases: nobody may see the new canary with an old weight."""
    want, changes = wanted(progress), list[Change]()
    for key, percent in ((WEIGHT_TAG, want.weight), (SAMPLE_TAG, want.sample)):
        if percent is not None and not _is(found.tags, key, percent):
            changes.append(SetTag(found.version, key, percent_text(percent / 100)))
    order = (CHAMPION, CANARY, SHADOW, CANDIDATE)
    changes += [
        SetAlias(alias, found.version)
        for alias in order
        if alias in want.aliases and found.aliases.get(alias) != found.version
    ]
    changes += [
        DeleteAlias(alias) for alias in order if alias in want.not_aliases and found.aliases.get(alias) == found.version
    ]
    return tuple(changes)


def _is(tags: Mapping[str, str], key: str, percent: float) -> bool:
    try:
        return abs(float(tags[key]) - percent) < 1e-9
    except (KeyError, ValueError):
        return False
