import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.metrics.prometheus import registry_of
from penstock_server.retraining import state as states
from penstock_server.retraining.actions import Ended
from penstock_server.retraining.event import Event
from penstock_server.retraining.gauges import RetrainingCollector
from penstock_server.retraining.retrainer import ATTEMPTS, Alone, Retrainer, RetrainingStatus
from penstock_server.retraining.settings import ActionSettings, Kind, RetrainingRuleSettings, RetrainingSettings
from penstock_server.retraining.signals import Signals
from penstock_server.retraining.state import RetrainingCall

FIRST_S = 1_800_000_000.0
SIGNALS = Signals("fraud", "3", "abc", ("3",), rows=500)
ACTIONS: dict[Kind, ActionSettings] = {
    "webhook": ActionSettings("webhook", url="https://a", secret_env="S"),
    "command": ActionSettings("command", command=("train",)),
    "github": ActionSettings("github", repository="a/b"),
    "airflow": ActionSettings("airflow", url="https://a", dag="d"),
    "kubeflow": ActionSettings("kubeflow", url="https://a", pipeline="p"),
    "argo": ActionSettings("argo", url="https://a", namespace="n", template="t"),
}


RULE = RetrainingRuleSettings("act", rows=500)


@dataclass
class World:
    """A retrainer with a clock, signals and the other side of its actions."""

    file: Path | None = None
    kind: Kind = "webhook"
    settings: dict[str, Any] = field(default_factory=dict)
    rule: RetrainingRuleSettings = RULE
    fleet: Any = None
    now_s: float = FIRST_S
    signals: Signals = SIGNALS
    answer: Callable[[], str] = lambda: "204"
    sent: list[Event] = field(default_factory=list)
    commands: list["Puppet"] = field(default_factory=list)

    def made(self) -> Retrainer:
        settings = RetrainingSettings({"rows": self.rule}, {"act": ACTIONS[self.kind]}, **self.settings)
        return Retrainer(
            settings,
            lambda: [self.signals],
            self.file,
            fleet=self.fleet,
            link=lambda model, version: f"https://mlflow/{model}/{version}",
            clock=lambda: self.now_s,
            send=self.send,
            start=self.start,
        )

    def send(self, action: ActionSettings, event: Event, now_s: float) -> str:
        assert (action, now_s) == (ACTIONS[self.kind], self.now_s)
        self.sent.append(event)
        return self.answer()

    def start(self, _: ActionSettings, event: Event) -> "Puppet":
        self.sent.append(event)
        self.answer()
        self.commands.append(Puppet())
        return self.commands[-1]


@dataclass
class Puppet:
    """A command that ends when it is told."""

    ended: Ended | None = None
    is_closed: bool = False

    def poll(self) -> Ended | None:
        return self.ended

    def close(self) -> None:
        self.is_closed = True


class Waiting(Alone):
    """A fleet in which it is never this server's turn."""

    def hold(self, _model: str) -> str:
        return "another server acts for this model"

    def is_held(self, _model: str) -> bool:
        return False


def look(world: World, retrainer: Retrainer, *, later_s: float = 0.0) -> tuple[RetrainingCall, ...]:
    world.now_s += later_s
    retrainer.look()
    return retrainer.status().models["fraud"].state.calls


def test_a_rule_calls_once_and_tells_what_and_why() -> None:
    world = World()
    retrainer = world.made()
    (call,) = look(world, retrainer)
    assert (call.outcome, call.detail, call.attempts, call.is_open) == ("sent", "204", 1, True)
    (event,) = world.sent
    assert (event.id, event.model, event.version, event.reason) == (call.id, "fraud", "3", "500 rows were answered")
    assert (event.rows, event.link) == (500, "https://mlflow/fraud/3")
    assert look(world, retrainer, later_s=60) == (call,)
    assert "under way" in retrainer.status().models["fraud"].decisions[0].held


def test_another_version_ends_it_and_begins_anew() -> None:
    world = World(settings={"cooldown_s": 0})
    retrainer = world.made()
    look(world, retrainer)
    world.signals = replace(SIGNALS, versions=("3", "4"))
    first, second = look(world, retrainer, later_s=60)
    assert (first.outcome, first.detail, first.is_open) == ("done", "204; version 4 came", False)
    assert second.known == ("3", "4")
    world.signals = replace(SIGNALS, version="4", identity="def", versions=("4",), rows=10)
    calls = look(world, retrainer, later_s=60)
    assert len(calls) == 2
    assert not retrainer.status().models["fraud"].decisions[0].is_met


