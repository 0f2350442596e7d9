"""Decides which models a worker has in memory when not all of them fit: a pure function of what is known of them.

A model comes in when a call asks for it, and the least recently used ones leave for it. A model leaves only while it has no
calls and is not pinned, and only when nobody has asked it for a while: with more models in use than fit, those that do not get
in wait or are refused, instead of all of them being loaded over and over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

EvictionReason = Literal["room", "measured"]
EVICTION_REASONS: Final[tuple[EvictionReason, ...]] = ("room", "measured")
"""A model left since another one was asked for; or since the process took more memory than the budget."""

LOW_SHARE: Final = 0.95
"""When models leave, so many do that this share of the budget is taken at most: the next ones asked for find room at once."""
_MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """A model that a worker has in memory, or has been told to load.

    Attributes:
        size_bytes: what its versions take, by what they took when they were tried.
        used_s: when it last answered, or was asked for.
        since_s: when it was let in.
        is_pinned: it never leaves.
        is_busy: calls of it wait or run.
    """

    size_bytes: int
    used_s: float
    since_s: float
    is_pinned: bool = False
    is_busy: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to change in a worker.

    Attributes:
        let_in: the models to load, in this order.
        evict: the models to unload, each with the reason.
        too_large: the models that will never fit, each with a sentence.
    """

    let_in: tuple[str, ...] = ()
    evict: Mapping[str, EvictionReason] = field(default_factory=dict)
    too_large: Mapping[str, str] = field(default_factory=dict)


def changes(
    held: Mapping[str, Held],
    asked: Mapping[str, int],
    *,
    used_bytes: int,
    budget_bytes: int,
    stay_s: float,
    now_s: float,
    is_loading: bool = False,
) -> Changes:
    """Which models come and which go.

    Those that are asked for come in the order in which they were asked for. One for which no room can be made now holds up
    those behind it: otherwise small models would keep a large one out for ever.

    Args:
        held: what the worker has in memory, or will have.
        asked: what each model takes that callers wait for and the worker has not, in bytes, in the order of the asking.
        used_bytes: what the worker's process takes with all of `held`, and with nothing else that is about to go.
        budget_bytes: what it may take.
        stay_s: how long a model stays at least after it was let in, asked for, or answered.
        now_s: the time.
        is_loading: something is being loaded, which may count twice: it is said not before it is over that a model never fits.
    """
    may_go = [
        name
        for name, one in sorted(held.items(), key=lambda item: item[1].used_s)
        if not one.is_pinned and not one.is_busy and now_s - max(one.since_s, one.used_s) >= stay_s
    ]
    free_bytes = budget_bytes - used_bytes
    # What is taken with every model gone that is not pinned.
    rest_bytes = used_bytes - sum(one.size_bytes for one in held.values() if not one.is_pinned)
    let_in: list[str] = []
    evict: dict[str, EvictionReason] = {}
    too_large: dict[str, str] = {}
    for name, size_bytes in asked.items():
        if rest_bytes + size_bytes > budget_bytes:
            if is_loading:
                break
            too_large[name] = _too_large(size_bytes, rest_bytes, budget_bytes)
            continue
        if size_bytes > free_bytes:
            going = _going(held, may_go, size_bytes - free_bytes, slack_bytes=_slack_bytes(budget_bytes))
            if going is None:
                break
            evict |= dict.fromkeys(going, "room")
            free_bytes += sum(held[each].size_bytes for each in going)
            may_go = may_go[len(going) :]
        free_bytes -= size_bytes
        let_in.append(name)
    if free_bytes < 0:
        # The process has grown.
        going = _most_going(held, may_go, -free_bytes, slack_bytes=_slack_bytes(budget_bytes))
        evict |= dict.fromkeys(going, "measured")
    return Changes(tuple(let_in), evict, too_large)


def _slack_bytes(budget_bytes: int) -> int:
    return int(budget_bytes * (1 - LOW_SHARE))


def _going(held: Mapping[str, Held], may_go: list[str], least_bytes: int, *, slack_bytes: int) -> list[str] | None:
    """The first of these models that free so much, and some slack if they can; None if all of them do not free enough."""
    going = _most_going(held, may_go, least_bytes, slack_bytes=slack_bytes)
    return going if sum(held[each].size_bytes for each in going) >= least_bytes else None


def _most_going(held: Mapping[str, Held], may_go: list[str], least_bytes: int, *, slack_bytes: int) -> list[str]:
    """The first of these models that free so much and some slack; all of them if they do not."""
    going: list[str] = []
    freed_bytes = 0
    for name in may_go:
        if freed_bytes >= least_bytes + slack_bytes:
            break
        going.append(name)
        freed_bytes += held[name].size_bytes
    return going


def _too_large(size_bytes: int, rest_bytes: int, budget_bytes: int) -> str:
    return (
        f"needs about {_mib(size_bytes)} MiB, and the worker takes {_mib(rest_bytes)} MiB without the models that may leave; "
        f"residency.memory_budget_mib leaves {_mib(budget_bytes)}"
    )


def _mib(size_bytes: int) -> str:
    return f"{max(0, size_bytes) / _MEBIBYTE:,.0f}"
