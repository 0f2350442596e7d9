"""What is kept of versions that share traffic: from when their weights came into force, and anew when something changes."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from penstock.names import VersionKey
from penstock_server.control.experiment_gauges import ExperimentCollector
from penstock_server.control.experiments import Experiments
from penstock_server.labels.totals import LabelTotals, SubjectTotals, VersionLabels
from penstock_server.rollout.evidence import VersionTotals
from penstock_server.rollout.experiment import ArmReport
from penstock_server.rollout.plan import Arm, TrafficPlan
from tests.server.conftest import FakeClock

CELLS = 20


@dataclass
class World:
    """A model `m` with champion 1 and canaries 2 and 3."""

    plans: dict[str, TrafficPlan] = field(
        default_factory=lambda: {
            "m": TrafficPlan("1", (Arm("2", 0.25), Arm("3", 0.25, "canary-b"))),
            "n": TrafficPlan("1"),
        }
    )
    requests: dict[str, int] = field(default_factory=lambda: {"1": 5000, "2": 100, "3": 0})
    errors: dict[str, int] = field(default_factory=lambda: dict.fromkeys("123", 0))
    slow: dict[str, int] = field(default_factory=lambda: dict.fromkeys("123", 0))
    run: str = "a"
    labels: LabelTotals = field(default_factory=LabelTotals)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.experiments = Experiments(
            plans=lambda: self.plans, counted=self.counted, labels=lambda: self.labels, wall=self.clock
        )

    def counted(self, key: VersionKey) -> tuple[str, VersionTotals]:
        _, version = key
        requests, slow = self.requests[version], self.slow[version]
        latency = (0,) * 5 + (requests - slow,) + (0,) * (CELLS - 7) + (slow,)
        errors = self.errors[version]
        return self.run, VersionTotals(requests, errors, latency, (min(errors, 3), 0, errors))

    def more(self, champion: int, first: int, second: int) -> None:
        for version, count in zip("123", (champion, first, second), strict=True):
            self.requests[version] += count
        self.clock.now += 1
        self.experiments.look()

    @property
    def arms(self) -> tuple[ArmReport, ...]:
        (found,) = self.experiments.reports()
        return found.arms


@pytest.fixture
def world() -> World:
    world = World()
    world.experiments.look()
    return world


def test_only_what_came_since_the_weights_are_in_force_counts(world: World) -> None:
    assert [(arm.version, arm.requests, arm.exposure) for arm in world.arms] == [
        ("1", 0, None), ("2", 0, None), ("3", 0, None),
    ]  # fmt: skip
    world.more(50, 25, 25)
    world.more(50, 25, 25)
    assert [(arm.weight, arm.requests, arm.exposure) for arm in world.arms] == [
        (0.5, 100, 0.5), (0.25, 50, 0.25), (0.25, 50, 0.25),
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["weight", "champion", "restart"])
def test_a_change_begins_anew(world: World, what: str) -> None:
    world.more(50, 25, 25)
    if what == "restart":
        world.run = "b"
    else:
        changed: dict[str, Any] = {"champion": "3"} if what == "champion" else {"canaries": (Arm("2", 0.5),)}
        world.plans["m"] = TrafficPlan(**{"champion": "1", "canaries": (Arm("2", 0.25),)} | changed)
    world.more(10, 10, 10)
    assert {arm.requests for arm in world.arms} == {0}
    (found,) = world.experiments.reports()
    assert found.since_s == world.clock()


def test_while_workers_are_told_another_plan_nothing_is_kept(world: World) -> None:
    plan = world.plans.pop("m")
    world.more(50, 25, 25)
    assert world.experiments.reports() == []
    world.plans["m"] = plan
    world.more(50, 25, 25)
    assert {arm.requests for arm in world.arms} == {0}


def test_latencies_are_compared_with_what_was_slow_before(world: World) -> None:
    world.more(0, 0, 0)  # from here on it is known what is slow, by the champion's 5,000 requests
    for version, slow in (("1", 10), ("2", 40)):
        world.slow[version] += slow
    world.more(1000, 500, 500)
    by_metric = {each.metric: each for each in world.arms[1].comparisons}
    assert (by_metric["p99"].version, by_metric["p99"].champion) == (0.08, 0.01)
    assert by_metric["p99"].low is not None
    assert by_metric["p99"].low > 2


def test_without_enough_of_the_champions_requests_no_latency_is_compared() -> None:
    world = World(requests={"1": 0, "2": 0, "3": 0})
    world.experiments.look()
    world.more(900, 450, 450)
    assert [each.metric for each in world.arms[1].comparisons] == ["errors"]


def test_labels_of_these_weights_count_from_now_on(world: World) -> None:
    def labelled(*counts: tuple[str, str, float | None, int, int]) -> LabelTotals:
        return LabelTotals(
            versions=tuple(
                VersionLabels(
                    "m", version, "", role, weight, SubjectTotals(labelled_requests=rows, wrong_requests=wrong)
                )
                for version, role, weight, rows, wrong in counts
            )
        )

    before = [("1", "champion", 0.5, 100, 50), ("2", "canary", 0.25, 10, 5), ("2", "canary", None, 99, 99)]
    world.run, world.labels = "b", labelled(*before)
    world.experiments.look()  # of another run, so that it begins here
    world.labels = labelled(
        ("1", "champion", 0.5, 200, 60), ("2", "canary", 0.25, 60, 15), ("2", "canary", None, 999, 999)
    )
    world.more(100, 50, 50)
    by_metric = {each.metric: each for each in world.arms[1].comparisons}
    assert (by_metric["accuracy"].version, by_metric["accuracy"].champion) == (0.8, 0.9)


def test_it_shows_as_metrics(world: World) -> None:
    world.more(100, 50, 50)
    world.errors["2"] += 5
    world.more(100, 50, 50)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ExperimentCollector(world.experiments.reports))
    text = generate_latest(registry).decode()
    assert 'penstock_experiment_exposure_ratio{model_name="m",model_version="2"} 0.25' in text
    assert 'penstock_experiment_weight_ratio{model_name="m",model_version="1"} 0.5' in text
    assert 'penstock_experiment_mismatch_evidence{model_name="m"} 0.0' in text
    of = '{champion="1",metric="errors",model_name="m",model_version="2",of="ratio"}'
    assert f"penstock_experiment_interval_low{of}" in text
    # Two of the five errors are of keys that have failed before.
    assert f"penstock_experiment_interval_low{of.replace('errors', 'first_errors')}" in text
    assert 'model_name="n"' not in text