def test_what_is_not_taken_is_sent_again_later_and_later_until_it_failed() -> None:
    world = World(answer=fail(UnavailableError("it answers 503")))
    retrainer = world.made()
    (call,) = look(world, retrainer)
    assert (call.outcome, call.attempts, call.next_s) == ("sending", 1, FIRST_S + 2)
    look(world, retrainer, later_s=1)
    assert len(world.sent) == 1
    waits = []
    while (call,) and call.outcome == "sending":
        waits.append(call.next_s - world.now_s)
        (call,) = look(world, retrainer, later_s=call.next_s - world.now_s)
    assert (call.outcome, call.attempts) == ("failed", ATTEMPTS)
    assert call.detail == f"it answers 503 (tried {ATTEMPTS} times)"
    assert len({event.id for event in world.sent}) == 1
    assert waits == [1, 4, 8, 16, 32, 60, 60]


def fail(error: Exception) -> Callable[[], str]:
    def answer() -> str:
        raise error

    return answer


def test_what_is_refused_failed_at_once_and_is_called_for_again_after_a_pause() -> None:
    world = World(answer=fail(InvalidInputError("it answers 401")))
    retrainer = world.made()
    (call,) = look(world, retrainer)
    assert (call.outcome, call.detail) == ("failed", "it answers 401")
    assert len(look(world, retrainer, later_s=599)) == 1
    assert len(look(world, retrainer, later_s=2)) == 2


def test_a_command_runs_until_its_end() -> None:
    world = World(kind="command", settings={"flight_s": 60})
    retrainer = world.made()
    (call,) = look(world, retrainer)
    assert call.outcome == "running"
    world.signals = replace(SIGNALS, versions=("3", "4"))
    assert look(world, retrainer, later_s=3600)[0].is_open
    world.commands[0].ended = Ended(True, "it ended with 0: trained")
    (call,) = look(world, retrainer, later_s=60)
    assert (call.outcome, call.detail, call.ended_s) == ("done", "it ended with 0: trained", world.now_s)


def test_a_command_that_fails_or_does_not_start_failed() -> None:
    world = World(kind="command")
    retrainer = world.made()
    look(world, retrainer)
    world.commands[0].ended = Ended(False, "it ended with 1")
    assert look(world, retrainer)[0].outcome == "failed"
    world.answer = fail(InvalidInputError("cannot be started"))
    assert look(world, retrainer, later_s=700)[1].detail == "cannot be started"


def test_a_command_ends_with_the_server_and_is_not_begun_twice(tmp_path: Path) -> None:
    world = World(tmp_path / "state.json", kind="command")
    retrainer = world.made()
    look(world, retrainer)
    retrainer.close()
    assert world.commands[0].is_closed
    (call,) = look(world, world.made(), later_s=60)
    assert (call.outcome, call.is_open) == ("unknown", True)
    assert len(world.commands) == 1


@pytest.mark.parametrize("kind", ["webhook", "github", "kubeflow", "airflow", "argo"])
def test_a_restart_calls_for_nothing_twice(tmp_path: Path, kind: Kind) -> None:
    world = World(tmp_path / "state.json", kind)
    (call,) = look(world, world.made())
    assert look(world, world.made(), later_s=60) == (call,)
    assert len(world.sent) == 1


