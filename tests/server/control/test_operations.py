import json
from typing import Any

import pytest

from penstock_server.capacity.estimate import ServerCapacity
from penstock_server.control.operations import DRIFT_S, Operations
from tests.server.conftest import FakeClock
from tests.server.page.served import HOSTILE, Shown


class World:
    def __init__(self) -> None:
        self.shown, self.clock, self.evaluated = Shown(), FakeClock(), 0
        self.operations = Operations(
            view=self.shown.view,
            sources=self.shown.sources,
            counted=self.shown.counted,
            drift=self.drift,
            labels=lambda: self.shown.labels,
            rollouts=lambda: self.shown.rollouts,
            capacity=lambda: ServerCapacity(0.25, 80_000.0, {}),
            page_of=lambda model, version: f"http://mlflow/{model}/{version}" if model == "fares" else "",
            rest_address="127.0.0.1:8003",
            lines=lambda: self.shown.lines,
            clock=self.clock,
        )

    def drift(self) -> Any:
        self.evaluated += 1
        return self.shown.drift

    def look(self) -> dict[str, Any]:
        return {name: json.loads(body) for name, body in self.operations.sections().items()}


@pytest.fixture
def world() -> World:
    return World()


def test_each_section_is_one_line(world: World) -> None:
    assert all(b"\n" not in body for body in world.operations.sections().values())


def test_versions_have_roles_weights_states_reasons_and_pages(world: World) -> None:
    found = world.look()["models"]
    assert [(one["name"], one["version"], one["roles"], one["state"]) for one in found] == [
        ("fares", "3", ["champion"], "READY"),
        ("fares", "4", ["canary"], "READY"),
        ("fares", "2", [], "UNAVAILABLE"),
        (HOSTILE, "1", ["champion"], "READY"),
        ("lost", "", [], "UNAVAILABLE"),
    ]
    assert [one.get("weight") for one in found] == [None, 5.0, None, None, None]
    assert (found[2]["wanted"], found[2]["reason"]) == (["shadow"], f"its digest is wrong {HOSTILE}")
    assert [one.get("page") for one in found][2:] == ["http://mlflow/fares/2", "", None]


def test_rates_span_the_last_seconds_and_are_unknown_at_first(world: World) -> None:
    assert world.look()["traffic"]["total"] is None
    for _ in range(10):
        world.clock.now += 1
        world.shown.answer(("fares", "3"), 200)
        found = world.look()["traffic"]
    assert found["versions"] == [["fares", "3", 200.0, 0.0, 0.001131, 0.001131]]
    assert found["total"] == [200.0, 0.0, 0.001131, 0.001131]
    assert found["capacity"] == {"ratio": 0.25, "requests_per_s": 80_000.0}
    for _ in range(6):
        world.clock.now += 1
        found = world.look()["traffic"]
    assert (found["versions"], found["total"]) == ([], [0.0, None, None, None])
    world.clock.now += 60  # nobody looked
    world.shown.answer(("fares", "3"), 200)
    assert world.look()["traffic"]["total"] is None


def test_drift_is_evaluated_every_few_seconds_and_only_summed_up(world: World) -> None:
    first = world.look()["drift"]["watched"]
    world.clock.now += DRIFT_S / 2
    assert world.look()["drift"]["watched"] == first
    assert world.evaluated == 1
    world.clock.now += DRIFT_S / 2
    world.look()
    assert world.evaluated == 2
    (found,) = first
    assert (found["columns"], found["tested"], found["drifted"]) == (16, 16, 1)
    assert found["alarms"] == [{"column": "delay", "kind": "shares", "since": 1.7e9}]
    assert found["expected_accuracy"]["value"] == 0.91


def test_rollouts_are_told_without_their_histograms(world: World) -> None:
    running, paused = world.look()["rollouts"]
    assert [running[name] for name in ("model", "version", "status", "stage", "ended")] == [
        "fares", "4", "running", "5 %", False,
    ]  # fmt: skip
    assert not {"evidence", "declared"} & running.keys()
    assert [gate["metric"] for gate in running["gates"]] == ["errors", "p99"]
    assert paused["status"] == "paused"


def test_events_come_the_latest_first_and_accuracy_by_version(world: World) -> None:
    found = world.look()
    assert [each["at"] for each in found["events"]] == [1.7e9 + 1, 1.7e9]
    assert found["events"][1]["about"] == {"model": "fares", "version": "3", "engine": "compiled"}
    assert [(each["model"], each["quality"]["rows"]) for each in found["accuracy"]] == [("fares", 900)]
    world.shown.labels = None
    assert world.look()["accuracy"] is None


def test_the_server_says_how_it_is(world: World) -> None:
    found = world.look()["server"]
    assert (found["ready"], found["rest_port"], len(found["workers"])) == (True, 8003, 1)
    assert found["sources"] == [{"name": "registry", "state": "away", "reason": f"it does not answer {HOSTILE}"}]
