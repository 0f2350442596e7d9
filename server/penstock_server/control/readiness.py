"""Decides whether the server is ready, which means that something can be answered, and says why when it is not."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock_server.control.view import VersionView
from penstock_server.sources.source import Desired

SILENT_S: Final = 3.0
"""A worker that is silent for this long does not count as answering: its loop comes round once a second or more often."""
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class WorkerSigns:
    """What readiness asks of one worker: it accepts calls, its loop is silent, it has plans in force."""

    is_listening: bool
    is_silent: bool
    has_plans: bool


@dataclass(frozen=True, slots=True)
class Signs:
    """What readiness depends on.

    Attributes:
        is_stopping: the server drains.
        was_ready: it has been ready before; then one worker is enough, and before that all of them are needed.
        is_polled: the sources have been asked once.
        unanswered: the sources of which nothing is known.
        slots: how many workers there are to be.
        workers: those there are.
    """

    is_stopping: bool
    was_ready: bool
    is_polled: bool
    unanswered: Sequence[str]
    slots: int
    workers: Collection[WorkerSigns]


def not_ready_reason(signs: Signs, desired: Desired, views: Sequence[VersionView]) -> str:
    """Why nothing can be answered, in one sentence; "" when something can.

    Args:
        signs: what is known of the server.
        desired: what it should serve.
        views: how far its versions are.
    """
    return next(_reasons(signs, desired, views), "")


def _reasons(signs: Signs, desired: Desired, views: Sequence[VersionView]) -> Iterator[str]:
    if signs.is_stopping:
        yield "the server is stopping"
    if signs.unanswered:
        yield f"waiting for the first answer of {', '.join(signs.unanswered)}"
    if not signs.is_polled and not desired.models:
        yield "waiting for the first answer of the source of models"
    listening = [worker for worker in signs.workers if worker.is_listening]
    if not signs.was_ready and len(listening) < signs.slots:
        yield _what_starts(desired, views)
    if not listening:
        yield "no worker accepts calls; new ones are being started"
    answering = [worker for worker in listening if not worker.is_silent]
    if not answering:
        yield f"no worker has shown a sign of life for {SILENT_S:g} s"
    if (desired.models or desired.problems) and not any(worker.has_plans for worker in answering):
        yield f"no model can answer: {_why_none(views, desired.problems)}"


def _what_starts(desired: Desired, views: Sequence[VersionView]) -> str:
    for view in views:
        plan = desired.models.get(view.model)
        if view.state == "LOADING" and plan is not None and view.version == plan.champion:
            return f"starting: model {view.model!r} version {view.version} {view.reason or 'is being loaded'}"
    return "starting: the workers do not accept calls yet"


def _why_none(views: Sequence[VersionView], problems: Mapping[str, str]) -> str:
    """The reason of each model that nothing answers for; of many, the first ones."""
    reasons = {
        view.model: f"model {view.model!r} version {view.version} {view.state.lower()}: {view.reason}"
        if view.reason
        else f"model {view.model!r} version {view.version} is {view.state.lower()}"
        for view in views
    }
    reasons |= {model: f"model {model!r}: {problem}" for model, problem in problems.items() if problem}
    shown = [reasons[model] for model in sorted(reasons)] or ["none has a champion"]
    more = f"; and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return "; ".join(shown[:_SHOWN]) + more
