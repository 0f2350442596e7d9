import re

import pytest

from penstock_server.rollout.decision import VersionHealth, decide
from penstock_server.rollout.evidence import Evidence
from penstock_server.rollout.progress import Progress
from penstock_server.rollout.spec import parse

EDGES = (0.0, 0.01, 0.1, 1.0)
SPEC = parse('{"steps": [5, 50, 100], "hold": "10m", "requests": 1000, "gates": {"errors": 1.5}, "deadline": "1d"}')
SHADOWED = parse(
    '{"steps": [5, 100], "shadow": "1h", "shadow_rows": 500, "gates": {"errors": 1.5, "accuracy": 1, "distance": 0.1}}'
)
GOOD = {
    "requests": {"5": (5000, 95_000), "50": (9000, 9000)},
    "errors": {"5": (50, 950), "50": (90, 90)},
    "first_errors": {"5": (50, 950), "50": (90, 90)},
}
BAD = {"requests": {"5": (5000, 95_000)}, "errors": {"5": (200, 950)}, "first_errors": {"5": (200, 950)}}
FEW = {"requests": {"5": (999, 20_000), "50": (10, 10)}, "errors": {"5": (0, 0)}, "first_errors": {"5": (0, 0)}}
FEW_ERRORS = {"requests": {"50": (9000, 9000)}, "errors": {"50": (12, 11)}, "first_errors": {"50": (12, 11)}}
READY = VersionHealth()


def progress(stage: int, since_s: float = 0.0, spec: object = SPEC) -> Progress:
    return Progress(spec=spec, champion="1", status="running", stage=stage, is_applied=True, since_s=since_s)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stage", "now_s", "events", "health", "action", "said"),
    [
        (0, 599, GOOD, READY, "hold", "5 % for another 1 second"),
        (0, 600, GOOD, READY, "advance", "5 % is through"),
        (0, 600, FEW, READY, "hold", "999 of 1,000 requests at 5 %"),
        (0, 1, BAD, READY, "roll back", "errors: it fails on 4 % .* proven worse"),
        (0, 600, GOOD, VersionHealth(is_ready=False, reason="is being tried"), "hold", "to be ready: is being tried"),
        (0, 600, GOOD, VersionHealth(is_ready=False), "hold", "to be ready$"),
        (
            0,
            1,
            GOOD,
            VersionHealth(is_ready=False, is_refused=True, reason="golden rows differ"),
            "roll back",
            "golden rows differ",
        ),
        (1, 600, GOOD, READY, "promote", "shown to be within 1.5 times"),
        (1, 600, FEW_ERRORS, READY, "hold", "not shown to be within"),
        (1, 86_401, GOOD, READY, "hold", "not through after 1 day: it keeps its share and waits for somebody"),
        (0, 86_401, GOOD, READY, "hold", "not through after 1 day"),
        (1, 86_401, BAD, READY, "roll back", "proven worse"),
    ],
)  # fmt: skip
def test_what_is_done_and_why(
    stage: int,
    now_s: float,
    events: dict[str, dict[str, tuple[int, int]]],
    health: VersionHealth,
    action: str,
    said: str,
) -> None:
    decision = decide(progress(stage), Evidence(events), health, now_s, distance_edges=EDGES)
    assert decision.action == action
    assert re.search(said, decision.reason), decision.reason
    assert [gate.metric for gate in decision.gates] == ["errors"]


@pytest.mark.parametrize(
    ("evidence", "now_s", "action", "said"),
    [
        (Evidence(shadow=(400, 50, 49)), 3600, "hold", "499 of 500 rows"),
        (Evidence(shadow=(900, 0, 0)), 3600, "hold", "accuracy: .*; distance: .*"),
        (Evidence(shadow=(900, 0, 0), distances=(900, 0, 0, 0, 0), pairs=(9000, 50, 60, 890)), 3600, "advance", "shadow is"),
        (Evidence(shadow=(900, 0, 0), distances=(900, 0, 0, 0, 0), pairs=(9000, 50, 60, 890)), 3599, "hold", "another"),
        (Evidence(pairs=(9000, 800, 200, 0)), 60, "roll back", "accuracy: .*proven worse"),
    ],
)  # fmt: skip
def test_the_shadow_must_show_what_it_shows_best(evidence: Evidence, now_s: float, action: str, said: str) -> None:
    decision = decide(progress(0, spec=SHADOWED), evidence, READY, now_s, distance_edges=EDGES)
    assert decision.action == action
    assert re.search(said, decision.reason), decision.reason


def test_without_a_step_of_100_it_waits_for_somebody() -> None:
    spec = parse('{"steps": [50], "gates": {"errors": 1.5}}')
    decision = decide(progress(0, spec=spec), Evidence(GOOD), READY, 601, distance_edges=EDGES)
    assert (decision.action, decision.reason) == (
        "hold",
        "all steps are through; it keeps its share until somebody promotes it",
    )


def test_nothing_is_promoted_because_nothing_was_seen() -> None:
    """No request for as long as one likes."""
    for stage in (0, 1):
        for now_s in (600, 10_000, 86_000, 10**7):
            assert decide(progress(stage), Evidence(), READY, now_s, distance_edges=EDGES).action == "hold"
