"""What callers ask of rollouts: against a registry in memory that somebody else may write to meanwhile."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from penstock import penstock_pb2 as pb
from penstock_server.control import rollout_calls
from penstock_server.control.rollout_calls import TRIES, command, state
from penstock_server.control.rollouts import RolloutView
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.rollout.decision import Decision
from penstock_server.rollout.evidence import Evidence
from penstock_server.rollout.progress import (
    COMMAND_TAG,
    LEASE_TAG,
    PROGRESS_TAG,
    HistoryEntry,
    Progress,
    write_progress,
)
from penstock_server.rollout.registered import Change, Expected
from penstock_server.rollout.spec import RolloutSpec
from tests.server.rollout.tagged import TaggedModel

PROGRESS = Progress(
    spec=RolloutSpec(gates={"errors": 1.5}), champion="1", status="running", stage=1, began_s=5.0, since_s=7.0
)
EVIDENCE = Evidence({"requests": {"5": (1000, 19000)}, "errors": {"5": (5, 95)}, "first_errors": {"5": (5, 95)}})
VIEW = RolloutView(
    "m", "2", PROGRESS, (HistoryEntry(6.0, "5 %: begun"),), "here", is_acting=True, evidence=EVIDENCE,
    decision=Decision("hold", "waits"), problem="",
)  # fmt: skip
DECLARED = RolloutView("n", "3", None, problem="the registry is away")


@dataclass
class Registry:
    """One model `m`, whose lease another server renews before so many of the writes."""

    model: TaggedModel = field(default_factory=lambda: TaggedModel(tags={PROGRESS_TAG: write_progress(PROGRESS)}))
    renewed: int = 0
    seen: bool = False
    writes: int = 0

    async def refresh(self) -> None:
        self.seen = True

    async def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        assert (model, self.seen) == ("m", True)
        self.writes += 1
        if self.writes <= self.renewed:
            self.model.model_tags[LEASE_TAG] = f"other {self.writes}"
        if unmet := expected.unmet(self.model.model_tags, self.model.aliases, self.model.tags):
            raise UnavailableError(unmet)
        self.model.make(changes)

    async def told(self, word: str, model: str = "m", by: str = "ann") -> pb.RolloutCommandResponse:
        body = pb.RolloutCommandRequest(model=model, command=word, by=by).SerializeToString()
        found = {"m": self.model.found} if self.seen else {}
        reply = await command(
            body, rollouts=lambda: found | {"m": self.model.found}, registry=self, refresh=self.refresh
        )
        return pb.RolloutCommandResponse.FromString(reply)


def asked(model: str = "") -> pb.RolloutStateResponse:
    body = pb.RolloutStateRequest(model=model).SerializeToString()
    return pb.RolloutStateResponse.FromString(state(body, lambda: [VIEW, DECLARED]))


def test_a_rollout_is_told_with_its_gates_and_history() -> None:
    (found,) = asked("m").rollouts
    assert (found.model, found.version, found.champion, found.status) == ("m", "2", "1", "running")
    assert (found.stage, list(found.stages)) == ("25 %", ["5 %", "25 %", "50 %"])
    assert (found.reason, found.controller, found.acting, found.began, found.since) == ("waits", "here", True, 5.0, 7.0)
    (gate,) = found.gates
    assert (gate.metric, gate.margin, gate.version, gate.champion) == ("errors", 1.5, 0.005, 0.005)
    assert 0 <= gate.low < 1 < gate.high
    assert list(found.history) == [pb.RolloutEvent(at=6.0, text="5 %: begun")]


def test_what_is_not_known_is_absent() -> None:
    found, declared = asked().rollouts
    assert (declared.model, declared.status, declared.stage, declared.problem) == (
        "n", "declared", "", "the registry is away",
    )  # fmt: skip
    assert not declared.HasField("began")
    with pytest.raises(NotFoundError, match="no version of model 'z' is being rolled out"):
        asked("z")
    assert found.model == "m"


async def test_a_command_is_written_where_whoever_acts_reads_it() -> None:
    registry = Registry()
    assert await registry.told("advance") == pb.RolloutCommandResponse(version="2", stage="25 %")
    assert registry.model.tags[COMMAND_TAG] == "advance 1 ann"


async def test_a_lease_that_is_renewed_meanwhile_is_read_again() -> None:
    registry = Registry(renewed=TRIES - 1)
    await registry.told("pause")
    assert registry.model.tags[COMMAND_TAG] == "pause  ann"
    registry = Registry(renewed=TRIES)
    with pytest.raises(UnavailableError, match="controller"):
        await registry.told("pause")
    assert COMMAND_TAG not in registry.model.tags


async def test_what_cannot_be_told_is_an_error() -> None:
    registry = Registry()
    with pytest.raises(InvalidInputError, match="no command 'stop'"):
        await registry.told("stop")
    with pytest.raises(NotFoundError, match="'z'"):
        await registry.told("pause", "z")
    assert registry.writes == 0


async def test_a_registry_that_hangs_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_calls, "COMMAND_S", 0.01)
    registry = Registry()

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(registry, "write", hang)
    with pytest.raises(UnavailableError, match=r"did not take the command within 0\.01 seconds"):
        await registry.told("pause")
