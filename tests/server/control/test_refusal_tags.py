from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.control.refusal_tags import MAX_CHARS, RefusalTags, due
from penstock_server.errors import InvalidInputError, PenstockError, UnavailableError, UnsupportedError
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.rollout.registered import REFUSED_TAG, Change, DeleteTag, Expected, SetTag
from penstock_server.sources.source import Desired

KEY = ("m", "2")


@pytest.mark.parametrize(
    ("refused", "ready", "found", "done", "expected"),
    [
        ("bad", False, None, None, "bad"),
        ("bad", False, "bad", None, None),  # another server wrote it
        ("bad", False, "worse", None, "bad"),
        ("bad", False, "worse", "bad", None),  # another server says so after this one did
        ("bad", False, None, "bad", None),  # another server took it away, or the poll is older
        ("bad", False, None, "worse", "bad"),
        ("bad", False, "bad", "", "bad"),  # deleted before, and what the poll found is older
        ("bad", True, None, None, "bad"),  # its former files answer
        ("b" * 5000, False, None, None, "b" * MAX_CHARS),
        (None, True, None, None, None),
        (None, True, "bad", None, ""),
        (None, True, None, "bad", ""),
        (None, True, "bad", "", None),  # deleted, and what the poll found is older
        (None, False, "bad", "bad", None),  # it is fetched or tried again: nothing is known yet
    ],
)
def test_what_is_to_be_written(
    refused: str | None, ready: bool, found: str | None, done: str | None, expected: str | None
) -> None:
    given_ = [{} if text is None else {KEY: text} for text in (refused, found, done)]
    assert due(given_[0], {KEY} if ready else set(), given_[1], given_[2]) == (
        {} if expected is None else {KEY: expected}
    )


class Registry:
    """Holds tags, and may refuse."""

    def __init__(self) -> None:
        self.tags: dict[tuple[str, str], str] = {}
        self.writes = 0
        self.error: PenstockError | None = None

    async def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        self.writes += 1
        assert expected == Expected({})
        if self.error is not None:
            raise self.error
        for change in changes:
            match change:
                case SetTag(version, key, value):
                    self.tags[model, version] = value
                case DeleteTag(version, key):
                    self.tags.pop((model, version), None)
            assert key == REFUSED_TAG


class Server:
    """A server that refuses some versions and can serve others."""

    def __init__(self, registry: Registry) -> None:
        self.refused: dict[tuple[str, str], str] = {}
        self.ready: set[tuple[str, str]] = set()
        self.desired = Desired({"m": TrafficPlan("2")})
        self.tags = RefusalTags(
            refused=lambda: self.refused, ready=lambda: self.ready, desired=self._desired, registry=registry
        )
        self._registry = registry

    def _desired(self) -> Desired:
        found: dict[str, dict[str, str]] = {}
        for (model, version), text in self._registry.tags.items():
            found.setdefault(model, {})[version] = text
        return Desired(self.desired.models, refused=found)


async def test_the_tag_comes_once_and_goes_when_the_version_can_be_served() -> None:
    registry = Registry()
    server = Server(registry)
    server.refused = {KEY: "its digest is wrong", ("m", "7"): "nobody desires it"}
    for _ in range(3):
        await server.tags.look()
    assert (registry.tags, registry.writes) == ({KEY: "its digest is wrong"}, 1)
    server.refused = {}
    await server.tags.look()
    assert registry.tags  # it is being tried again
    server.ready = {KEY}
    for _ in range(3):
        await server.tags.look()
    assert (registry.tags, registry.writes) == ({}, 2)


async def test_a_tag_of_a_server_before_goes_too() -> None:
    registry = Registry()
    registry.tags = {KEY: "of the server before"}
    server = Server(registry)
    server.ready = {KEY}
    await server.tags.look()
    assert registry.tags == {}


@given(st.lists(st.integers(0, 2), max_size=60))
async def test_servers_that_disagree_come_to_an_end(turns: list[int]) -> None:
    registry = Registry()
    first, second, third = Server(registry), Server(registry), Server(registry)
    first.refused, second.refused, third.ready = {KEY: "too large here"}, {KEY: "too slow here"}, {KEY}
    for turn in turns:
        await (first, second, third)[turn].tags.look()
    assert registry.writes <= 5


@pytest.mark.parametrize(
    ("error", "writes"),
    [(UnavailableError("away"), 3), (UnsupportedError("a folder"), 1), (InvalidInputError("may not"), 1)],
)
async def test_a_registry_that_takes_nothing_hurts_nobody(error: Any, writes: int) -> None:
    registry = Registry()
    registry.error = error
    server = Server(registry)
    server.refused = {KEY: "bad"}
    for _ in range(3):
        await server.tags.look()
    assert registry.writes == writes
