"""Fused lanes as plain Python over memory that knows its blocks: whatever happens, each request is answered once or left."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tensors import join_bytes
from penstock_server.features.compiler.layout import COUNTING, DONE, REFUSED, TORN, WORD_BYTES
from penstock_server.plain import layout
from penstock_server.transport import layout as wire
from tests.server.plain.test_lanes import KEYS, SLOTS, Lanes, request
from tests.server.plain.uncompiled import Memory, kernels_over

TEXTS: Final = ("no", "yes!", "é" * 9)
FEATURES, MODEL = 11, 12
MOST: Final = 1 << 40


class FusedLane(Lanes):
    """A lane whose numbers are doubled, and named by their remainder; features refuse 666 and tear at 777."""

    def __init__(self, **bounds: int) -> None:
        super().__init__(**bounds)
        memory = self.memory
        self.fused_kernels: Any = kernels_over(memory)["fused"]
        memory.functions = {FEATURES: self._features, MODEL: self._model}
        self.runs: list[int] = []
        self.window = memory.add(8 * 4)
        self.running = memory.add(8)
        self.to_pass = 0
        outputs = memory.add(layout.MAX_OUTPUTS * layout.OUTPUT_BYTES)
        names = memory.add(b"".join([*(len(key).to_bytes(8, "little") for key in KEYS), *KEYS]))
        self.answers = memory.add(layout.ANSWER_BYTES)
        self._set(
            self.answers,
            {
                layout.W_STATE: self.state, layout.W_OUTPUTS: outputs, layout.W_NAMES: names, layout.W_LATENCY: self.latency,
                layout.W_SCRATCH: memory.add(layout.SCRATCH_BYTES), layout.W_MOST: bounds.get("most", 1 << 20),
                layout.W_LAYOUTS: self._layouts(), layout.W_LAYOUT_COUNT: 8,
            },
        )  # fmt: skip
        stages = memory.add(layout.STAGE_BYTES)
        self.counted = {at: memory.add(8 * 8) for at in range(0, 9 * 8, 8)}
        self._set(stages, self.counted | {layout.S_ROW_EDGES: memory.add((2).to_bytes(8, "little"))})
        self._set(stages, {layout.S_ROW_EDGE_COUNT: 1})
        self.waiting = memory.add(16)
        self.classes = memory.add(3 * layout.CLASS_BYTES)
        self.class_cells = memory.add(3 * 8)
        for label in range(3):
            place = self.classes + label * layout.CLASS_BYTES
            self._set(place, {layout.C_LABEL: label, layout.C_CELL: self.class_cells + 8 * label})
        self.fused = memory.add(layout.FUSED_BYTES)
        self._set(
            self.fused,
            {
                layout.U_FEATURES: FEATURES, layout.U_PROGRAM: 1, layout.U_FEATURE_SCRATCH: 2, layout.U_STRINGS: 1,
                layout.U_MATRIX_BYTES: 8, layout.U_MOST_TEXT: bounds.get("most_text", 1000), layout.U_MODEL: MODEL,
                layout.U_HEAD: 3, layout.U_MOST_ROWS: bounds.get("most_rows", 64), layout.U_SIZES: bounds.get("sizes", 15),
                layout.U_OUTPUTS: 2, layout.U_ROW_BYTES: 8, layout.U_ROW_BYTES_2: 8, layout.U_TEXTS_2: self._texts(),
                layout.U_ANSWERS: self.answers, layout.U_RUNNING: self.running, layout.U_STAGES: stages,
                layout.U_WAITING: self.waiting, layout.U_BESIDE_ROWS: 100, layout.U_BESIDE_REQUESTS: 10,
                layout.U_DRIFT: self.window, layout.U_DRIFT_AT: memory.add(8), layout.U_DRIFT_ROWS: memory.add(8),
                layout.U_WINDOWS: 1, layout.U_WINDOW_BYTES: 32, layout.U_WINDOW_ROWS: 1 << 40,
                layout.U_CLASS_OF_TEXT: memory.add(np.arange(3, dtype=np.int64).tobytes()),
                layout.U_PREDICTED: layout.LABELS, layout.U_PREDICTED_OUTPUT: 1, layout.U_CLASSES: self.classes,
                layout.U_CLASS_COUNT: 3, layout.U_CLASSES_AT: layout.NONE, layout.U_COST: memory.add(64),
                layout.U_LIMIT_ROWS: 64,
            },
        )  # fmt: skip
        self._set(
            self.state,
            {
                layout.T_TOUCHED: memory.add(64), layout.T_BATCH: memory.add(8 * layout.MOST_REQUESTS),
                layout.T_CLOCK: memory.add(layout.CLOCK_BYTES),
                layout.T_BUFFERS: memory.add(layout.BUFFERS * layout.BLOCK_BYTES),
                layout.T_ARRAYS: memory.add(layout.MAX_OUTPUTS * layout.ARRAY_BYTES),
                layout.T_REPLIES: memory.add(SLOTS * wire.OPERATION_BYTES),
            },
        )  # fmt: skip
        self._set(self.lane, {layout.L_FUSED: self.fused})

    def _layouts(self) -> int:
        """The constant parts of the replies of both forms, for one to four rows."""
        memory, rows = self.memory, b""
        for plan in (0, 1):
            for count in range(1, 5):
                head, parts = b"\x32" + bytes([8 * count]), memory.add(6 * 8)
                self._set(parts, {0: 0, 8: memory.add(head), 16: 2, 24: 1, 32: memory.add(b""), 40: 0})
                words = (plan, count, memory.add(f"<{plan}:{count}>".encode()), 5, parts, 2)
                rows += b"".join(word.to_bytes(8, "little") for word in words)
        return memory.add(rows)

    def _texts(self) -> int:
        raws = [join_bytes([text]) for text in TEXTS]
        starts = self.memory.add(np.cumsum([0, *map(len, raws)], dtype=np.int64).tobytes())
        table = self.memory.add(layout.TEXTS_BYTES)
        self._set(table, {layout.X_STARTS: starts, layout.X_BYTES: self.memory.add(b"".join(raws))})
        return table

    def _features(self, *words: int) -> int:
        program, numbers, texts, size, rows, matrix, cells, scratch, refused, flags = words
        assert (program, scratch, refused, flags, cells) == (1, 2, matrix, COUNTING, self.window)
        assert self.memory.word(self.running) > 0
        values = [self.memory.word(numbers + 8 * row) for row in range(rows)]
        assert self.memory.read(texts, size + WORD_BYTES)[size:] == bytes(WORD_BYTES)
        if 777 in values:
            return TORN
        self.memory.set_word(cells, self.memory.word(cells) + rows)
        for row, value in enumerate(values):
            self.memory.set_word(matrix + 8 * row, value)
        return REFUSED if 666 in values else DONE

    def _model(self, head: int, matrix: int, rows: int, one: int, two: int, three: int) -> int:
        assert head == 3
        assert three == one
        self.runs.append(rows)
        for row in range(rows):
            value = self.memory.word(matrix + 8 * row)
            self.memory.set_word(self.memory.word(one + 16) + 8 * row, 2 * value)
            self.memory.set_word(self.memory.word(two + 16) + 8 * row, value % 3)
        return 0

    def come(self, slot: int, values: Sequence[int], *, is_turned: bool = False, **call: Any) -> bool:
        """Whether a request waits now."""
        message = request("", values, ["word"] * len(values), is_turned=is_turned)
        return self.sift(wire.CALL, slot, message, now=1000, **call) and slot not in self.take_refused()

    def serve(self, most: int = MOST) -> int:
        """What is left to Python of the one lane; 0 if nothing is."""
        if self.fused_kernels.serve(self.state, 1000, most) == 0:
            return 0
        return self.memory.word(self.state + layout.T_OUTCOME)

    def batch(self) -> list[int]:
        """The slots of the batch that was taken."""
        at, count = (self.memory.word(self.state + place) for place in (layout.T_BATCH, layout.T_BATCH_COUNT))
        return [self.memory.word(abs(entry) + layout.N_SLOT) for entry in self._words(at, count)]

    def replies(self) -> dict[int, bytes]:
        memory = self.memory
        found: dict[int, bytes] = {}
        for at in range(memory.word(self.state + layout.T_REPLY_COUNT)):
            operation = memory.word(self.state + layout.T_REPLIES) + at * wire.OPERATION_BYTES
            place, size, slot = (memory.word(operation + word) for word in (wire.O_AT, wire.O_SIZE, wire.O_SLOT))
            assert slot not in found
            found[slot] = memory.read(memory.word(self.state + layout.T_BLOCK) + place, size)
        self._set(self.state, {layout.T_REPLY_COUNT: 0, layout.T_BLOCK_SIZE: 0})
        return found


def is_answer(reply: bytes, values: Sequence[int]) -> bool:
    numbers = b"".join((2 * value).to_bytes(8, "little") for value in values)
    texts = join_bytes([TEXTS[value % 3] for value in values])
    end = b"\x32" + bytes([len(numbers)]) + numbers + b"\x32" + bytes([len(texts)]) + texts
    return reply.startswith(b"<") and reply.endswith(end)


@given(
    calls=st.lists(
        st.tuples(st.lists(st.integers(0, 50), min_size=1, max_size=4), st.booleans()), min_size=1, max_size=6
    ),
    memory=st.integers(0, 12),
)
def test_requests_are_answered_in_batches_or_left(calls: Any, memory: int) -> None:
    lane = FusedLane()
    taken = {slot: values for slot, (values, turned) in enumerate(calls) if lane.come(slot, values, is_turned=turned)}
    answered: dict[int, bytes] = {}
    lane.memory.allocations = memory
    for _ in range(len(calls) + 2):
        left = lane.serve()
        assert left in (0, layout.TO_FAIL)
        replies = lane.replies()
        answered |= replies
        if not replies:  # there is memory again
            lane.memory.allocations = 1 << 60
        if left:
            at, count = (lane.memory.word(lane.state + place) for place in (layout.T_BATCH, layout.T_BATCH_COUNT))
            failed = set(lane.batch()) - set(replies)
            assert failed
            lane.kernels.end_batch(lane.state, at, count)
            taken = {slot: values for slot, values in taken.items() if slot not in failed}
            assert lane.serve(most=-1) == 0  # the pass is over
        if lane.memory.word(lane.lane + layout.L_REQUESTS) == 0:
            break
        assert lane.memory.word(lane.state + layout.T_TOUCHED_COUNT) == 1
    assert set(answered) == set(taken)
    assert all(is_answer(answered[slot], values) for slot, values in taken.items())
    assert lane.memory.word(lane.running) == 0
    assert lane.memory.word(lane.state + layout.T_FREE_COUNT) == lane.places
    assert lane._words(lane.waiting, 2) == [100, 10]
    assert lane._words(lane.counted[layout.S_ALL_REQUESTS], 1)[0] <= len(answered)


def test_what_a_batch_came_to_is_counted() -> None:
    lane = FusedLane()
    lane.come(0, [1, 2, 3])
    lane.come(1, [4])
    assert lane.serve() == 0
    assert set(lane.replies()) == {0, 1}
    assert lane.runs == [4]
    assert lane.memory.word(lane.window) == 4
    counted = {
        name: lane._words(lane.counted[getattr(layout, name)], 2)
        for name in ("S_BATCHES", "S_ALL_ROWS", "S_ALL_REQUESTS")
    }
    assert counted == {"S_BATCHES": [0, 1], "S_ALL_ROWS": [4, 0], "S_ALL_REQUESTS": [2, 0]}
    assert lane._words(lane.class_cells, 3) == [1, 2, 1]
    total, queue, _, _ = lane.latencies()
    assert sum(total) == sum(queue) == 2


@pytest.mark.parametrize(
    ("values", "outcome", "bounds"),
    [
        ([1, 777], layout.TO_RUN, {}),
        ([1, 666], layout.TO_REFUSE, {}),
        ([1, 2, 3], layout.TO_RUN, {"most_rows": 2}),
        ([1, 2, 3], layout.TO_RUN, {"sizes": 0b1101}),
        ([1, 2, 3], layout.TO_RUN, {"most_text": 23}),
        ([1, 2, 3], layout.TO_FINISH, {"most": 40}),
    ],
)
def test_what_is_not_usual_is_left_to_python(values: list[int], outcome: int, bounds: dict[str, int]) -> None:
    lane = FusedLane(**bounds)
    lane.come(3, values)
    assert lane.serve() == outcome
    assert lane.batch() == [3]
    assert lane.replies() == {}
    assert lane.memory.word(lane.running) == 0
    # The batch keeps its rows, and its call.
    assert lane.memory.word(lane.memory.word(lane.entry_of + 8 * 3) + layout.N_STATE) == layout.RUNNING
    assert lane.serve() == 0


def test_what_is_within_the_bounds_is_not_left() -> None:
    lane = FusedLane(most_rows=3, sizes=0b0010, most_text=24)
    lane.come(3, [1, 2, 3])
    assert lane.serve() == 0
    assert set(lane.replies()) == {3}


def test_a_class_that_is_not_known_is_left_to_be_counted() -> None:
    lane = FusedLane()
    lane._set(lane.fused, {layout.U_CLASS_COUNT: 2})
    lane.come(0, [0, 1, 2])
    assert lane.serve() == layout.TO_COUNT
    assert is_answer(lane.replies()[0], [0, 1, 2])
    assert lane._words(lane.class_cells, 3) == [0, 0, 0]


def test_a_request_that_is_to_be_logged_is_left() -> None:
    lane = FusedLane()
    to_pass = lane.memory.add((2).to_bytes(8, "little"))
    lane._set(lane.fused, {layout.U_TO_PASS: to_pass})
    lane.come(0, [1])
    lane.come(1, [1])
    assert lane.serve() == 0
    assert lane.memory.word(to_pass) == 0
    lane.come(2, [1])
    assert lane.serve() == layout.TO_RUN
    assert lane.memory.word(to_pass) == 0


def test_a_batch_that_a_shadow_gets_is_left() -> None:
    lane = FusedLane()
    passing = lane.memory.add(b"".join(word.to_bytes(8, "little") for word in (1, 4)))
    lane._set(lane.fused, {layout.U_COPIES: passing})
    lane.come(0, [1])
    lane.come(1, [1, 2])
    assert lane.serve() == 0
    assert lane._words(passing, 2) == [0, 7]
    lane.come(2, [1])
    assert lane.serve() == layout.TO_RUN
    assert lane._words(passing, 2) == [0, 7]


def test_a_form_whose_reply_is_not_known_is_left() -> None:
    lane = FusedLane()
    lane._set(lane.answers, {layout.W_LAYOUT_COUNT: 2})
    lane.come(0, [1, 2, 3])
    assert lane.serve() == layout.TO_RUN
    assert lane.runs == []


def test_callers_that_left_are_seen() -> None:
    lane = FusedLane()
    lane.come(0, [1])
    lane.come(1, [2])
    lane.sift(wire.CLOSED, 0, now=1000)
    lane.sift(wire.CLOSED, 1, now=1000)
    assert lane.serve() == 0
    assert lane.runs == []
    assert lane.word(layout.L_LEFT) == 0
    assert lane._words(lane.waiting, 2) == [100, 10]


def test_the_cost_is_learnt_once_a_request_had_a_deadline() -> None:
    lane = FusedLane()
    cost = lane.memory.word(lane.fused + layout.U_COST)
    lane.come(0, [1])
    lane.serve()
    assert lane.memory.read(cost, 64) == bytes(64)
    lane.come(1, [1], deadline=1 << 50)
    lane.serve()
    assert lane.memory.read(cost, 64) != bytes(64)


def three_lanes() -> tuple[Memory, Any, int, int]:
    """Three lanes that are not fused, each with something that has changed."""
    memory = Memory()
    kernels = kernels_over(memory)
    state, lanes = memory.add(layout.STATE_BYTES), memory.add(3 * layout.LANE_BYTES)
    for at, value in (
        (layout.T_LANES, lanes), (layout.T_TOUCHED, memory.add(64)), (layout.T_CLOCK, memory.add(layout.CLOCK_BYTES)),
    ):  # fmt: skip
        memory.set_word(state + at, value)
    for number in (2, 0, 1):
        kernels["waiting"].touch(state, lanes + number * layout.LANE_BYTES)
    return memory, kernels, state, lanes


def test_a_pass_looks_at_each_lane_once() -> None:
    _, kernels, state, lanes = three_lanes()
    serve = kernels["fused"].serve
    assert serve(state, 0, MOST) == 3
    kernels["waiting"].touch(state, lanes + 2 * layout.LANE_BYTES)  # while Python looks at it
    kernels["waiting"].touch(state, lanes)  # which waits already
    assert [serve(state, 0, MOST) for _ in range(3)] == [1, 2, 0]
    assert [serve(state, 0, MOST) for _ in range(2)] == [3, 0]
    assert serve(state, 0, MOST) == 0


def test_a_pass_ends_when_its_time_is_over() -> None:
    lane = FusedLane()
    for slot in range(3):
        lane.come(slot, [1])
    assert lane.serve(most=-1) == 0
    assert lane.replies() == {}
    assert lane.memory.word(lane.state + layout.T_TOUCHED_COUNT) == 1
    lane._set(lane.state, {layout.T_BLOCK_SIZE: layout.MOST_REPLY_BYTES + 1})
    assert lane.serve() == 0
    assert lane.replies() == {}
    assert lane.serve() == 0
    assert set(lane.replies()) == {0, 1, 2}
