"""`RepositoryModelLoad`: has the sources polled at once, and answers when the model is served as they say, or cannot be.

What is served is always what the sources desire, so loading a model means to look at them now and not at the next poll.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from penstock import inference_pb2 as pb
from penstock_server.errors import InvalidInputError, NotReadyError
from penstock_server.rollout.plan import VersionStatus

LOAD_S: Final = 60.0
"""How long a call waits for its model; loading goes on afterwards."""


class ServesModels(Protocol):
    """The supervisor."""

    async def act(self) -> None:
        """Acts on all that is known now."""

    def want(self, model: str) -> None:
        """Has a model loaded by all workers, where models are loaded when they are asked for."""

    async def next_round(self) -> None:
        """Returns when something may have changed."""

    def champion_status(self, model: str) -> tuple[str, VersionStatus]:
        """The version that is to answer for a model, and how it stands; `NotFoundError` if there is none."""
        ...


async def load(body: bytes, *, refresh: Callable[[], Awaitable[None]], supervisor: ServesModels) -> bytes:
    """The `RepositoryModelLoadResponse` to a `RepositoryModelLoadRequest`, both encoded.

    Args:
        body: the request.
        refresh: polls the sources.
        supervisor: brings the workers to what they said.

    Raises:
        NotFoundError: no source has such a model.
        InvalidInputError: its version cannot be served; says why.
        NotReadyError: it is not loaded yet.
    """
    request = pb.RepositoryModelLoadRequest.FromString(body)
    model = request.model_name or request.repository_name
    version, status = "", VersionStatus("LOADING", "its source is being read")
    try:
        async with asyncio.timeout(LOAD_S):
            await refresh()
            supervisor.want(model)
            await supervisor.act()
            version, status = supervisor.champion_status(model)
            while status.state == "LOADING":
                supervisor.want(model)
                await supervisor.next_round()
                version, status = supervisor.champion_status(model)
    except TimeoutError:
        raise NotReadyError(f"model {model!r} is still loading: {status.reason}") from None
    if status.state != "READY":
        raise InvalidInputError(f"model {model!r} version {version} cannot be served: {status.reason}")
    reply = pb.RepositoryModelLoadResponse()
    if not request.model_name:  # KServe's form
        reply.model_name, reply.isLoaded = model, True
    encoded: bytes = reply.SerializeToString()
    return encoded
