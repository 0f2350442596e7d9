"""Writes why a version is refused to a tag of the version in the registry, and takes it away when the version can be served.

What is to be written is a pure function of what is known. A server writes the same words once: of servers that disagree,
such as one with less memory, none writes against another for ever. Whoever cannot write serves on all the same.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import structlog

from penstock.names import VersionKey
from penstock_server.control.lease_keeper import WritesRegistry
from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnsupportedError
from penstock_server.rollout.registered import REFUSED_TAG, DeleteTag, Expected, SetTag
from penstock_server.sources.source import Desired

log = structlog.get_logger(__name__)

LOOK_S: Final = 2.0
"""The mean pause between two looks, which is by chance from half of it to one and a half: the first of many servers writes,
and the others find its tag."""
MAX_CHARS: Final = 1000
"""A reason is cut there; MLflow takes 5,000."""


def due(
    refused: Mapping[VersionKey, str],
    ready: AbstractSet[VersionKey],
    found: Mapping[VersionKey, str],
    done: Mapping[VersionKey, str],
) -> dict[VersionKey, str]:
    """The text that is to be written now by version, "" where the tag is to be deleted.

    Args:
        refused: the versions that are refused, with the reasons.
        ready: those that every worker can serve.
        found: the tags that the registry had at the last poll, which may be older than what was written.
        done: what this server wrote last, "" where it deleted the tag.
    """
    wanted: dict[VersionKey, str] = {}
    for key, reason in refused.items():
        text = reason[:MAX_CHARS]
        if text and done.get(key) != text and (done.get(key) is not None or found.get(key) != text):
            wanted[key] = text
    for key in ready - refused.keys():
        if done.get(key) or (key not in done and found.get(key)):
            wanted[key] = ""
    return wanted


class RefusalTags:
    """Keeps the tags true, until cancelled.

    Args:
        refused: the versions that are refused now, with the reasons.
        ready: those that can be served.
        desired: what the sources say.
        registry: writes.
    """

    def __init__(
        self,
        *,
        refused: Callable[[], Mapping[VersionKey, str]],
        ready: Callable[[], AbstractSet[VersionKey]],
        desired: Callable[[], Desired],
        registry: WritesRegistry,
    ) -> None:
        self._refused = refused
        self._ready = ready
        self._desired = desired
        self._registry = registry
        self._done: dict[VersionKey, str] = {}
        self._told: set[str] = set()

    async def run(self) -> None:
        """Looks again and again."""
        while True:
            await asyncio.sleep(LOOK_S * (0.5 + random.random()))
            await self.look()

    async def look(self) -> None:
        """Writes what is due."""
        desired = self._desired()
        found = {(model, version): text for model, own in desired.refused.items() for version, text in own.items()}
        listed = {(model, version) for model, plan in desired.models.items() for version in plan.versions}
        for key in self._done.keys() - listed:
            del self._done[key]
        for key, text in due(self._refused(), self._ready(), found, self._done).items():
            if key in listed:
                await self._write(key, text)

    async def _write(self, key: VersionKey, text: str) -> None:
        model, version = key
        change = SetTag(version, REFUSED_TAG, text) if text else DeleteTag(version, REFUSED_TAG)
        try:
            await self._registry.write(model, Expected({}), [change])
        except (UnsupportedError, InvalidInputError, NotFoundError) as error:
            self._tell(str(error))  # a folder, or a server that may not write: that will not change soon
        except PenstockError as error:
            self._tell(str(error))
            return  # the next look tries again
        self._done[key] = text

    def _tell(self, reason: str) -> None:
        if reason not in self._told and len(self._told) < MAX_CHARS:
            self._told.add(reason)
            log.info("the tag of a refused version is not written", tag=REFUSED_TAG, reason=reason)
