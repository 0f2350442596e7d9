from dataclasses import replace

import pytest

from penstock_server.control.readiness import Signs, WorkerSigns, not_ready_reason
from penstock_server.control.view import VersionView
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.source import Desired

ANSWERS = WorkerSigns(is_listening=True, is_silent=False, has_plans=True)
WELL = Signs(is_stopping=False, was_ready=True, is_polled=True, unanswered=(), slots=2, workers=(ANSWERS, ANSWERS))
STARTING = replace(WELL, was_ready=False, workers=())
EMPTY, ONE = Desired(), Desired({"m": TrafficPlan("1")})
READY = (VersionView("m", "1", "READY", ("champion",)),)
BROKEN = (VersionView("m", "1", "UNAVAILABLE", reason="a digest is wrong"), VersionView("n", "1", "LOADING"))
DEAF = replace(ANSWERS, is_listening=False)
SILENT = replace(ANSWERS, is_silent=True)
IDLE = replace(ANSWERS, has_plans=False)

CASES: dict[str, tuple[Signs, Desired, tuple[VersionView, ...], str]] = {
    "all is well": (WELL, ONE, READY, ""),
    "nothing is desired": (replace(WELL, workers=(IDLE, IDLE)), EMPTY, (), ""),
    "it stops": (replace(WELL, is_stopping=True), ONE, READY, "the server is stopping"),
    "a source has not answered": (
        replace(WELL, unanswered=["a", "b"]), ONE, READY, "waiting for the first answer of a, b",
    ),
    "no source was asked": (
        replace(WELL, is_polled=False), EMPTY, (), "waiting for the first answer of the source of models",
    ),
    "the last known state is served": (replace(WELL, is_polled=False), ONE, READY, ""),
    "its champion is tried": (
        STARTING, ONE, (VersionView("m", "1", "LOADING", reason="waits to be tried"),),
        "starting: model 'm' version 1 waits to be tried",
    ),
    "its champion is loaded": (
        STARTING, ONE, (VersionView("m", "0", "LOADING"), VersionView("m", "1", "LOADING")),
        "starting: model 'm' version 1 is being loaded",
    ),
    "one worker is not there yet": (
        replace(WELL, was_ready=False, workers=(ANSWERS, DEAF)), ONE, READY,
        "starting: the workers do not accept calls yet",
    ),
    "all are there for the first time": (replace(WELL, was_ready=False), ONE, READY, ""),
    "a model that is no longer wanted is loaded": (
        STARTING, ONE, (VersionView("gone", "1", "LOADING"),), "starting: the workers do not accept calls yet",
    ),
    "one has no plans yet": (replace(WELL, workers=(ANSWERS, IDLE)), ONE, READY, ""),
    "later one is enough": (replace(WELL, workers=(ANSWERS, DEAF)), ONE, READY, ""),
    "one is silent": (replace(WELL, workers=(ANSWERS, SILENT)), ONE, READY, ""),
    "none accepts calls": (
        replace(WELL, workers=(DEAF,)), ONE, READY, "no worker accepts calls; new ones are being started",
    ),
    "all are gone": (replace(WELL, workers=()), ONE, READY, "no worker accepts calls; new ones are being started"),
    "all are silent": (
        replace(WELL, workers=(SILENT, SILENT)), ONE, READY, "no worker has shown a sign of life for 3 s",
    ),
    "no model answers": (
        replace(WELL, workers=(IDLE, IDLE)), ONE, BROKEN,
        "no model can answer: model 'm' version 1 unavailable: a digest is wrong; model 'n' version 1 is loading",
    ),
    "what is registered cannot be served": (
        replace(WELL, workers=(IDLE, IDLE)), Desired({}, dict.fromkeys("abcde", "why")), (),
        "no model can answer: model 'a': why; model 'b': why; model 'c': why; and 2 more",
    ),
    "three cannot be served": (
        replace(WELL, workers=(IDLE, IDLE)), Desired({}, dict.fromkeys("abc", "why")), (),
        "no model can answer: model 'a': why; model 'b': why; model 'c': why",
    ),
    "no model has a champion": (
        replace(WELL, workers=(IDLE, IDLE)), Desired({"m": TrafficPlan()}), (),
        "no model can answer: none has a champion",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_server_is_ready_when_something_can_be_answered(case: str) -> None:
    signs, desired, views, expected = CASES[case]
    assert not_ready_reason(signs, desired, views) == expected
