"""The roles that the demo gives in the registry, and the wait until the server plays them."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.names import CANARY, CHAMPION, SHADOW
from penstock_server.errors import UnavailableError
from penstock_tools.demo.metrics import fetch
from penstock_tools.demo.plan import CANARY_PERCENT, MODEL
from penstock_tools.publish.promote import Promotion, promote

LOOK_S: Final = 0.2


def cast(first: str, second: str, registry: str) -> None:
    """Makes the first version champion, and the second both canary and shadow.

    Raises:
        PenstockError: the registry refuses or does not answer.
    """
    promote(MODEL, first, CHAMPION, registry=registry)
    promote(MODEL, second, CANARY, CANARY_PERCENT, registry)
    promote(MODEL, second, SHADOW, registry=registry)


async def promoted(version: str, registry: str) -> Promotion:
    """Makes the version champion, on a thread; what `penstock promote` does.

    Raises:
        PenstockError: the registry refuses or does not answer.
    """
    return await asyncio.to_thread(promote, MODEL, version, registry=registry)


async def played(first: str, second: str, http: str, *, timeout_s: float = 60.0) -> None:
    """Waits until the server plays what was cast; ready comes earlier where a folder remembers a former demo.

    Raises:
        UnavailableError: it does not in time; says how the versions stand.
    """
    standing: Mapping[str, Any] = {"models": []}
    try:
        async with asyncio.timeout(timeout_s):
            while not is_cast(standing, first, second):
                await asyncio.sleep(LOOK_S)
                standing = msgspec.json.decode(await asyncio.to_thread(fetch, f"http://{http}/v1/models"))
    except TimeoutError:
        raise UnavailableError(f"the server does not serve both versions: {describe(standing)}") from None


def is_cast(standing: Mapping[str, Any], first: str, second: str) -> bool:
    """Whether /v1/models shows the first version as champion, the second as canary and shadow, and all ready."""
    roles = {(each["version"], each["role"]) for each in standing["models"] if each["state"] == "READY"}
    return roles >= {(first, CHAMPION), (second, CANARY), (second, SHADOW)}


def describe(standing: Mapping[str, Any]) -> str:
    """How the versions stand, in a few words each."""
    words = [
        " ".join(filter(None, (each["version"], each["role"], "is", each["state"], each["reason"])))
        for each in standing["models"]
    ]
    return "; ".join(words) or "it has loaded none"
