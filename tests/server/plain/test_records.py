"""The kernel writes records as `labels.ring` reads them: whole ones alone, in order, and none where there is no room."""

import struct
from math import nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.labels import layout as records
from penstock_server.labels.keys import key_of
from penstock_server.plain import layout
from penstock_server.plain.requests import _hashing
from penstock_server.rollout.plan import salt_of
from tests.server.plain.uncompiled import Memory, kernels_over

NOW = 77
VERSION = 5
WEIGHT = 0.25


class Watched(Memory):
    """Memory that has somebody look after each write."""

    def __init__(self) -> None:
        super().__init__()
        self.look: Any = None

    def _write(self, at: int, content: bytes) -> None:
        super()._write(at, content)
        if self.look is not None:
            self.look()


class World:
    """A file with so many places, of which some records are written and taken, and a batch of answers."""

    def __init__(self, places: int, written: int, taken: int, scores: Any) -> None:
        self.memory = memory = Watched()
        self.kernels = kernels_over(memory)["records"]
        self.places = places
        self.state = memory.add(layout.STATE_BYTES)
        self.ring = memory.add(records.PAGE_BYTES + places * records.RECORD_BYTES)
        self.recording = memory.add(layout.RECORDING_BYTES)
        self.outputs = memory.add(layout.OUTPUT_BYTES)
        plans, self.entry = memory.add(2 * layout.PLAN_BYTES), memory.add(layout.ENTRY_BYTES)
        salt = salt_of("m")
        for at, value in (
            (self.state + layout.T_HASHING, memory.add(_hashing().tobytes())),
            (self.state + layout.T_PLANS, plans),
            (plans + layout.PLAN_BYTES + layout.P_ROLE, records.CANARY),
            (self.ring + records.PAGE_WRITTEN, written),
            (self.ring + records.PAGE_TAKEN, taken),
            (self.ring + records.PAGE_PLACES, places),
            (self.recording + layout.J_RING, self.ring),
            (self.recording + layout.J_VERSION, VERSION),
            (self.recording + layout.J_SALT, int.from_bytes(salt[:8], "little")),
            (self.recording + layout.J_SALT_2, int.from_bytes(salt[8:], "little")),
            (self.recording + layout.J_HOW, layout.LARGEST),
            (self.recording + layout.J_KIND, 1),
            (self.recording + layout.J_WIDTH, scores.shape[1]),
            (self.recording + layout.J_SCORE_KIND, 1),
            (self.recording + layout.J_SCORE_WIDTH, scores.shape[1]),
            (self.outputs + layout.A_DATA, memory.add(scores.tobytes())),
            (self.entry + layout.N_PLAN, 1),
        ):
            memory.set_word(at, value)
        memory.set_double(plans + layout.PLAN_BYTES + layout.P_WEIGHT, WEIGHT)
        for number in range(max(1, written - places + 1), written + 1):
            memory.set_word(self.place(number) + records.RECORD_NUMBER, number)

    def place(self, number: int) -> int:
        return self.ring + records.PAGE_BYTES + (number - 1) % self.places * records.RECORD_BYTES

    def page(self, at: int) -> int:
        return self.memory.word(self.ring + at)

    def whole(self, number: int) -> bytes | None:
        """The record of this number, if it is there."""
        content = self.memory.read(self.place(number), records.RECORD_BYTES)
        return content if int.from_bytes(content[records.RECORD_NUMBER :], "little") == number else None

    def record(self, request_id: bytes, rows: int, start: int = 0) -> None:
        for at, value in (
            (layout.N_DATA, self.memory.add(b"before" + request_id)),
            (layout.N_ID_AT, 6),
            (layout.N_ID_SIZE, len(request_id)),
            (layout.N_ROWS, rows),
        ):
            self.memory.set_word(self.entry + at, value)
        self.kernels.record(self.state, self.recording, self.outputs, self.entry, start, NOW)


@given(
    places=st.integers(1, 6),
    laps=st.integers(0, 3),
    written=st.integers(0, 5),
    waiting=st.integers(0, 6),
    rows=st.integers(1, 7),
    start=st.integers(0, 2),
)
def test_a_reader_never_finds_half_a_record(
    places: int, laps: int, written: int, waiting: int, rows: int, start: int
) -> None:
    written += laps * places
    taken = max(0, written - min(waiting, places))
    scores = np.arange(20.0).reshape(10, 2)[:, ::-1].copy()
    world = World(places, written, taken, scores)
    before = {number: world.whole(number) for number in range(taken + 1, written + 1)}
    seen: list[tuple[int, bytes]] = []

    def look() -> None:
        # What is not taken yet stays as it is, and what the page says is written is there.
        assert {number: world.whole(number) for number in before} == before
        assert all(world.whole(number) for number in range(written + 1, world.page(records.PAGE_WRITTEN) + 1))
        found = ((number, world.whole(number)) for number in range(written + 1, written + rows + 1))
        seen.extend((number, content) for number, content in found if content is not None)

    world.memory.look = look
    world.record(b"id", rows, start)
    fits = written + rows - taken <= places
    assert world.page(records.PAGE_WRITTEN) == written + rows * fits
    assert world.page(records.PAGE_LOST) == rows * (not fits)
    expected = {
        written + 1 + row: struct.pack(
            "<QqQqdddq", key_of("m", b"id"), NOW, VERSION | records.CANARY << 32, row, 0.0, scores[start + row, 1], WEIGHT,
            written + 1 + row,
        )
        for row in range(rows)
    }  # fmt: skip
    assert all(expected[number] == content for number, content in seen)
    assert {number for number, _ in seen} == (set(expected) if fits else set())


@pytest.mark.parametrize("rows", [1, 255, 256, 300])
def test_a_request_has_so_many_records_at_most(rows: int) -> None:
    world = World(400, 0, 0, np.zeros((300, 2)))
    world.record(b"id", rows)
    assert world.page(records.PAGE_WRITTEN) == min(rows, records.MOST_ROWS)


def test_a_request_without_an_id_has_none() -> None:
    world = World(4, 0, 0, np.zeros((1, 2)))
    world.record(b"id", 1)
    assert world.memory.word(world.entry + layout.N_KEY) & (1 << 64) - 1 == key_of("m", b"id")
    world.record(b"", 1)
    assert world.memory.word(world.entry + layout.N_KEY) == 0
    assert world.page(records.PAGE_WRITTEN) == 1


@pytest.mark.parametrize(
    ("scores", "label", "score"),
    [
        ([0.25], 0.0, 0.25),
        ([0.75, 0.25], 0.0, 0.25),
        ([0.25, 0.75], 1.0, 0.75),
        ([0.25, 0.5, 0.25], 1.0, 0.5),
        ([0.25, nan, 0.25], 1.0, nan),
    ],
)
def test_the_score_is_the_second_of_two_or_the_largest_of_more(scores: list[float], label: float, score: float) -> None:
    world = World(4, 0, 0, np.array([scores]))
    world.record(b"id", 1)
    place = world.place(1)
    assert world.memory.double_at(place + records.ANSWER_PREDICTION) == label
    assert world.memory.double_at(place + records.ANSWER_SCORE) == pytest.approx(score, nan_ok=True)
