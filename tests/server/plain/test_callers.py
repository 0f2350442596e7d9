"""Known callers: what the kernels take from whom is what Python has allowed before, to the byte."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.kernels import compiled
from penstock_server.plain import layout
from penstock_server.plain.callers import KNOWN_NS, CallerBucket, PlainCallers
from penstock_server.plain.kernel_set import KERNELS
from penstock_server.plain.memory import LaneMemory as Arrays
from penstock_server.transport import layout as wire
from tests.server.plain.uncompiled import Memory, kernels_over

NOW = 10_000


def pair(name: bytes, value: bytes) -> bytes:
    return struct.pack("<II", len(name), len(value)) + name + value


class World:
    """Two connections with one stream each, and a table of callers that Python's class fills."""

    def __init__(self) -> None:
        self.memory = memory = Memory()
        self.kernels = kernels_over(memory)
        self.arrays = Arrays()
        self.words = np.zeros(layout.STATE_BYTES // 8, np.int64)
        self.callers = PlainCallers(self.words, self.arrays, self._hash)
        self.state = memory.add(layout.STATE_BYTES)
        self.streams = memory.add(2 * wire.STREAM_BYTES)
        self.connections = memory.add(2 * wire.CONNECTION_BYTES)
        memory.set_word(self.state + layout.T_STREAMS, self.streams)
        for slot in range(2):
            at = self.streams + slot * wire.STREAM_BYTES
            memory.set_word(at + wire.S_CONNECTION, self.connections + slot * wire.CONNECTION_BYTES)

    def _hash(self, value: bytes, size: int) -> int:
        found = self.kernels["scan"].hashed(self.memory.add(value), size) & (1 << 64) - 1
        return int(found - (1 << 64) if found >> 63 else found)

    def _load(self) -> None:
        """Copies the table of callers into the memory that is checked."""
        rows, memory = self.callers._rows.copy(), self.memory
        for row in rows:
            if row[layout.R_SIZE // 8]:
                number = (row[layout.R_SERIAL // 8] & (1 << layout.SERIAL_BITS) - 1) - 1
                shown = next(shown for shown, each in self.callers._numbers.items() if each == number)
                row[layout.R_VALUE // 8] = memory.add(shown)
        memory.set_word(self.state + layout.T_CALLERS, memory.add(rows.tobytes()))
        memory.set_word(self.state + layout.T_CALLER_BUCKETS, memory.add(self.callers._buckets.tobytes()))

    def headers(self, slot: int, block: bytes) -> None:
        at = self.streams + slot * wire.STREAM_BYTES
        self.memory.set_word(at + wire.S_HEADERS, self.memory.add(block))
        self.memory.set_word(at + wire.S_HEADERS_SIZE, len(block))

    def who(self, slot: int = 0) -> int | None:
        """The number of the caller; None if it is not known."""
        self._load()
        found = self.kernels["callers"].caller_of(self.state, slot)
        if not found:
            return None
        return int(found - self.memory.word(self.state + layout.T_CALLERS)) // layout.CALLER_BYTES

    def permit(self, shown: bytes | tuple[str, ...], plan: int = 0, **named: Any) -> int:
        return self.callers.permit(
            shown, plan, now_ns=NOW, until_ns=named.get("until_ns", layout.NEVER), bucket=named.get("bucket")
        )

    def may(self, number: int, plan: int, now: int = NOW) -> bool:
        self._load()
        row = self.memory.add(layout.PLAN_BYTES)
        self.memory.set_word(row + layout.P_NUMBER, plan)
        at = self.memory.word(self.state + layout.T_CALLERS) + number * layout.CALLER_BYTES
        return bool(self.kernels["callers"].may_have(at, row, now))


@pytest.fixture
def world() -> World:
    return World()


NAME = b"authorization"


@pytest.mark.parametrize(
    ("block", "number"),
    [
        (b"", None),
        (pair(NAME, b"Bearer a"), 0),
        (pair(NAME, b"Bearer b"), 1),
        (pair(NAME, b"Bearer c"), None),
        (pair(NAME, b"Bearer "), None),
        (pair(NAME, b""), None),
        (pair(NAME, b"Bearer a "), None),
        (pair(b"x", b"Bearer a"), None),
        (pair(b"xuthorization", b"Bearer a"), None),
        (pair(b"authorizatiox", b"Bearer a"), None),
        (pair(b"te", b"trailers") + pair(NAME, b"Bearer b") + pair(b"x", b""), 1),
        (pair(NAME, b"Bearer a") + pair(NAME, b"Bearer a"), None),
        (pair(NAME, b"Bearer a") + pair(b"te", b"x") + pair(NAME, b""), None),
        (pair(b"x", pair(NAME, b"Bearer a")), None),
    ],
)
def test_a_bearer_is_known_by_every_byte(world: World, block: bytes, number: int | None) -> None:
    world.permit(b"Bearer a")
    world.permit(b"Bearer b")
    world.permit(("dns:web",))
    world.headers(0, block)
    assert world.who() == number
    assert world.who() == number  # the connection remembers the last one


def test_what_a_connection_remembers_is_no_more_than_a_hint(world: World) -> None:
    world.permit(b"Bearer a")
    world.permit(b"Bearer b")
    for value, number in ((b"Bearer a", 0), (b"Bearer b", 1), (b"Bearer c", None), (b"Bearer a", 0)):
        world.headers(0, pair(NAME, value))
        assert world.who() == number
    world.callers.forget()
    world.permit(b"Bearer c")
    assert world.who() is None


def test_a_certificate_is_its_connections(world: World) -> None:
    mark = world.permit(("dns:web",))
    world.headers(0, pair(b"te", b"trailers"))
    assert world.who(0) is None
    world.memory.set_word(world.connections + wire.C_PEER, mark)
    assert world.who(0) == 0
    assert world.who(1) is None
    world.headers(0, pair(NAME, b"Bearer bad"))
    assert world.who(0) is None  # a token goes before the certificate
    world.headers(0, b"")
    world.callers.forget()
    world.permit(("dns:other",))
    assert world.who(0) is None  # the row is another's now


def test_a_connection_that_callers_share_is_nobodys(world: World) -> None:
    world.memory.set_word(world.connections + wire.C_PEER, world.permit(("dns:web",)))
    world.memory.set_word(world.connections + wire.C_FLAGS, wire.IS_LOCAL)
    world.permit(b"Bearer a")
    assert world.who() is None
    world.headers(0, pair(NAME, b"Bearer a"))
    assert world.who() == 1


def test_a_closed_stream_is_nobodys(world: World) -> None:
    world.memory.set_word(world.connections + wire.C_PEER, world.permit(("dns:web",)))
    assert world.who() == 0
    world.memory.set_word(world.streams + wire.S_FLAGS, wire.IS_CLOSED)
    assert world.who() is None
    world.memory.set_word(world.streams + wire.S_FLAGS, 0)
    world.memory.set_word(world.streams + wire.S_CONNECTION, 0)
    assert world.who() is None


def test_it_is_for_the_plans_and_the_time_that_were_allowed(world: World) -> None:
    world.permit(b"Bearer a", 3)
    world.permit(b"Bearer a", 1023)
    world.permit(b"Bearer b", 4, until_ns=NOW + 5)
    assert [plan for plan in range(layout.MAX_PLANS) if world.may(0, plan)] == [3, 1023]
    assert not world.may(0, 3, NOW + KNOWN_NS)
    assert world.may(1, 4, NOW + 4)
    assert not world.may(1, 4, NOW + 5)
    world.callers.forget_plans()
    assert not world.may(0, 3)


def test_a_bucket_is_counted_where_it_is_the_callers(world: World) -> None:
    memory, kernels = world.memory, world.kernels["callers"]
    at = memory.add(struct.pack("<qq", 77, 0))
    world.permit(b"Bearer a", bucket=CallerBucket(at, 77, 10, 25))
    world._load()
    row = memory.word(world.state + layout.T_CALLERS)
    taken = 0
    while (full := kernels.filled(row, NOW)) > 0:
        kernels.take_from(row, full)
        taken += 1
    assert (taken, full, memory.word(at + 8)) == (2, -1, NOW + 20)
    assert kernels.filled(row, NOW + 5) == NOW + 30
    memory.set_word(at, 78)
    assert kernels.filled(row, NOW + 1000) == -1
    world.permit(b"Bearer a")
    world._load()
    assert kernels.filled(memory.word(world.state + layout.T_CALLERS), NOW) == 0


def test_when_there_are_too_many_all_are_forgotten(world: World) -> None:
    for number in range(layout.MAX_CALLERS):
        world.permit(str(number).encode())
    serials = set(world.callers._rows[:, layout.R_SERIAL // 8].tolist())
    assert len(serials) == layout.MAX_CALLERS
    world.permit(b"one more")
    assert len(world.callers._numbers) == 1
    assert world.callers._rows[0, layout.R_SERIAL // 8] not in serials


def test_kernels_and_their_source_hash_alike() -> None:
    library = compiled.library(KERNELS)
    for value in (b"x", b"Bearer abc", bytes(range(256)) * 3):
        assert library.brief["hash_of"](value, len(value)) == World()._hash(value, len(value))


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([NAME, b"te", b"x-authorization", b"authorizatio", b"a" * 13]),
        st.sampled_from([b"", b"Bearer a", b"Bearer b", b"Bearer a\0", b"Bearer"]) | st.binary(max_size=9),
    ),
    max_size=5,
)


@given(HEADERS)
def test_any_headers_are_read_as_they_are(headers: list[tuple[bytes, bytes]]) -> None:
    world = World()
    known = {b"Bearer a": 0, b"Bearer b": 1}
    for value in known:
        world.permit(value)
    world.headers(0, b"".join(pair(*each) for each in headers))
    values = [value for name, value in headers if name == NAME]
    assert world.who() == (known.get(values[0]) if len(values) == 1 else None)
