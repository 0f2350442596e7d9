import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import aiohttp
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from penstock_server.access.credentials import Credentials
from penstock_server.access.gate import Gate
from penstock_server.access.identity import Identity
from penstock_server.access.settings import AccessSettings, RuleSettings
from penstock_server.access.tokens import hash_of
from penstock_server.capacity.estimate import Room, ServerCapacity
from penstock_server.control.http import AdminServer
from penstock_server.control.port import reserve_http
from penstock_server.control.rollouts import RolloutView
from penstock_server.control.view import ServerView, VersionView, WorkerView
from penstock_server.errors import NotFoundError
from penstock_server.rollout.evidence import Snapshot
from penstock_server.rollout.experiment import ArmTotals, compared
from penstock_server.rollout.progress import Progress
from penstock_server.rollout.spec import RolloutSpec
from penstock_server.sources.combined_source import SourceState

VIEW = ServerView(
    versions=(
        VersionView("m", "1", "READY", ("champion",)),
        VersionView("m", "2", "READY", ("canary", "shadow"), 0.25, 0.5),
        VersionView("m", "3", "UNAVAILABLE", reason="its digest is wrong", wanted=("champion",)),
    ),
    workers=(WorkerView(0, 1234, True, 2, "native", 7),),
    problems={"m": "is shown with its versions", "n": "no version has the alias 'champion'"},
    reloads=2,
    failed_reloads=1,
)


CAPACITY = ServerCapacity(0.51234567, 100_000.0, {"m": Room(80_000.0, 0.25)})
EXPERIMENT = compared("fares", "3", {"3": 0.75, "4": 0.25}, {"3": ArmTotals(75), "4": ArmTotals(25)}, 5.0)
WORKER = {"slot": 0, "pid": 1234, "listening": True, "restarts": 2, "transport": "native", "connections": 7}


def drift(model: str, version: str) -> bytes:
    if model == "unknown":
        raise NotFoundError("no version of model 'unknown' is loaded")
    return json.dumps([model, version]).encode()


def labels(model: str) -> bytes:
    if model == "unknown":
        raise NotFoundError("nothing is known of labels of model 'unknown'")
    return json.dumps([model, "labels"]).encode()


ROLLOUT = RolloutView("fares", "4", Progress(spec=RolloutSpec(), champion="3", status="running", reason="5 %: begun"))


@pytest.fixture
async def address() -> AsyncIterator[str]:
    admin = AdminServer(
        view=lambda: VIEW,
        sources=lambda: (SourceState("registry", "away", "it does not answer", 1.5),),
        registry=CollectorRegistry(),
        drift=drift,
        retraining=lambda: b'{"enabled": false}',
        labels=labels,
        shadows=lambda: b'{"shadows": []}',
        evidence=lambda model, version, champion: Snapshot(f"{model}/{version}/{champion}", "5"),
        rollouts=lambda: [ROLLOUT],
        experiments=lambda: [EXPERIMENT],
        capacity=lambda: CAPACITY,
    )
    listening = reserve_http("127.0.0.1", 0)
    admin.start(listening)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    await admin.close()


