"""A rollout's steps against a registry that takes all of a step's changes, or only the first few."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.rollout.decision import VersionHealth
from penstock_server.rollout.evidence import Evidence
from penstock_server.rollout.progress import COMMAND_TAG, PROGRESS_TAG, SPEC_TAG, read_progress
from penstock_server.rollout.registered import DeleteAlias, SetAlias, SetTag
from penstock_server.rollout.step import Known, RolloutStep, next_step
from tests.server.rollout.tagged import TaggedModel

EDGES = (0.0, 1.0)
SPEC = '{"steps": [5, 50, 100], "hold": 60, "requests": 100, "gates": {"errors": 1.5, "p99": 2}}'
SHADOWED = '{"steps": [20, 100], "shadow": "1m", "shadow_rows": 10, "sample": 30, "gates": {"errors": 1.5}}'
LATENCY = (1000, 8900, 90, 10)
"""The champion's requests: 99 % are within the second edge."""
GOOD = Evidence(
    {
        "requests": {"5": (5000, 95_000), "20": (9000, 36_000), "50": (9000, 9000)},
        "errors": {"5": (50, 950), "50": (90, 90), "20": (90, 360)},
        "first_errors": {"5": (50, 950), "50": (90, 90), "20": (90, 360)},
        "p99": {"5": (50, 950), "50": (90, 90)},
    },
    (90, 0, 0),
)
READY = VersionHealth()
BAD = Evidence({"requests": {"5": (5000, 95_000)}, "errors": {"5": (500, 950)}, "first_errors": {"5": (500, 950)}})


def known(
    now_s: float, evidence: Evidence = GOOD, health: VersionHealth = READY, latency: tuple[int, ...] = LATENCY
) -> Known:
    return Known(evidence, health, latency, now_s, EDGES)


def begun(spec: str = SPEC, now_s: float = 0.0) -> TaggedModel:
    model = TaggedModel(tags={SPEC_TAG: spec})
    step(model, now_s)
    return model


def step(model: TaggedModel, now_s: float, evidence: Evidence = GOOD, **others: object) -> RolloutStep:
    found = next_step(model.found, known(now_s, evidence, **others))  # type: ignore[arg-type]
    model.make(found.changes)
    return found


def test_a_good_version_goes_all_the_way() -> None:
    model = begun()
    assert (model.progress.status, model.progress.stage, model.weight) == ("running", 0, "5")
    assert model.progress.bounds == {"p99": 1}
    events = [step(model, now_s).event for now_s in range(1, 200, 3)]
    happened = [event for event in events if event]
    assert happened[0] == "50 %: 5 % is through"
    assert happened[1].startswith(
        "promoting: all steps are through; errors: it fails on 1 % of 23,000 requests, the champion on 1 %"
    )
    assert "p99 did on 0.609 % of 23,000 requests, the champion on 0.743 %: shown to be within 2 times" in happened[1]
    assert [event.partition(":")[0] for event in happened] == ["50 %", "promoting", "promoted"]
    assert model.aliases == {"champion": "2"}
    assert model.champions == ["1", "2"]
    assert model.progress.status == "promoted"
    assert not step(model, 1000).changes


def test_the_clock_of_a_stage_starts_when_the_registry_says_what_it_needs() -> None:
    model = begun(now_s=0)
    assert step(model, 30).changes  # it is in force now
    assert (model.progress.is_applied, model.progress.since_s) == (True, 30)
    assert not step(model, 89).changes
    assert step(model, 90).event.startswith("50 %")


def test_a_shadow_comes_first() -> None:
    model = begun(SHADOWED)
    assert (model.aliases.get("shadow"), model.weight, model.tags["penstock.sample"]) == ("2", None, "30")
    step(model, 1)
    assert not step(model, 60).changes
    assert step(model, 61).event == "20 %: shadow is through"
    assert (model.aliases.get("shadow"), model.weight) == (None, "20")


def test_a_bad_version_is_rolled_back_by_one_write() -> None:
    model = begun()
    step(model, 1)
    found = next_step(model.found, known(2, BAD))
    first = found.changes[0]
    assert isinstance(first, SetTag)
    assert first.key == PROGRESS_TAG
    assert read_progress(first.value).status == "rolled_back"  # which servers read as a weight of none
    assert found.event.startswith("rolled back: errors: it fails on 10 % of 5,000 requests")
    model.make(found.changes)
    assert model.aliases == {"champion": "1"}
    assert not step(model, 3).changes


@pytest.mark.parametrize(
    ("health", "event"),
    [
        (
            VersionHealth(is_ready=False, is_refused=True, reason="golden rows differ"),
            "rolled back: the version cannot be served: golden",
        ),
        (VersionHealth(is_ready=False, reason="is being tried"), ""),
    ],
)
def test_a_version_that_cannot_be_served_goes_back_and_one_that_is_not_ready_waits(
    health: VersionHealth, event: str
) -> None:
    model = begun()
    step(model, 1)
    assert step(model, 100, health=health).event.startswith(event)
    assert (model.progress.status == "rolled_back") is bool(event)


def test_it_begins_when_it_is_known_how_long_the_champion_takes() -> None:
    model = TaggedModel(tags={SPEC_TAG: SPEC})
    found = step(model, 0, latency=(900, 99, 0, 0))
    assert not found.changes
    assert found.decision is not None
    assert "waits for 1,000 requests of the champion, to know how long they take; 999 so far" in found.decision.reason
    assert step(model, 1, latency=(900, 100, 0, 0)).changes


