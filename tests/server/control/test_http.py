import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
from prometheus_client import CollectorRegistry

from penstock_server.access.audit import EVENT
from penstock_server.access.credentials import Credentials
from penstock_server.access.gate import AccessGate
from penstock_server.access.identity import Identity
from penstock_server.access.settings import AccessSettings, RuleSettings
from penstock_server.access.tokens import hash_of
from penstock_server.capacity.estimate import Room, ServerCapacity
from penstock_server.control.http import AdminServer
from penstock_server.control.port import reserve_http
from penstock_server.control.rollouts import RolloutView
from penstock_server.control.settings import WebhookSettings
from penstock_server.control.view import ServerView, VersionView, WorkerView
from penstock_server.control.webhook import MAX_BODY_BYTES, WebhookReceiver, signature
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.page.document import document
from penstock_server.page.feed import VIEWERS
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


async def command(model: str, word: str, by: str) -> tuple[str, str]:
    if model == "away":
        raise UnavailableError("the registry is away")
    if word == "explode":
        raise InvalidInputError(f"there is no command {word!r}")
    if model != "fares":
        raise NotFoundError(f"no version of model {model!r} is being rolled out")
    return "4", f"5 %, said {by}"


ROLLOUT = RolloutView("fares", "4", Progress(spec=RolloutSpec(), champion="3", status="running", reason="5 %: begun"))


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with serving() as found:
        yield found


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[str]:
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
        operations=lambda: {"traffic": b"1"},
        command=command,
        **given,
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
        "lead": RuleSettings(("token:lead",), ("read", "control")),
        "own": RuleSettings(("token:own",), ("control",), ("fares",)),
    }
)
NAMES = ("shop", "ops", "slow", "infer", "lead", "own")


@asynccontextmanager
async def guarded(*, opens_metrics: bool = False) -> AsyncIterator[str]:
    gate = AccessGate(RULES)
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
        operations=lambda: {"traffic": b"1"},
        command=command,
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
        ("/", None, 200),
        ("/v1/live", None, 401),
        ("/v1/live", "shop", 403),
        ("/v1/live", "ops", 200),
        ("/v1/caller", None, 200),
        ("/v1/caller", "bad", 401),
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


