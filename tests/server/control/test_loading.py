import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock import inference_pb2 as pb
from penstock_server.control import loading
from penstock_server.control.loading import load
from penstock_server.errors import InvalidInputError, NotFoundError, NotReadyError
from penstock_server.rollout.plan import VersionStatus

LOADING, READY = VersionStatus("LOADING", "waits to be tried"), VersionStatus("READY")


@dataclass
class Server:
    """The sources and the supervisor: what was asked of them, in order, and how a model stands after each round."""

    stands: list[VersionStatus]
    heard: list[str] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)

    async def refresh(self) -> None:
        self.heard.append("refresh")

    async def act(self) -> None:
        self.heard.append("act")

    def want(self, model: str) -> None:
        self.wanted.append(model)

    async def next_round(self) -> None:
        self.heard.append("round")
        self.stands.pop(0)

    def champion_status(self, model: str) -> tuple[str, VersionStatus]:
        if model != "m":
            raise NotFoundError(f"no source has a champion of model {model!r}")
        return "3", self.stands[0]

    async def load(self, **request: Any) -> pb.RepositoryModelLoadResponse:
        body = pb.RepositoryModelLoadRequest(**request).SerializeToString()
        return pb.RepositoryModelLoadResponse.FromString(await load(body, refresh=self.refresh, supervisor=self))


@pytest.mark.parametrize(
    ("request_fields", "reply"),
    [
        ({"model_name": "m"}, pb.RepositoryModelLoadResponse()),
        ({"repository_name": "folder", "model_name": "m"}, pb.RepositoryModelLoadResponse()),
        ({"repository_name": "m"}, pb.RepositoryModelLoadResponse(model_name="m", isLoaded=True)),
    ],
)
async def test_each_form_has_its_reply(request_fields: dict[str, str], reply: Any) -> None:
    server = Server([READY])
    assert await server.load(**request_fields) == reply
    assert server.heard == ["refresh", "act"]


async def test_it_answers_when_the_model_does() -> None:
    server = Server([LOADING, LOADING, READY])
    await server.load(model_name="m")
    assert server.heard == ["refresh", "act", "round", "round"]


async def test_what_cannot_be_served_is_an_error_with_the_reason() -> None:
    server = Server([LOADING, VersionStatus("UNAVAILABLE", "its digest is wrong")])
    with pytest.raises(InvalidInputError, match="model 'm' version 3 cannot be served: its digest is wrong"):
        await server.load(model_name="m")
    with pytest.raises(NotFoundError, match="'z'"):
        await server.load(model_name="z")


async def test_a_load_that_takes_too_long_goes_on_without_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LOAD_S", 0.01)
    server = Server([LOADING])

    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(server, "next_round", never)
    with pytest.raises(NotReadyError, match="model 'm' is still loading: waits to be tried"):
        await server.load(model_name="m")
