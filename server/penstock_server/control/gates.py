"""Decides which versions that passed the airlock stay out all the same: those that are too large, or too slow. Pure.

Both compare what the airlock measured: a version's memory with what is left of a budget, and its time with that of the version
that it is to replace. A version that is loaded stays loaded, whatever these say: they are asked before traffic, not after.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from penstock.names import VersionKey
from penstock_server.control.settings import AirlockSettings
from penstock_server.control.verdict import Verdict

ROWS: Final = (1, 64)
"""The batches whose times are compared."""
NOISE_S: Final = 200e-6
"""A batch that takes so little longer is not slower: the airlock measures on a machine that does other things."""
_MEBIBYTE: Final = 1 << 20


def refusals(
    order: Sequence[VersionKey],
    verdicts: Mapping[VersionKey, Verdict],
    *,
    loaded: AbstractSet[VersionKey],
    answering: Mapping[str, str],
    settings: AirlockSettings,
) -> dict[VersionKey, str]:
    """Why versions stay out, each in one sentence.

    Args:
        order: the versions to load, the most important first: those have the memory.
        verdicts: of all of them that passed the airlock, and of those that are loaded.
        loaded: what some worker has loaded already, from the same files.
        answering: the version that answers for a model now.
        settings: the bounds.
    """
    found: dict[VersionKey, str] = {}
    used_bytes = sum(verdicts[key].memory_bytes for key in loaded if key in verdicts)
    for key in order:
        verdict = verdicts.get(key)
        if verdict is None or key in loaded:
            continue
        former = (key[0], answering.get(key[0], ""))
        reason = _too_slow(verdict, former[1], verdicts.get(former), settings.latency_factor)
        reason = reason or _too_large(verdict, used_bytes, settings.memory_budget_mib)
        if reason:
            found[key] = reason
        else:
            used_bytes += verdict.memory_bytes
    return found


def _too_large(verdict: Verdict, used_bytes: int, budget_mib: int | None) -> str:
    if budget_mib is None or used_bytes + verdict.memory_bytes <= budget_mib * _MEBIBYTE:
        return ""
    return (
        f"needs about {_mib(verdict.memory_bytes)} MiB, and the other versions {_mib(used_bytes)} of the {budget_mib:,} MiB "
        "that airlock.memory_budget_mib allows"
    )


def _too_slow(verdict: Verdict, former: str, of_former: Verdict | None, factor: float | None) -> str:
    if factor is None or of_former is None or of_former is verdict or not of_former.is_timed:
        return ""
    for rows in ROWS:
        took_s, before_s = verdict.batch_s(rows), of_former.batch_s(rows)
        if took_s > factor * before_s + NOISE_S:
            return (
                f"a batch of {rows} takes {took_s * 1e3:.3g} ms and one of version {former}, which it is to replace, "
                f"{before_s * 1e3:.3g} ms; airlock.latency_factor allows {factor:g} times as long"
            )
    return ""


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MEBIBYTE:,.0f}"