def test_a_wrong_declaration_is_refused_once_and_nothing_is_served() -> None:
    model = begun('{"steps": [50, 5]}')
    assert model.progress.status == "refused"
    assert "expected rising percentages" in model.progress.reason
    assert model.aliases == {"champion": "1"}
    assert not step(model, 1).changes


@pytest.mark.parametrize("champion", [None, "2"])
def test_without_another_champion_nothing_begins(champion: str | None) -> None:
    model = TaggedModel({"candidate": "2", **({"champion": champion} if champion else {})}, {SPEC_TAG: SPEC})
    assert step(model, 0) == RolloutStep()


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        (SetAlias("champion", "2"), "promoted", "somebody promoted it"),
        (SetAlias("champion", "3"), "aborted", "the champion is 3, no longer 1"),
        (DeleteAlias("champion"), "aborted", "the champion is gone, no longer 1"),
        (DeleteAlias("canary"), "aborted", "somebody took its alias 'canary'"),
        (SetAlias("canary", "3"), "aborted", "somebody took its alias 'canary'"),
        (SetTag("2", PROGRESS_TAG, "{"), "aborted", "its record is damaged"),
    ],
)
def test_what_somebody_does_by_hand_ends_it(change: object, status: str, reason: str) -> None:
    model = begun()
    step(model, 1)
    model.make([change])  # type: ignore[list-item]
    others = {alias: version for alias, version in model.aliases.items() if version != "2"}
    step(model, 2)
    step(model, 2)
    assert (model.progress.status, model.progress.reason[: len(reason)]) == (status, reason)
    assert {alias: version for alias, version in model.aliases.items() if version != "2"} == others
    assert {alias for alias, version in model.aliases.items() if version == "2"} <= {"champion"}
    assert not step(model, 3).changes


def commanded(model: TaggedModel, command: str, now_s: float, evidence: Evidence = GOOD) -> RolloutStep:
    model.tags[COMMAND_TAG] = command
    found = step(model, now_s, evidence)
    assert COMMAND_TAG not in model.tags
    return found


def test_somebody_pauses_and_resumes_it() -> None:
    model = begun()
    step(model, 1)
    assert commanded(model, "pause  ann", 2).event == "paused by ann"
    assert not step(model, 500).changes
    assert step(model, 501, evidence=BAD).event.startswith("rolled back")  # a pause is no protection for a bad version
    model = begun()
    step(model, 1)
    commanded(model, "pause", 2)
    assert commanded(model, "resume", 600).event == "resumed by hand"
    assert model.progress.began_s == 600  # a new deadline
    assert step(model, 601).event.startswith("50 %")


def test_somebody_advances_it_once_however_often_it_is_read() -> None:
    model = begun()
    step(model, 1)
    for _ in range(3):
        commanded(model, "advance 0 ann", 2)
        step(model, 3, evidence=Evidence())
    assert (model.progress.stage, model.weight) == (1, "50")
    assert commanded(model, "advance 1 ann", 4, Evidence()).event == "promoting: promoted by ann, whatever is known"
    step(model, 5)
    assert (model.champions, model.progress.status) == (["1", "2"], "promoted")


def test_somebody_aborts_it() -> None:
    model = begun()
    step(model, 1)
    assert commanded(model, "abort  ann", 2).event == "aborted: aborted by ann"
    assert model.aliases == {"champion": "1"}


def test_an_unknown_command_is_told_of_and_goes() -> None:
    model = begun()
    step(model, 1)
    assert "is no command or is done; known are pause, resume, advance, abort" in commanded(model, "boost", 2).event
    assert model.progress.status == "running"


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([SPEC, SHADOWED]), st.booleans())
def test_an_end_between_any_two_writes_heals(seed: int, spec: str, is_bad: bool) -> None:
    """Whoever goes on, after whichever of a step's writes: it ends as it would have, and the champion changes at most once."""
    chance = random.Random(seed)
    model = TaggedModel(tags={SPEC_TAG: spec})
    now_s = 0.0
    for _ in range(400):
        now_s += chance.choice((0.1, 5, 61))
        evidence = BAD if is_bad and now_s > 200 else GOOD
        changes = next_step(model.found, known(now_s, evidence)).changes
        model.make(changes[: chance.randint(0, len(changes))])
        if PROGRESS_TAG in model.tags and model.progress.has_ended and not next_step(model.found, known(now_s)).changes:
            break
    status = model.progress.status
    assert status in {"promoted", "rolled_back"}
    assert model.champions == (["1", "2"] if status == "promoted" else ["1"])
    assert model.aliases == {"champion": model.champions[-1]}


def test_weights_are_written_before_aliases() -> None:
    model = TaggedModel(tags={SPEC_TAG: SPEC})
    changes = next_step(model.found, known(0)).changes
    weight = next(at for at, each in enumerate(changes) if isinstance(each, SetTag) and each.key == "penstock.weight")
    canary = next(at for at, each in enumerate(changes) if isinstance(each, SetAlias) and each.alias == "canary")
    assert weight < canary


@pytest.mark.parametrize("alias", ["canary", "shadow"])
def test_what_becomes_of_a_promoted_version_later_is_left_to_people(alias: str) -> None:
    model = begun()
    for now_s in range(1, 200, 3):
        step(model, now_s)
    assert model.aliases == {"champion": "2"}
    model.make([SetAlias("champion", "1"), SetAlias(alias, "2")])  # somebody goes back, and tries it again
    assert not step(model, 1000).changes