@pytest.mark.parametrize(
    ("kind", "is_sent"),
    [("webhook", True), ("airflow", True), ("argo", True), ("github", False), ("kubeflow", False), ("command", False)],
)
def test_after_a_crash_only_what_the_other_side_tells_apart_is_sent_again(
    tmp_path: Path, kind: Kind, is_sent: bool
) -> None:
    """The crash comes between the file and the answer: what the file says is that it is about to be sent."""
    world = World(tmp_path / "state.json", kind, answer=fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        world.made().look()
    (first,) = world.sent
    assert states.read(world.file).models["fraud"].calls[0].outcome == "sending"
    world.answer = lambda: "200"
    (call,) = look(world, world.made(), later_s=60)
    assert [event.id for event in world.sent] == [first.id] * (1 + is_sent)
    assert call.outcome == ("sent" if is_sent else "unknown")


def test_nothing_is_sent_while_it_cannot_be_written_down(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    world = World(tmp_path / "file" / "state.json")
    retrainer = world.made()
    assert look(world, retrainer)[0].outcome == "sending"
    assert world.sent == []
    (tmp_path / "file").unlink()
    assert look(world, retrainer, later_s=1)[0].outcome == "sent"


def test_rows_are_written_down_once_in_a_while(tmp_path: Path) -> None:
    world = World(tmp_path / "state.json", rule=RetrainingRuleSettings("act", rows=1000))
    retrainer = world.made()
    look(world, retrainer)
    world.signals = replace(SIGNALS, rows=700, labels=50)
    look(world, retrainer, later_s=1)
    assert states.read(world.file).models["fraud"].rows == 500
    look(world, retrainer, later_s=60)
    assert states.read(world.file).models["fraud"].rows == 700
    again = world.made()
    world.signals = replace(SIGNALS, rows=400, labels=60)
    look(world, again)
    assert again.status().models["fraud"].state.labels == 60  # which outlive the process
    assert again.status().models["fraud"].state.rows == 1100


@pytest.mark.parametrize(
    ("change", "held"),
    [({"fleet": Waiting()}, "another server acts"), ({"settings": {"enabled": False}}, "retraining.enabled is false")],
)
def test_one_that_may_not_act_says_what_it_would(change: dict[str, Any], held: str) -> None:
    world = World(**change)
    retrainer = world.made()
    assert look(world, retrainer) == ()
    (decision,) = retrainer.status().models["fraud"].decisions
    assert decision.is_met
    assert held in decision.held


def test_an_action_that_is_there_no_more_failed(tmp_path: Path) -> None:
    call = RetrainingCall("a", "rows", "former", "3", "abc", ("3",), "since", FIRST_S)
    kept = states.RetrainingState({"fraud": states.ModelState("3", "abc", FIRST_S, rows=500, calls=(call,))})
    states.write(tmp_path / "state.json", kept)
    world = World(tmp_path / "state.json")
    (found,) = look(world, world.made())
    assert found.outcome == "unknown"  # nobody knows whether it had been sent


def test_models_without_a_rule_are_left_alone() -> None:
    world = World(rule=RetrainingRuleSettings("act", models=("other",), rows=1))
    retrainer = world.made()
    retrainer.look()
    assert retrainer.status().models == {}


def test_the_thread_looks_and_a_failure_ends_nothing() -> None:
    failures = [RuntimeError("the drift monitor failed")]
    world = World(settings={"look_s": 0.1})
    settings = RetrainingSettings({"rows": world.rule}, {"act": ACTIONS["webhook"]}, look_s=0.1)
    import threading

    is_sent = threading.Event()

    def signals() -> list[Signals]:
        if failures:
            raise failures.pop()
        return [SIGNALS]

    def send(*_: Any) -> str:
        is_sent.set()
        return "204"

    retrainer = Retrainer(settings, signals, None, send=send)
    retrainer.start()
    assert is_sent.wait(10)
    retrainer.close()


def test_metrics_and_json_tell_what_became_of_calls() -> None:
    world = World(settings={"cooldown_s": 0})
    retrainer = world.made()
    look(world, retrainer)
    registry = registry_of(RetrainingCollector(retrainer.status))
    value = registry.get_sample_value
    labels = {"model_name": "fraud", "rule": "rows"}
    assert value("penstock_retraining_triggers_total", {**labels, "outcome": "sent"}) == 1
    assert value("penstock_retraining_last_trigger_timestamp_seconds", labels) == FIRST_S
    assert value("penstock_retraining_rule_met", labels) == 1
    assert value("penstock_retraining_in_flight", {"model_name": "fraud"}) == 1
    world.signals = replace(SIGNALS, version="4", versions=("4",), rows=1)
    look(world, retrainer, later_s=60)
    assert value("penstock_retraining_triggers_total", {**labels, "outcome": "done"}) == 1
    assert value("penstock_retraining_in_flight", {"model_name": "fraud"}) == 0
    (told,) = json.loads(retrainer.status().to_json())["models"]
    assert (told["model"], told["version"], told["rows"]) == ("fraud", "4", 1)
    assert told["rules"] == [
        {"rule": "rows", "met": False, "reason": "1 rows were answered, expected 500", "held": "", "calls": False}
    ]
    assert told["calls"][0]["outcome"] == "done"
    assert msgspec.json.decode(RetrainingStatus({}, {}, enabled=False).to_json()) == {"enabled": False, "models": []}