async def test_the_page_is_there_for_all_and_holds_nothing(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/") as reply:
        assert (reply.status, reply.content_type, await reply.read()) == (200, "text/html", document())
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        assert "Set-Cookie" not in reply.headers


async def test_what_is_new_comes_as_a_stream(address: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/v1/live") as reply:
        assert (reply.status, reply.content_type) == (200, "text/event-stream")
        assert await reply.content.readuntil(b"\n\n") == b"event: traffic\ndata: 1\n\n"


async def test_only_so_many_streams_are_open_at_once(address: str) -> None:
    async with aiohttp.ClientSession() as session:
        replies = [await session.get(f"{address}/v1/live") for _ in range(VIEWERS)]
        async with session.get(f"{address}/v1/live") as reply:
            assert (reply.status, "look at this server already" in await reply.text()) == (503, True)
        for each in replies:
            each.close()


@pytest.mark.parametrize(
    ("token", "known"),
    [
        (None, {"asked": True, "name": "anybody", "reads": False, "controls": []}),
        ("ops", {"asked": True, "name": "token:ops", "reads": True, "controls": []}),
        ("lead", {"asked": True, "name": "token:lead", "reads": True, "controls": ["fares", "m"]}),
        # Who may not read of all models learns no names.
        ("own", {"asked": True, "name": "token:own", "reads": False, "controls": []}),
    ],
)
async def test_a_caller_learns_what_it_may(token: str | None, known: dict[str, object]) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        guarded() as address,
        aiohttp.ClientSession() as session,
        session.get(f"{address}/v1/caller", headers=headers) as reply,
    ):
        assert await reply.json() == known


async def test_where_nobody_is_asked_the_page_is_read_only(address: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{address}/v1/caller") as reply:
            assert await reply.json() == {"asked": False, "name": "anybody", "reads": True, "controls": []}
        async with session.post(f"{address}/v1/rollouts/fares/pause", headers={"X-Penstock-Action": "pause"}) as reply:
            assert (reply.status, "give it access rules" in await reply.text()) == (403, True)


OURS = {"X-Penstock-Action": "1"}


@pytest.mark.parametrize(
    ("path", "token", "headers", "status", "said"),
    [
        ("/v1/rollouts/fares/pause", "lead", OURS, 200, '"version":"4"'),
        ("/v1/rollouts/fares/advance", "own", OURS, 200, "said token:own"),
        ("/v1/rollouts/fares/pause", "own", {**OURS, "Sec-Fetch-Site": "same-origin"}, 200, '"stage"'),
        ("/v1/rollouts/other/pause", "own", OURS, 403, "no right to control"),
        ("/v1/rollouts/fares/pause", "ops", OURS, 403, "no right to control"),
        ("/v1/rollouts/fares/pause", "bad", OURS, 401, "not known here"),
        ("/v1/rollouts/fares/pause", None, OURS, 401, "not known here"),
        # A form or a script of another site can send neither the header nor another word on where it is from.
        ("/v1/rollouts/fares/pause", "lead", {}, 403, "expected the header x-penstock-action"),
        ("/v1/rollouts/fares/pause", "lead", {**OURS, "Sec-Fetch-Site": "cross-site"}, 403, "no page of another site"),
        ("/v1/rollouts/fares/pause", "lead", {**OURS, "Sec-Fetch-Site": "same-site"}, 403, "no page of another site"),
        ("/v1/rollouts/other/pause", "lead", OURS, 404, "no version of model 'other'"),
        ("/v1/rollouts/fares/explode", "lead", OURS, 400, "there is no command 'explode'"),
        ("/v1/rollouts/away/pause", "lead", OURS, 503, "the registry is away"),
        ("/v1/rollouts/fares", "lead", OURS, 405, "POST is not answered here"),
        ("/v1/models", "lead", OURS, 405, "POST is not answered here"),
        ("/", None, {}, 405, "POST is not answered here"),
    ],
)
async def test_who_may_have_a_rollout_do_something(
    path: str, token: str | None, headers: dict[str, str], status: int, said: str
) -> None:
    shown = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        guarded() as address,
        aiohttp.ClientSession() as session,
        session.post(address + path, headers={**headers, **shown}) as reply,
    ):
        assert (reply.status, said in await reply.text()) == (status, True)


async def test_what_callers_had_done_is_written_down() -> None:
    with structlog.testing.capture_logs() as logs:
        async with guarded() as address, aiohttp.ClientSession() as session:
            for model, token in (("fares", "lead"), ("other", "lead"), ("other", "own"), ("fares", "bad")):
                await session.post(
                    f"{address}/v1/rollouts/{model}/pause", headers={**OURS, "Authorization": f"Bearer {token}"}
                )
    written = [(each["who"], each["action"], each["model"], each["result"]) for each in logs if each["event"] == EVENT]
    assert written == [
        ("token:lead", "pause", "fares", "done"),
        ("token:lead", "pause", "other", "no version of model 'other' is being rolled out"),
        ("token:own", "pause", "other", "the caller has no right to control here"),
    ]


async def test_webhooks_wake_the_poll_whoever_may_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of the tests")
    woken: list[str] = []
    taken = WebhookReceiver(WebhookSettings(secret), lambda: woken.append("woken"), wall=lambda: 1_700_000_000.0)
    signed = {
        "X-MLflow-Delivery-Id": "one",
        "X-MLflow-Timestamp": "1700000000",
        "X-MLflow-Signature": signature("a secret of the tests", "one", "1700000000", b"{}"),
    }
    gate = AccessGate(RULES)
    async with serving(webhooks=taken, gate=gate) as address, aiohttp.ClientSession(address) as session:

        async def post(body: bytes, headers: dict[str, str]) -> int:
            async with session.post("/v1/webhook", data=body, headers=headers) as reply:
                return reply.status

        assert await post(b"{}", signed) == 200
        assert await post(b"{ }", signed) == 401
        assert await post(b"{}", {}) == 401
        assert await post(bytes(MAX_BODY_BYTES + 1), signed) == 413
        async with session.get("/v1/webhook") as reply:
            assert reply.status == 401  # like all that is not there, for whoever is not known
        async with session.post("/v1/models", data=b"{}") as reply:
            assert reply.status == 413
        secret.unlink()
        assert await post(b"{}", signed) == 503  # MLflow sends it again
    assert woken == ["woken"]


async def test_without_a_secret_no_webhooks_are_taken(address: str) -> None:
    async with aiohttp.ClientSession(address) as session, session.post("/v1/webhook") as reply:
        assert reply.status == 405