async def test_retraining_is_shown(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/v1/retraining") as reply:
        assert (reply.status, await reply.json()) == (200, {"enabled": False})


async def test_shadows_are_shown(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/v1/shadows") as reply:
        assert (reply.status, reply.content_type, await reply.json()) == (200, "application/json", {"shadows": []})


@pytest.mark.parametrize("path", ["/v1/rollouts", "/v1/rollouts/fares"])
async def test_rollouts_are_shown_with_what_was_declared_in_words(address: str, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(address + path) as reply:
        assert reply.status == 200
        (found,) = (await reply.json())["rollouts"]
    assert {name: found[name] for name in ("model", "version", "champion", "status", "stage", "reason")} == {
        "model": "fares", "version": "4", "champion": "3", "status": "running", "stage": "5 %", "reason": "5 %: begun",
    }  # fmt: skip
    assert "25 %" in found["in_words"]
    assert [(gate["metric"], gate["interval"]) for gate in found["gates"]] == [
        ("errors", [0.0, None]),
        ("p99", [0.0, None]),
    ]


async def test_a_model_without_a_rollout_has_none_to_show(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/v1/rollouts/other") as reply:
        assert reply.status == 404
        assert await reply.json() == {"error": "no version of model 'other' is being rolled out"}


@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/experiments/fares"])
async def test_versions_that_share_traffic_are_shown(address: str, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(address + path) as reply:
        assert reply.status == 200
        (found,) = (await reply.json())["experiments"]
    assert (found["model"], found["since_s"], found["mismatch"]) == ("fares", 5.0, 0.0)
    assert [(arm["version"], arm["exposure"]) for arm in found["arms"]] == [("3", 0.75), ("4", 0.25)]
    (errors,) = found["arms"][1]["comparisons"]
    assert (errors["metric"], errors["version"], errors["kind"], errors["high"]) == ("errors", 0.0, "ratio", None)


async def test_a_model_with_one_version_has_no_experiment(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/v1/experiments/other") as reply:
        assert reply.status == 404
        assert await reply.json() == {"error": "no canary of model 'other' has a share of its traffic"}


async def test_evidence_is_told_to_other_servers(address: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{address}/v1/evidence/a%20b?version=2&champion=1") as reply,
    ):
        found = msgspec.json.decode(await reply.read(), type=Snapshot)
    assert (found.instance, found.weight) == ("a b/2/1", "5")


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("/v1/drift", 200, ["", ""]),
        ("/v1/drift?version=@champion", 200, ["", "@champion"]),
        ("/v1/drift/fares", 200, ["fares", ""]),
        ("/v1/drift/a%20b%C3%BC?version=3", 200, ["a bü", "3"]),
        ("/v1/drift/unknown", 404, {"error": "no version of model 'unknown' is loaded"}),
        ("/v1/labels", 200, ["", "labels"]),
        ("/v1/labels/fares", 200, ["fares", "labels"]),
        ("/v1/labels/unknown", 404, {"error": "nothing is known of labels of model 'unknown'"}),
    ],
)
async def test_drift_is_answered_for_a_model_and_a_version(
    address: str, path: str, status: int, answer: object
) -> None:
    async with aiohttp.ClientSession() as session, session.get(address + path) as reply:
        assert (reply.status, reply.content_type, await reply.json()) == (status, "application/json", answer)


async def test_models_have_a_row_per_version_and_role_with_weights_in_percent(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/v1/models") as reply:
        found = await reply.json()
    assert [(row["name"], row["version"], row["role"], row["weight"], row["state"]) for row in found["models"]] == [
        ("m", "1", "champion", None, "READY"),
        ("m", "2", "canary", 25.0, "READY"),
        ("m", "2", "shadow", None, "READY"),
        ("m", "3", "", None, "UNAVAILABLE"),
        ("n", "", "", None, "UNAVAILABLE"),
    ]
    assert [row["sample"] for row in found["models"]] == [None, None, 50.0, None, None]
    assert [row.get("wanted") for row in found["models"]] == [[], [], [], ["champion"], None]
    assert [row["reason"] for row in found["models"]][3:] == [
        "its digest is wrong", "no version has the alias 'champion'",
    ]  # fmt: skip
    assert found["sources"] == [
        {"name": "registry", "state": "away", "reason": "it does not answer", "answered_s": 1.5}
    ]
    assert found["capacity"] == {"m": {"ratio": 0.25, "requests_per_s": 80_000.0}}
    assert found["workers"] == [WORKER]
    assert found["ready"] is True


async def test_the_server_says_what_it_is(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(address + "/v1/server") as reply:
        assert await reply.json() == {
            "name": "penstock",
            "version": version("penstock"),
            "ready": True,
            "reason": "",
            "capacity": {"ratio": 0.5123, "requests_per_s": 100_000.0},
            "workers": [WORKER],
        }


RULES = AccessSettings(
    {
        "shop": RuleSettings(("token:shop",), ("read",), ("fares",)),
        "ops": RuleSettings(("token:ops",), ("read",)),
        "slow": RuleSettings(("token:slow",), ("read",), requests_per_s=0.01),
        "infer": RuleSettings(("token:infer",), ("infer",)),
    }
)
NAMES = ("shop", "ops", "slow", "infer")


@asynccontextmanager
async def guarded(*, opens_metrics: bool = False) -> AsyncIterator[str]:
    gate = Gate(RULES)
    gate.use(Credentials({hash_of(name): Identity((f"token:{name}",)) for name in NAMES}))
    admin = AdminServer(
        view=lambda: VIEW,
        sources=lambda: (),
        registry=CollectorRegistry(),
        drift=drift,
        retraining=lambda: b'{"enabled": false}',
        labels=labels,
        shadows=lambda: b'{"shadows": []}',
        evidence=lambda model, version, champion: Snapshot(f"{model}/{version}/{champion}", "5"),
        rollouts=lambda: [ROLLOUT],
        experiments=lambda: [EXPERIMENT],
        capacity=lambda: CAPACITY,
        gate=gate,
        opens_metrics=opens_metrics,
    )
    listening = reserve_http("127.0.0.1", 0)
    admin.start(listening)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    await admin.close()


async def status(address: str, path: str, token: str | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(address + path, headers=headers) as reply:
        assert (reply.headers.get("WWW-Authenticate") == "Bearer") is (reply.status == 401)
        assert ("Retry-After" in reply.headers) is (reply.status == 429)
        return reply.status


@pytest.mark.parametrize(
    ("path", "token", "wanted"),
    [
        ("/healthz", None, 200),
        ("/readyz", "bad", 200),
        ("/metrics", None, 401),
        ("/metrics", "shop", 403),
        ("/metrics", "ops", 200),
        ("/v1/server", None, 401),
        ("/v1/server", "shop", 200),
        ("/v1/server", "infer", 403),
        ("/v1/models", "shop", 403),
        ("/v1/models", "ops", 200),
        ("/v1/retraining", "shop", 403),
        ("/v1/retraining", "ops", 200),
        ("/v1/shadows", "shop", 403),
        ("/v1/shadows", "ops", 200),
        ("/v1/rollouts", "shop", 403),
        ("/v1/rollouts", "ops", 200),
        ("/v1/rollouts/fares", "shop", 200),
        ("/v1/evidence/fares", "shop", 200),
        ("/v1/evidence/other", "shop", 403),
        ("/v1/models", "bad", 401),
        ("/v1/drift", "shop", 403),
        ("/v1/drift/", "shop", 403),
        ("/v1/drift/fares", "shop", 200),
        ("/v1/drift/unknown", "shop", 403),
        ("/v1/drift/unknown", "ops", 404),
        ("/v1/drift/a/b", "shop", 403),
        ("/nothing", None, 401),
        ("/nothing", "shop", 404),
    ],
)
async def test_who_may_read_what(path: str, token: str | None, wanted: int) -> None:
    async with guarded() as address:
        assert await status(address, path, token) == wanted


async def test_metrics_may_be_open_and_callers_may_be_limited() -> None:
    async with guarded(opens_metrics=True) as address:
        assert await status(address, "/metrics", None) == 200
        assert await status(address, "/v1/models", None) == 401
        assert [await status(address, "/v1/models", "slow") for _ in range(2)] == [200, 429]


async def test_two_tokens_are_none() -> None:
    async with guarded() as address, aiohttp.ClientSession() as session:
        two = [("Authorization", "Bearer ops"), ("Authorization", "Bearer ops")]
        async with session.get(f"{address}/v1/models", headers=two) as reply:
            assert reply.status == 401
