"""Decides what becomes of a rollout now: hold, advance, promote or roll back, with the reason in a sentence.

Pure: record, evidence and time in, one decision out. Each metric has two tests that are valid however often one looks
(`rollout.gates`): one that the version is worse than the champion, which rolls it back at once, and one that it is not worse by
the margin, which the promotion waits for. So a decision may be asked for at any time, as often as one likes, and nothing is
promoted because nothing was seen.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from penstock_server.rollout.durations import duration_in_words
from penstock_server.rollout.evidence import REQUESTS, Evidence
from penstock_server.rollout.gates import Gate, gate_of
from penstock_server.rollout.progress import Progress
from penstock_server.rollout.spec import SHARES

Action = Literal["hold", "advance", "promote", "roll back"]


class VersionHealth(msgspec.Struct, frozen=True):
    """How the version stands on the servers.

    Attributes:
        is_ready: it answers on all that were asked.
        is_refused: it will not answer there as it is: it failed a check, or ended processes.
        reason: why, "" where nothing is wrong.
    """

    is_ready: bool = True
    is_refused: bool = False
    reason: str = ""


class Decision(msgspec.Struct, frozen=True):
    """What is to be done, why, and what each gate says."""

    action: Action
    reason: str
    gates: tuple[Gate, ...] = ()


def decide(
    progress: Progress, evidence: Evidence, health: VersionHealth, now_s: float, *, distance_edges: Sequence[float]
) -> Decision:
    """What becomes of a rollout that is running.

    Args:
        progress: its record.
        evidence: what is known.
        health: how the version stands.
        now_s: the time, in seconds since 1970.
        distance_edges: the upper ends of the cells of `Evidence.distances`.
    """
    spec = progress.spec
    gates = tuple(gate_of(metric, spec, evidence, distance_edges) for metric in spec.gates)
    worse = [gate for gate in gates if gate.is_worse]
    action: Action
    if health.is_refused:
        action, reason = "roll back", f"the version cannot be served: {health.reason}"
    elif worse:
        action, reason = "roll back", _sentences(worse)
    elif (waits_for := _waits_for(progress, evidence, health, gates, now_s)) is not None:
        action, reason = "hold", waits_for
    elif not progress.is_last:
        action, reason = "advance", f"{progress.present} is through"
    elif spec.is_promoted_after:
        action, reason = "promote", _sentences(gates)
    else:
        action, reason = "hold", "all steps are through; it keeps its share until somebody promotes it"
    return Decision(action, reason, gates)


def _waits_for(
    progress: Progress, evidence: Evidence, health: VersionHealth, gates: Sequence[Gate], now_s: float
) -> str | None:
    """What the present stage waits for; None if it is through."""
    spec, stage = progress.spec, progress.present
    left_s = progress.since_s + (spec.shadow_s if stage.is_shadow else spec.hold_s) - now_s
    count, needed, of = sum(evidence.shadow), spec.shadow_rows, "rows compared with the champion's"
    if not stage.is_shadow:
        count, needed, of = evidence.at(REQUESTS, stage.weight)[0], spec.requests, f"requests at {stage}"
    missing = _sentences([gate for gate in _asked_for(progress, gates) if not gate.is_within])
    if not health.is_ready:
        return f"waits for the version to be ready{f': {health.reason}' if health.reason else ''}"
    if now_s - progress.began_s > spec.deadline_s:
        over = f"not through after {duration_in_words(spec.deadline_s)}: it keeps its share and waits for somebody to decide"
        return f"{over}; {missing}" if missing else over
    if left_s > 0:
        return f"{stage} for another {duration_in_words(float(max(1, round(left_s))))}"
    if count < needed:
        return f"{count:,} of {needed:,} {of}"
    return missing or None


def _asked_for(progress: Progress, gates: Sequence[Gate]) -> Sequence[Gate]:
    """The gates that the present stage must show: the last one all, and the shadow what it shows better than a canary."""
    if progress.is_last:
        return gates
    return [gate for gate in gates if progress.present.is_shadow and gate.metric in (*SHARES, "accuracy")]


def _sentences(gates: Sequence[Gate]) -> str:
    return "; ".join(gate.sentence for gate in gates)
