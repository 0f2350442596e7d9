"""Rollouts of a real server on a real registry: a good version becomes champion, a bad one goes back, commands are obeyed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock import penstock_pb2 as pb
from penstock_server.errors import NotFoundError, UnavailableError
from penstock_server.rollout.progress import LEASE_TAG, PROGRESS_TAG
from penstock_server.rollout.registered import DeleteAlias, DeleteTag, Expected, SetAlias, SetTag
from penstock_server.sources.http_session import HttpSession
from penstock_server.sources.mlflow_client import RegistryClient
from penstock_server.sources.registered import RegistryReader
from penstock_server.sources.rest_registry import RestRegistry
from penstock_server.sources.sqlite_registry import SqliteRegistry
from tests.integration.test_registry import Server, Traffic, roles

WAIT_S = 30.0
SETTINGS = """
poll_interval_s = 0.2

[grpc]
allow_control = true

[rollouts]
enabled = true
look_s = 0.2
lease_s = 2
"""
QUICK = '{"steps": [50, 100], "hold": "1s", "requests": 200, "gates": {"errors": 1.5}, "errors_floor": 0.01}'
SHADOWED = (
    '{"steps": [20, 100], "shadow": "1s", "shadow_rows": 100, "hold": "1h", '
    '"gates": {"errors": 1.5, "disagreement": 0.1}}'
)


@pytest.fixture(scope="module")
def acting(
    start_shared: Any, shared_registry: Any, flag_model: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    for model in ("good", "bad", "held"):
        shared_registry.publish(model, flag_model, alias="champion")
    settings = tmp_path_factory.mktemp("rollouts") / "penstock.toml"
    settings.write_text(SETTINGS)
    server: Server = start_shared("--registry", shared_registry.uri, "--config", str(settings))
    return server.wait_ready()


def status(server: Server, model: str) -> str:
    found = json.loads(server.get("/v1/rollouts"))["rollouts"]
    return next((one["status"] for one in found if one["model"] == model), "")


def of_rpc(server: Server, model: str) -> pb.Rollout:
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/penstock.v1.Penstock/RolloutState")
        reply = call(pb.RolloutStateRequest(model=model).SerializeToString(), timeout=WAIT_S)
    (found,) = pb.RolloutStateResponse.FromString(reply).rollouts
    return found


def told(server: Server, **asked: str) -> pb.RolloutCommandResponse:
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/penstock.v1.Penstock/RolloutCommand")
        reply = call(pb.RolloutCommandRequest(**asked).SerializeToString(), timeout=WAIT_S)
    return pb.RolloutCommandResponse.FromString(reply)


def shares(server: Server, model: str) -> dict[str, float]:
    found = json.loads(server.get("/v1/experiments"))["experiments"]
    return {arm["version"]: round(arm["weight"], 9) for each in found if each["model"] == model for arm in each["arms"]}


def begin(penstock: Callable[..., tuple[int, str, str]], registry: Any, model: str, declared: str, folder: Path) -> str:
    file = folder / "rollout.json"
    file.write_text(declared)
    code, out, _ = penstock("rollout", "start", model, "2", "--file", file, "--registry", registry.uri)
    assert code == 0
    return out


def recorded(penstock: Callable[..., tuple[int, str, str]], registry: Any, model: str) -> dict[str, Any]:
    code, out, _ = penstock("rollout", "status", model, "--json", "--registry", registry.uri)
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_good_version_becomes_champion_while_no_request_fails(
    acting: Server, shared_registry: Any, flag_model: bytes, penstock: Any, tmp_path: Path, until: Any
) -> None:
    shared_registry.publish("good", flag_model)
    said = begin(penstock, shared_registry, "good", QUICK, tmp_path)
    assert "It gets 50 % of the requests, each step for 1 second at least" in said
    with Traffic(acting.grpc, "good") as traffic:
        until(lambda: roles(acting, "good").get("canary") == "2", "it is canary")
        until(lambda: status(acting, "good") == "running", "the rollout shows")
        assert 'penstock_rollout_stage_weight_ratio{model_name="good",model_version="2"} 0.5' in acting.get("/metrics")
        until(lambda: roles(acting, "good") == {"champion": "2"}, "it is champion")
    assert traffic.failures == []
    assert set(traffic.versions) == {"1", "2"}
    until(lambda: recorded(penstock, shared_registry, "good")["status"] == "promoted", "the record says so")
    found = recorded(penstock, shared_registry, "good")
    assert [line["text"].partition(":")[0] for line in found["history"]] == ["50 %", "promoting", "promoted"]
    (gate,) = found["gates"]
    assert gate["within"] >= 1 > gate["worse"]
    code, out, _ = penstock("rollout", "status", "good", "--registry", shared_registry.uri)
    assert (code, "good version 2: promoted" in out, "50 % -> champion" in out) == (0, True, True)


def test_a_version_that_answers_otherwise_goes_back_before_it_answers_anybody(
    acting: Server, shared_registry: Any, opposite_model: bytes, penstock: Any, tmp_path: Path, until: Any
) -> None:
    shared_registry.publish("bad", opposite_model)
    begin(penstock, shared_registry, "bad", SHADOWED, tmp_path)
    with Traffic(acting.grpc, "bad") as traffic:
        until(lambda: recorded(penstock, shared_registry, "bad")["status"] == "rolled_back", "it is rolled back")
    found = recorded(penstock, shared_registry, "bad")
    assert "answers differ from the champion's on up to 100 % of the rows" in found["reason"]
    assert set(traffic.versions) == {"1"}
    until(lambda: roles(acting, "bad") == {"champion": "1"}, "its roles are gone")


def test_somebody_advances_it_and_ends_it(
    acting: Server, shared_registry: Any, flag_model: bytes, penstock: Any, tmp_path: Path, until: Any
) -> None:
    shared_registry.publish("held", flag_model)
    begin(penstock, shared_registry, "held", '{"steps": [10, 30, 100], "gates": {"errors": 1.5}}', tmp_path)
    weight = '"held","version":"2","role":"canary"'
    until(lambda: weight in acting.get("/v1/models").replace(" ", ""), "it is canary")
    until(lambda: recorded(penstock, shared_registry, "held")["stage"] == "10 %", "the first step")
    assert penstock("rollout", "advance", "held", "--registry", shared_registry.uri)[0] == 0
    until(lambda: recorded(penstock, shared_registry, "held")["stage"] == "30 %", "the second step")
    until(lambda: shares(acting, "held") == {"1": 0.7, "2": 0.3}, "how both share the traffic")
    assert told(acting, model="held", command="pause", by="ann").stage == "30 %"
    until(lambda: of_rpc(acting, "held").status == "paused", "a call paused it")
    found = of_rpc(acting, "held")
    assert (found.version, found.champion, [gate.metric for gate in found.gates]) == ("2", "1", ["errors"])
    assert found.history[-1].text == "paused by ann"
    for asked, code in (
        ({"model": "held", "command": "stop"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"model": "nobody", "command": "pause"}, grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            told(acting, **asked)
        assert refused.value.code() is code
    assert penstock("rollout", "abort", "held", "--registry", shared_registry.uri)[0] == 0
    until(lambda: roles(acting, "held") == {"champion": "1"}, "the champion answers everything")
    assert recorded(penstock, shared_registry, "held")["status"] == "aborted"
    code, _, err = penstock("rollout", "pause", "held", "--registry", shared_registry.uri)
    assert (code, "is over: aborted" in err) == (1, True)
    code, out, _ = penstock("promote", "held", "2", "--registry", shared_registry.uri)
    assert (code, "is now champion" in out) == (0, True)
    until(lambda: roles(acting, "held") == {"champion": "2"}, "promoted by hand it is champion")


@pytest.mark.parametrize("kind", ["sqlite", "rest", "mlflow"])
def test_each_kind_of_registry_is_written_to_as_mlflow_does(
    kind: str, registry: Any, registry_server: Any, flag_model: bytes
) -> None:
    """mlflow's own client is the oracle for what was written."""
    from mlflow import MlflowClient

    for alias in ("champion", None):
        registry.publish("m", flag_model, alias=alias)
    oracle = MlflowClient(registry_uri=registry.uri, tracking_uri=registry.uri)
    written: RegistryReader = {
        "sqlite": lambda: SqliteRegistry(Path(registry.uri.removeprefix("sqlite:///")), "shown"),
        "rest": lambda: RestRegistry(HttpSession(registry_server.uri)),
        "mlflow": lambda: RegistryClient(registry.uri),
    }[kind]()
    nothing = Expected({LEASE_TAG: ""}, "2", "", "1")
    first = [
        SetTag("", LEASE_TAG, "one 1"),
        SetTag("2", PROGRESS_TAG, "\u00e4 %"),
        SetTag("2", "penstock.weight", "5"),
        SetAlias("canary", "2"),
    ]
    written.write("m", nothing, first)
    found, version = oracle.get_registered_model("m"), oracle.get_model_version("m", "2")
    assert found.tags[LEASE_TAG] == "one 1"
    assert (version.tags[PROGRESS_TAG], version.tags["penstock.weight"]) == ("\u00e4 %", "5")
    assert {alias: str(each) for alias, each in found.aliases.items()} == {"champion": "1", "canary": "2"}
    assert written.model("m").tags[LEASE_TAG] == "one 1"
    for stale, what in (
        (nothing, "controller"),
        (Expected({LEASE_TAG: "one 1"}, "2", "", "1"), "progress"),
        (Expected({LEASE_TAG: "one 1"}, "2", "\u00e4 %", "2"), "the champion is another one"),
    ):
        with pytest.raises(UnavailableError, match=what):
            written.write("m", stale, [SetAlias("champion", "2")])
    assert str(oracle.get_registered_model("m").aliases["champion"]) == "1"
    then = [SetAlias("champion", "2"), DeleteAlias("canary"), DeleteAlias("shadow"), DeleteTag("2", "penstock.weight")]
    written.write("m", Expected({LEASE_TAG: "one 1"}, "2", "\u00e4 %", "1"), [*then, DeleteTag("", LEASE_TAG)])
    found, version = oracle.get_registered_model("m"), oracle.get_model_version("m", "2")
    assert {alias: str(each) for alias, each in found.aliases.items()} == {"champion": "2"}
    assert "penstock.weight" not in version.tags
    assert LEASE_TAG not in found.tags
    with pytest.raises((NotFoundError, UnavailableError)):
        written.write("nobody", Expected({LEASE_TAG: ""}), [SetTag("", LEASE_TAG, "x")])
