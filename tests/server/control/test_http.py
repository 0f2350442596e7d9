import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from penstock_server.control.http import AdminServer
from penstock_server.control.view import ServerView
from penstock_server.errors import NotFoundError

VIEW = ServerView((), (), {}, is_ready=True, reloads=0, failed_reloads=0)


def drift(model: str, version: str) -> bytes:
    if model == "unknown":
        raise NotFoundError("no version of model 'unknown' is loaded")
    return json.dumps([model, version]).encode()


@pytest.fixture
async def address() -> AsyncIterator[str]:
    admin = AdminServer(view=lambda: VIEW, sources=lambda: (), registry=CollectorRegistry(), drift=drift)
    port = await admin.start("127.0.0.1", 0)
    yield f"http://127.0.0.1:{port}"
    await admin.close()


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("/v1/drift", 200, ["", ""]),
        ("/v1/drift?version=@champion", 200, ["", "@champion"]),
        ("/v1/drift/fares", 200, ["fares", ""]),
        ("/v1/drift/a%20b%C3%BC?version=3", 200, ["a bü", "3"]),
        ("/v1/drift/unknown", 404, {"error": "no version of model 'unknown' is loaded"}),
    ],
)
async def test_drift_is_told_of_a_model_and_a_version(address: str, path: str, status: int, answer: object) -> None:
    async with aiohttp.ClientSession() as session, session.get(address + path) as reply:
        assert (reply.status, reply.content_type, await reply.json()) == (status, "application/json", answer)
