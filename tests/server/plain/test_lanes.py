"""Lanes as plain Python over memory that knows its blocks: no request is lost, answered twice, or read after its end."""

from collections.abc import Sequence
from math import inf, nextafter
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock import inference_pb2 as pb
from penstock.tensors import join_bytes
from penstock_server.batching import priorities
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT
from penstock_server.batching.queue import BatchQueue
from penstock_server.labels.layout import CHAMPION, NAMED
from penstock_server.plain import layout
from penstock_server.plain.requests import _hashing
from penstock_server.rollout.plan import key_place, places_of, salt_of
from penstock_server.transport import layout as wire
from tests.examples import examples
from tests.server.plain.uncompiled import Memory, kernels_over

_SCAN, _DRAW, _WAITING = (kernels_over(Memory())[name] for name in ("scan", "draw", "waiting"))
SLOTS: Final = 16
MOST: Final = 4
METHOD: Final = 2
EXPIRED_AT: Final = 500
KEYS: Final = (b"\x0a\x01c", b"\x0a\x01r", b"\x0a\x01q")
EDGES: Final = (1000, 4000, 10000)


def request(request_id: str, values: Sequence[int], texts: Sequence[str], *, is_turned: bool) -> bytes:
    """Rows of a number and a text, in one of two forms."""
    made = pb.ModelInferRequest(model_name="m", id=request_id)
    tensors = [
        ("x", "INT64", b"".join(value.to_bytes(8, "little") for value in values)),
        ("s", "BYTES", join_bytes(texts)),
    ]
    for name, datatype, raw in tensors[::-1] if is_turned else tensors:
        made.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        made.raw_input_contents.append(raw)
    return bytes(made.SerializeToString())


class Lanes:
    """One lane with two forms, its tables in a memory of its own."""

    def __init__(self, **bounds: int) -> None:
        self.memory = memory = Memory()
        self.kernels: Any = kernels_over(memory)["lanes"]
        self.state = memory.add(layout.STATE_BYTES)
        self.places = bounds.get("places", 12)
        self.entries = memory.add(self.places * layout.ENTRY_BYTES)
        self.entry_of = memory.add(8 * SLOTS)
        self.lane = memory.add(layout.LANE_BYTES)
        self.plans = memory.add(2 * layout.PLAN_BYTES)
        self.buckets = memory.add(8 * layout.BUCKETS)
        self.blocks = memory.add(2 * layout.BLOCK_BYTES)
        self.found = memory.add(layout.FOUND_BYTES)
        self.routed = memory.add(8)
        self.refused = memory.add(8 * (layout.REASONS + 1))
        self.latency = memory.add(layout.LATENCY_BYTES)
        self._set(
            self.latency,
            {
                layout.H_EDGES: memory.add(b"".join(edge.to_bytes(8, "little") for edge in EDGES)),
                layout.H_EDGE_COUNT: len(EDGES),
                **{at: memory.add(32) for at in (layout.H_TOTAL, layout.H_QUEUE, layout.H_NAMED)},
                **{at: memory.add(8) for at in (layout.H_TOTAL_SUM, layout.H_QUEUE_SUM)},
            },
        )
        free = memory.add(8 * self.places)
        for at in range(self.places):
            memory.set_word(free + 8 * at, at)
        self._set(
            self.state,
            {
                layout.T_ENTRIES: self.entries,
                layout.T_ENTRY_OF: self.entry_of,
                layout.T_FREE: free,
                layout.T_FREE_COUNT: self.places,
                layout.T_PLANS: self.plans,
                layout.T_BUCKETS: self.buckets,
                layout.T_LANES: self.lane,
                layout.T_TOUCHED: memory.add(8),
                layout.T_REFUSED: memory.add(layout.OPERATION_BYTES * 4 * SLOTS),
                layout.T_EXPIRED: EXPIRED_AT,
                layout.T_EXPIRED_SIZE: 7,
                layout.T_SKELETON: memory.add(layout.MAX_SKELETON),
                layout.T_MAX_BYTES: 1000,
                layout.T_METHOD: METHOD,
                layout.T_SCRATCH: self.found,
                layout.T_CLOCK: memory.add(layout.CLOCK_BYTES),
                layout.T_REPLIES: memory.add(MOST * wire.OPERATION_BYTES),
            },
        )
        self._set(
            self.lane,
            {
                layout.L_LEVELS: memory.add(layout.LEVELS * layout.LEVEL_BYTES),
                layout.L_ENDINGS: self._endings(),
                layout.L_COUNTS: memory.add(b"".join(self._place(cell) for cell in range(layout.REASONS + 1))),
                layout.L_OBJECTIVE: bounds.get("objective", layout.NEVER),
                layout.L_DELAY: bounds.get("delay", 0),
                layout.L_DELAYED_UNTIL: layout.NEVER,
                layout.L_HALFWAY: layout.NEVER,
                layout.L_BLOCKS: self.blocks,
                layout.L_BLOCK_COUNT: 2,
                layout.L_MAX_REQUESTS: bounds.get("requests", 6),
                layout.L_MAX_ROWS: bounds.get("rows", 10),
                layout.L_MAX_BYTES: bounds.get("size", 500),
                layout.L_USUAL_ROWS: 4,
                layout.L_LARGEST: 4,
                layout.L_IS_OPEN: 1,
                layout.L_BASE: 10,
                layout.L_ROUTED: self.routed,
                layout.L_ROW: 5,
            },
        )
        memory.set_word(self.blocks + layout.B_ROW_BYTES, 8)
        for number, is_turned in enumerate((False, True)):
            self._learn(number, request("", [1], ["a"], is_turned=is_turned), is_turned=is_turned)
        self.messages: set[int] = set()

    def _place(self, cell: int) -> bytes:
        return (self.refused + 8 * cell).to_bytes(8, "little")

    @property
    def counts(self) -> list[int]:
        """How many requests were refused, by their reason, and how many callers left."""
        return self._words(self.refused, layout.REASONS + 1)

    def _endings(self) -> int:
        endings = self.memory.add(layout.REASONS * layout.ENDING_BYTES)
        for reason in range(layout.REASONS):
            place = endings + reason * layout.ENDING_BYTES
            self._set(place, {layout.G_AT: 1000 + reason, layout.G_SIZE: reason})
        return endings

    def take_refused(self) -> dict[int, int]:
        """How the calls end that were refused, by their slots: why, or `EXPIRED_AT`."""
        memory = self.memory
        ended = {}
        for at in range(memory.word(self.state + layout.T_REFUSED_COUNT)):
            operation = memory.word(self.state + layout.T_REFUSED) + at * wire.OPERATION_BYTES
            assert memory.word(operation + wire.O_KIND) == wire.REFUSE
            place, size = -memory.word(operation + wire.O_AT), memory.word(operation + wire.O_SIZE)
            assert size == (7 if place == EXPIRED_AT else place - 1000)
            slot = memory.word(operation + wire.O_SLOT)
            assert slot not in ended
            ended[slot] = place if place == EXPIRED_AT else place - 1000
        memory.set_word(self.state + layout.T_REFUSED_COUNT, 0)
        return ended

    def _set(self, row: int, words: dict[int, int]) -> None:
        for at, value in words.items():
            self.memory.set_word(row + at, value)

    def word(self, place: int) -> int:
        return self.memory.word(self.lane + place)

    def _learn(self, number: int, message: bytes, *, is_turned: bool) -> None:
        memory = self.memory
        skeleton = memory.word(self.state + layout.T_SKELETON)
        assert _SCAN.scan(self.found, skeleton, memory.add(message), len(message))
        size, hashed = memory.word(self.found + layout.F_SIZE), memory.word(self.found + layout.F_HASH)
        columns = [(layout.ROWS, 0, 0, 8, 0), (layout.TEXTS, 1, 0, 0, 0)]
        table = b"".join(
            word.to_bytes(8, "little") for column in (columns[::-1] if is_turned else columns) for word in column
        )
        bucket = self.buckets + 8 * (hashed & layout.BUCKETS - 1)
        plan = (
            memory.add(memory.read(skeleton, size)),
            size,
            hashed,
            0,
            2,
            memory.add(table),
            number,
            memory.word(bucket),
        )
        self._set(self.plans + number * layout.PLAN_BYTES, {8 * at: word for at, word in enumerate(plan)})
        # The turned form names no version.
        role = CHAMPION if is_turned else NAMED
        memory.set_word(self.plans + number * layout.PLAN_BYTES + layout.P_ROLE, role)
        memory.set_word(bucket, number + 1)

    def sift(self, kind: int, slot: int, message: bytes = b"", *, now: int, deadline: int = layout.NEVER) -> bool:
        """One event; whether it was taken. What was not is the transport's again."""
        event = self.memory.add(wire.EVENT_BYTES)
        data = self.memory.add(message) if kind == wire.CALL else 0
        words = (kind, slot, data, len(message), METHOD, deadline, 0, 0)
        self._set(event, {8 * at: word for at, word in enumerate(words)})
        had_entry = self.memory.word(self.entry_of + 8 * slot) != 0
        left = self.kernels.sift(self.state, event, 1, now)
        is_taken = self.memory.word(event + wire.E_KIND) == wire.TAKEN
        assert left == (not is_taken)
        if kind == wire.CALL and not is_taken:
            self.memory.release(data)
        elif kind == wire.CALL:
            self.messages.add(data)
        else:
            assert is_taken == (kind == wire.EXPIRED and had_entry)
        self.memory.release(event)
        return is_taken

    def gather(self, now: int, most: int = MOST) -> tuple[list[int], list[int], int]:
        """The entries of the next batch, the slots of those that are too late, and the table of the first."""
        batch = self.memory.add(8 * most)
        count = self.kernels.gather(self.state, 0, 4, most, batch, now)
        late = self.take_refused()
        assert set(late.values()) <= {layout.LATE, layout.MISSED}
        return self._words(batch, count), list(late), batch

    def _words(self, at: int, count: int) -> list[int]:
        return [self.memory.word(at + 8 * place) for place in range(count)]

    def latencies(self) -> tuple[list[int], list[int], float, float]:
        """The cells of what requests took and waited, and both sums."""
        at = [self.memory.word(self.latency + word) for word in (layout.H_TOTAL, layout.H_QUEUE)]
        sums = [self.memory.word(self.latency + word) for word in (layout.H_TOTAL_SUM, layout.H_QUEUE_SUM)]
        total, queue = (self._words(cells, len(EDGES) + 1) for cells in at)
        return total, queue, *(self.memory.double_at(one) for one in sums)  # type: ignore[return-value]

    def block(self, number: int) -> bytes:
        row = self.blocks + number * layout.BLOCK_BYTES
        size = self.memory.word(row + layout.B_SIZE)
        return self.memory.read(self.memory.word(row + layout.B_DATA), size) if size else b""

    def answer(self, batch: int, count: int, outputs: tuple[bytes, Sequence[bytes]], most: int) -> dict[int, bytes]:
        """Replies with the batch's numbers and texts, by their slots."""
        memory = self.memory
        numbers, texts = outputs
        offsets = [sum(map(len, texts[:at])) for at in range(len(texts) + 1)]
        table = memory.add(2 * layout.OUTPUT_BYTES)
        offsets_at = memory.add(b"".join(at.to_bytes(8, "little") for at in offsets))
        self._set(table, {layout.A_DATA: memory.add(numbers), layout.A_ROW_BYTES: 8})
        self._set(
            table + layout.OUTPUT_BYTES, {layout.A_DATA: memory.add(b"".join(texts)), layout.A_OFFSETS: offsets_at}
        )
        layouts = []
        while True:
            at = memory.add(b"".join(word.to_bytes(8, "little") for one in layouts for word in one))
            missing = self.kernels.missing_layout(batch, count, at, len(layouts))
            if missing < 0:
                break
            entry = memory.word(batch + 8 * missing)
            plan, rows = memory.word(entry + layout.N_PLAN), memory.word(entry + layout.N_ROWS)
            head = b"\x32" + bytes([8 * rows])
            parts = memory.add(6 * 8)
            self._set(parts, {0: 0, 8: memory.add(head), 16: 2, 24: 1, 32: memory.add(b""), 40: 0})
            layouts.append((plan, rows, memory.add(f"<{plan}:{rows}>".encode()), 5, parts, 2))
        names = memory.add(b"".join([*(len(key).to_bytes(8, "little") for key in KEYS), *KEYS]))
        answers = memory.add(layout.ANSWER_BYTES)
        self._set(
            answers,
            {
                layout.W_STATE: self.state, layout.W_BATCH: batch, layout.W_COUNT: count, layout.W_OUTPUTS: table,
                layout.W_LAYOUTS: at, layout.W_LAYOUT_COUNT: len(layouts), layout.W_NAMES: names,
                layout.W_BEGAN: 5000, layout.W_ENDED: 9000, layout.W_MOST: most,
                layout.W_COMPUTED: 7, layout.W_ROWS: 9, layout.W_LATENCY: self.latency,
                layout.W_SCRATCH: memory.add(layout.SCRATCH_BYTES),
            },
        )  # fmt: skip
        done = self.kernels.answer(answers)
        block, operations = memory.word(self.state + layout.T_BLOCK), memory.word(self.state + layout.T_REPLIES)
        assert done == memory.word(self.state + layout.T_REPLY_COUNT)
        self._set(self.state, {layout.T_REPLY_COUNT: 0, layout.T_BLOCK_SIZE: 0})
        replies = {}
        for at in range(done):
            operation = operations + at * wire.OPERATION_BYTES
            assert memory.word(operation + wire.O_KIND) == wire.SEND_REPLY
            place, size = memory.word(operation + wire.O_AT), memory.word(operation + wire.O_SIZE)
            replies[memory.word(operation + wire.O_SLOT)] = memory.read(block + place, size)
        return replies


def reply(plan: int, request_id: str, values: Sequence[int], texts: Sequence[str]) -> bytes:
    """A reply as it should be; it waited for no whole microsecond less than five."""
    numbers, words = b"".join(value.to_bytes(8, "little") for value in values), join_bytes(texts)
    said = b"\x1a" + bytes([len(request_id)]) + request_id.encode() if request_id else b""
    times = [b"\x22\x07" + key + b"\x12\x02\x10" + bytes([value]) for key, value in zip(KEYS, (7, 9, 4), strict=True)]
    head = f"<{plan}:{len(values)}>".encode() + said + b"".join(times)
    return head + b"\x32" + bytes([len(numbers)]) + numbers + b"\x32" + bytes([len(words)]) + words


class Walk(RuleBasedStateMachine):
    """Calls come, leave, expire, run and are answered in any order."""

    @initialize(
        requests=st.integers(1, 7),
        rows=st.integers(1, 12),
        size=st.integers(50, 600),
        places=st.sampled_from([5, 12]),
    )
    def begin(self, **bounds: int) -> None:
        self.bounds = bounds
        self.lanes = Lanes(**bounds)
        self.now = 1000
        self.waiting: dict[int, Any] = {}
        self.running: list[tuple[int, list[Any]]] = []
        self.number = 0
        self.answered = 0

    @property
    def busy(self) -> set[int]:
        """The slots of calls that wait or run."""
        return set(self.waiting) | {call["slot"] for _, calls in self.running for call in calls if not call["left"]}

    @rule(
        calls=st.lists(
            st.tuples(
                st.integers(1, 5),
                st.booleans(),
                st.booleans(),
                st.lists(st.sampled_from(["", "a", "word", "é" * 9]), min_size=5, max_size=5),
                st.sampled_from([None, None, 20, 30, 40, 60, 200]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    def come(self, calls: list[Any]) -> None:
        for call in calls:
            self._comes(*call)

    def _comes(self, rows: int, is_turned: bool, has_id: bool, words: list[str], left_ns: int | None) -> None:
        free = [slot for slot in range(SLOTS) if slot not in self.busy]
        if not free:
            return
        slot = free[0]
        self.number += 1
        values = [self.number * 10 + at for at in range(rows)]
        call = {
            "slot": slot, "id": f"id{self.number}" if has_id else "", "values": values, "texts": words[:rows],
            "plan": int(is_turned), "left": False, "deadline": layout.NEVER if left_ns is None else self.now + left_ns,
        }  # fmt: skip
        message = request(call["id"], values, call["texts"], is_turned=is_turned)
        call["size"] = len(message)
        has_room = (
            rows <= 4
            and len(self.waiting) < self.bounds["requests"]
            and (
                not self.waiting
                or sum(len(one["values"]) for one in self.waiting.values()) + rows <= self.bounds["rows"]
            )
            and (
                not self.waiting
                or sum(one["size"] for one in self.waiting.values()) + len(message) <= self.bounds["size"]
            )
        )
        free_places = self.lanes.memory.word(self.lanes.state + layout.T_FREE_COUNT)
        counted, routed = sum(self.lanes.counts), self.lanes.memory.word(self.lanes.routed)
        is_taken = self.lanes.sift(wire.CALL, slot, message, now=self.now, deadline=call["deadline"])
        refused = self.lanes.take_refused()
        assert sum(self.lanes.counts) == counted + len(refused)
        assert self.lanes.memory.word(self.lanes.routed) == routed + (is_taken and is_turned)
        assert is_taken or (rows > 4 or not free_places or (left_ns is not None and not self.waiting))
        if is_taken and refused:
            assert refused == {slot: layout.LATE if left_ns is not None and refused[slot] else layout.FULL}
            assert refused[slot] == layout.LATE or not has_room
        elif is_taken:
            assert has_room
            self.waiting[slot] = call

    @rule(data=st.data(), kind=st.sampled_from([wire.CLOSED, wire.EXPIRED]))
    def leaves(self, data: Any, kind: int) -> None:
        slot = data.draw(self.any_slot)
        before, counted = self.lanes.word(layout.L_LEFT), self.lanes.counts[-1]
        self.lanes.sift(kind, slot, now=self.now)
        assert self.lanes.word(layout.L_LEFT) == before + (slot in self.busy)
        assert self.lanes.counts[-1] == counted + (slot in self.busy)
        is_told = kind == wire.EXPIRED and slot in self.busy
        assert self.lanes.take_refused() == ({slot: EXPIRED_AT} if is_told else {})
        self._left(slot)

    def _left(self, slot: int) -> None:
        self.waiting.pop(slot, None)
        for _, calls in self.running:
            for call in calls:
                call["left"] |= call["slot"] == slot

    @property
    def any_slot(self) -> st.SearchStrategy[int]:
        return st.sampled_from([*self.busy, *self.busy, self.number % SLOTS])

    @rule(data=st.data())
    def is_given_up(self, data: Any) -> None:
        slot = data.draw(self.any_slot)
        assert self.lanes.kernels.give_up(self.lanes.state, slot) == (slot in self.busy)
        self._left(slot)

    @rule(passed=st.sampled_from([5, 5, 10, 30, 300]))
    def time_passes(self, passed: int) -> None:
        self.now += passed

    @precondition(lambda self: len(self.running) < 3)
    @rule(memory=st.sampled_from([0, 1, 1 << 60, 1 << 60, 1 << 60]))
    def a_batch_is_taken(self, memory: int) -> None:
        self.lanes.memory.allocations = memory
        entries, late, batch = self.lanes.gather(self.now)
        self.lanes.memory.allocations = 1 << 60
        expected = list(self.waiting.values())
        calls = []
        for slot in late:
            call = self.waiting.pop(slot)
            assert call["deadline"] <= self.now + 10 + 5 * len(call["values"])
        for entry in entries:
            slot = self.lanes.memory.word(entry + layout.N_SLOT)
            calls.append(self.waiting.pop(slot))
        rows = sum(len(call["values"]) for call in calls)
        assert [call for call in expected if call in calls] == calls
        assert rows <= 4 or len(calls) == 1
        assert all(call["deadline"] > self.now + 10 + 5 * rows for call in calls[1:])
        assert self.lanes.block(0) == b"".join(
            value.to_bytes(8, "little") for call in calls for value in call["values"]
        )
        assert self.lanes.block(1) == b"".join(join_bytes(call["texts"]) for call in calls)
        if calls:
            self.running.append((batch, calls))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), most=st.sampled_from([1 << 20, 1 << 20, 70]))
    def a_batch_is_answered(self, data: Any, most: int) -> None:
        batch, calls = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        numbers = b"".join(value.to_bytes(8, "little") for call in calls for value in call["values"])
        texts = [join_bytes([text]) for call in calls for text in call["texts"]]
        for call in calls:
            if not call["left"]:
                entry = self.lanes.memory.word(self.lanes.entry_of + 8 * call["slot"])
                self.lanes.memory.set_word(entry + layout.N_ARRIVED, 1000)
        found = self.lanes.answer(batch, len(calls), (numbers, texts), most)
        replies = {
            call["slot"]: reply(call["plan"], call["id"], call["values"], call["texts"])
            for call in calls
            if not call["left"]
        }
        assert found == {slot: one for slot, one in replies.items() if len(one) <= most}
        self.answered += len(found)
        self.lanes.kernels.end_batch(self.lanes.state, batch, len(calls))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_batch_is_given_up(self, data: Any) -> None:
        batch, calls = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.lanes.kernels.end_batch(self.lanes.state, batch, len(calls))

    @rule()
    def the_lane_is_emptied(self) -> None:
        batch = self.lanes.memory.add(8 * MOST)
        while count := self.lanes.kernels.empty(self.lanes.state, 0, batch, MOST):
            for at in range(count):
                entry = self.lanes.memory.word(batch + 8 * at)
                del self.waiting[self.lanes.memory.word(entry + layout.N_SLOT)]
            self.lanes.kernels.end_batch(self.lanes.state, batch, count)
        assert not self.waiting

    @invariant()
    def what_was_answered_is_counted(self) -> None:
        """Each came at 1000 to a batch that began at 5000 and ended at 9000."""
        count = self.answered
        assert self.lanes.latencies() == ([0, 0, count, 0], [0, count, 0, 0], 8000.0 * count, 4000.0 * count)

    @invariant()
    def what_waits_is_counted(self) -> None:
        lanes = self.lanes
        waiting = self.waiting.values()
        assert lanes.word(layout.L_REQUESTS) == len(waiting)
        assert lanes.word(layout.L_ROWS) == sum(len(call["values"]) for call in waiting)
        assert lanes.word(layout.L_BYTES) == sum(call["size"] for call in waiting)
        slots = {slot for slot in range(SLOTS) if lanes.memory.word(lanes.entry_of + 8 * slot)}
        assert slots == self.busy
        if not waiting and not self.running:
            assert lanes.memory.word(lanes.state + layout.T_FREE_COUNT) == lanes.places

    def teardown(self) -> None:
        if hasattr(self, "lanes"):
            self.the_lane_is_emptied()
            for batch, calls in self.running:
                self.lanes.kernels.end_batch(self.lanes.state, batch, len(calls))
            self.waiting.clear()
            self.running.clear()
            self.what_waits_is_counted()
            assert not self.lanes.messages & self.lanes.memory.blocks


TestWalk = Walk.TestCase
TestWalk.settings = examples(150, stateful_step_count=40)


@given(
    kinds=st.sampled_from([(layout.DOUBLES, 8, "<d"), (layout.SINGLES, 4, "<f")]),
    values=st.lists(st.floats(width=32), min_size=1, max_size=4),
)
def test_missing_numbers_are_found(kinds: tuple[int, int, str], values: list[float]) -> None:
    import struct

    memory = Memory()
    lanes = kernels_over(memory)["lanes"]
    data = memory.add(b"".join(struct.pack(kinds[2], value) for value in values))
    assert lanes.has_missing(kinds[0], data, len(values)) == any(value != value for value in values)


@given(values=st.lists(st.sampled_from([0, -1, -(2**63), 2**63 - 1, -(2**63) + 1]), min_size=1, max_size=4))
def test_missing_times_are_found(values: list[int]) -> None:
    memory = Memory()
    lanes = kernels_over(memory)["lanes"]
    data = memory.add(b"".join(value.to_bytes(8, "little", signed=True) for value in values))
    assert lanes.has_missing(layout.ROWS, data, len(values)) == (-(2**63) in values)


def ask(lanes: Lanes, slot: int, rows: int = 1, *, now: int = 0, deadline: int = layout.NEVER) -> bool:
    message = request("", list(range(rows)), ["text"] * rows, is_turned=False)
    return lanes.sift(wire.CALL, slot, message, now=now, deadline=deadline)


def test_without_a_place_a_request_takes_the_general_path() -> None:
    lanes = Lanes(places=2)
    assert [ask(lanes, slot) for slot in range(3)] == [True, True, False]
    for slot in range(2):
        lanes.sift(wire.CLOSED, slot, now=0)
    assert [ask(lanes, slot) for slot in range(3, 6)] == [True, True, False]
    assert not lanes.take_refused()


def test_a_batch_for_which_memory_ends_holds_whole_requests() -> None:
    lanes = Lanes()
    for slot in range(2):
        assert ask(lanes, slot, 2)
    lanes.memory.allocations = 3  # of the second request the numbers find room, and the texts do not
    entries, _, _ = lanes.gather(0)
    assert len(entries) == 1
    assert (len(lanes.block(0)), len(lanes.block(1))) == (16, 16)
    lanes.memory.allocations = 1
    entries, _, _ = lanes.gather(0)
    assert len(entries) == 1
    assert (len(lanes.block(0)), len(lanes.block(1))) == (16, 16)


def test_a_batch_ends_where_it_would_be_late_for_one_in_it() -> None:
    for deadlines, expected in (((layout.NEVER, 24), 1), ((24, layout.NEVER), 1), ((25, 25), 2), ((21, 15), 1)):
        lanes = Lanes()
        for slot, deadline in enumerate(deadlines):
            lanes.memory.set_word(lanes.lane + layout.L_BASE, 0)
            assert ask(lanes, slot, deadline=deadline)
        lanes.memory.set_word(lanes.lane + layout.L_BASE, 10)
        lanes.memory.set_word(lanes.lane + layout.L_ROW, 7)
        entries, late, _ = lanes.gather(0)
        assert (len(entries), len(late)) == (expected, int(15 in deadlines))


def test_a_buffer_that_has_grown_far_is_given_back() -> None:
    lanes = Lanes()
    assert ask(lanes, 0)
    lanes.gather(0)
    row = lanes.blocks + layout.BLOCK_BYTES
    usual = lanes.memory.word(row + layout.B_DATA)
    assert ask(lanes, 1)
    lanes.gather(0)
    assert lanes.memory.word(row + layout.B_DATA) == usual
    lanes.memory.set_word(row + layout.B_CAPACITY, layout.KEPT_BYTES + 1)
    assert ask(lanes, 2)
    lanes.gather(0)
    assert usual not in lanes.memory.blocks
    assert len(lanes.block(1)) == 8


class Item:
    """What waits in the general queue, where times are in nanoseconds too."""

    size_bytes = 0
    is_alone = False

    def __init__(self, rows: int, arrived: int, deadline: float, priority: int, slot: int) -> None:
        self.rows = rows
        self.arrived_s = float(arrived)
        self.deadline_s = deadline
        self.priority = priority
        self.slot = slot
        self.is_waiting = False
        self.is_over = False


def prioritised(priority: int, rows: int) -> bytes:
    made = pb.ModelInferRequest.FromString(request("", list(range(rows)), ["text"] * rows, is_turned=False))
    made.parameters["priority"].int64_param = priority
    return bytes(made.SerializeToString())


SLOW: Final = Cost(10.0, 5.0)


class BothQueues(RuleBasedStateMachine):
    """A lane beside the general queue, which says what is right: same requests at the same times, same limits and cost."""

    @initialize(
        requests=st.sampled_from([3, 12]),
        rows=st.sampled_from([6, 40]),
        objective=st.sampled_from([None, None, 60, 140]),
        delay=st.sampled_from([0, 0, 25, 60]),
    )
    def begin(self, requests: int, rows: int, objective: int | None, delay: int) -> None:
        bounds = {} if objective is None else {"objective": objective}
        self.lanes = Lanes(requests=requests, rows=rows, size=1 << 30, delay=delay, **bounds)
        limits = BatchLimits(
            max_rows=4,
            queue_rows=rows,
            queue_requests=requests,
            max_delay_s=float(delay),
            objective_ms=None if objective is None else objective * 1000.0,
        )
        self.queue: BatchQueue[Item] = BatchQueue(limits, SLOW)
        self.objective = inf if objective is None else float(objective)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(priorities, "LEVEL_S", 20.0)
        self.patch.setattr(_WAITING, "LEVEL_NS", 20)
        self._tell_lane()
        self.now = 1000
        self.items: dict[int, Item] = {}
        self.batch: Any = None

    def _tell_lane(self) -> None:
        probe_at = self.queue.probe_at_s
        self.lanes._set(
            self.lanes.lane,
            {
                layout.L_LARGEST: self.queue.largest_rows,
                layout.L_PROBE_AT: layout.NEVER if probe_at == inf else int(max(0.0, probe_at)),
            },
        )

    @rule(
        calls=st.lists(
            st.tuples(
                st.integers(1, 4),
                st.sampled_from([None, None, None, 0, 16, 30, 60, 100, 180]),
                st.sampled_from([0, 0, 0, 1, 4, 5, 6, 9]),
            ),
            min_size=1,
            max_size=8,
        )
    )
    def come(self, calls: list[Any]) -> None:
        for call in calls:
            self._comes(*call)

    def _comes(self, rows: int, left: int | None, priority: int) -> None:
        free = [slot for slot in range(SLOTS) if not self.lanes.memory.word(self.lanes.entry_of + 8 * slot)]
        if not free or not self.lanes.memory.word(self.lanes.state + layout.T_FREE_COUNT):
            return
        deadline = inf if left is None else float(self.now + left)
        item = Item(rows, self.now, min(deadline, self.now + self.objective), priority or DEFAULT, free[0])
        asked = layout.NEVER if left is None else self.now + left
        is_taken = self.lanes.sift(wire.CALL, item.slot, prioritised(priority, rows), now=self.now, deadline=asked)
        refused = self.lanes.take_refused()
        if left == 0:
            assert refused == {item.slot: layout.PASSED}
        elif item.deadline_s != inf and not self.queue.admits(item, self.now):
            late = item.deadline_s < self.now + self.objective
            assert refused == {item.slot: layout.LATE if late else layout.MISSED}
        elif self.queue._probe is item:
            self.queue._probe = None
            assert not is_taken
        elif not self.queue.add(item):
            assert refused == {item.slot: layout.FULL}
        else:
            assert is_taken
            assert not refused
            self.items[item.slot] = item

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def leaves(self, data: Any) -> None:
        item = self.items.pop(data.draw(st.sampled_from(sorted(self.items))))
        self.lanes.sift(wire.CLOSED, item.slot, now=self.now)
        item.is_over = True
        self.queue.discard(item)

    @rule(passed=st.sampled_from([1, 5, 20, 50]))
    def time_passes(self, passed: int) -> None:
        self.now += passed

    @precondition(lambda self: self.batch is None)
    @rule()
    def a_batch_is_due(self) -> None:
        if self.queue.due_s() > self.now:
            return
        expected = self.queue.next_batch(self.now)
        # The general queue knows no bound of requests: with one, a lane gives up what is late behind them a batch later.
        entries, late, batch = self.lanes.gather(self.now, SLOTS)
        slots = [self.lanes.memory.word(entry + layout.N_SLOT) for entry in entries]
        if expected.is_probe:
            # The general queue runs the last of those that it gives up, to learn what it costs now.
            assert not slots
            assert late == [item.slot for item in (*expected.expired, *expected.items)]
        else:
            assert slots == [item.slot for item in expected.items]
            assert late == [item.slot for item in expected.expired]
        for item in (*expected.items, *expected.expired):
            self.items.pop(item.slot, None)
        if entries:
            self.batch = expected, batch, len(entries)
            self.lanes.memory.set_word(self.lanes.lane + layout.L_BUSY_UNTIL, int(self.queue._busy_until_s))
        else:
            self.queue.ended(expected, self.now, None)
        self._tell_lane()

    @precondition(lambda self: self.batch is not None)
    @rule()
    def a_batch_ends(self) -> None:
        expected, batch, count = self.batch
        self.batch = None
        self.queue.ended(expected, self.now, None)
        self.lanes.kernels.end_batch(self.lanes.state, batch, count)
        self.lanes.memory.set_word(self.lanes.lane + layout.L_BUSY_UNTIL, 0)

    @invariant()
    def the_same_waits(self) -> None:
        if not hasattr(self, "queue"):
            return
        lane = self.lanes
        assert (lane.word(layout.L_REQUESTS), lane.word(layout.L_ROWS)) == (self.queue.requests, self.queue.rows)
        if self.queue.requests and self.queue.limits.max_delay_s and self.queue.rows < 4:
            cost_s = self.queue.cost.of(self.queue.rows)
            halfway = lane.word(layout.L_HALFWAY)
            due = min(lane.word(layout.L_DELAYED_UNTIL), halfway - cost_s / 2)
            assert abs(due - self.queue.due_s()) <= 0.5

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()


TestBothQueues = BothQueues.TestCase
TestBothQueues.settings = examples(150, stateful_step_count=60)


def test_levels_are_those_of_the_general_queue() -> None:
    assert (layout.LEVELS, layout.DEFAULT_LEVEL) == (priorities.LOWEST, DEFAULT)
    assert priorities.HIGHEST == 1
    assert priorities.LEVEL_S * 1e9 == layout.LEVEL_NS
    assert wire.OPERATION_BYTES == layout.OPERATION_BYTES
    assert wire.MAX_EVENTS == layout.MAX_REFUSED


def test_a_server_that_drains_refuses_every_call() -> None:
    lanes = Lanes()
    assert ask(lanes, 0)
    for at, value in ((layout.T_STOPPED, EXPIRED_AT), (layout.T_STOPPED_SIZE, 7)):
        lanes.memory.set_word(lanes.state + at, value)
    assert lanes.sift(wire.CALL, 1, b"no message", now=0)
    assert lanes.take_refused() == {1: EXPIRED_AT}
    assert lanes.memory.word(lanes.state + layout.T_STOPPED_COUNT) == 1
    entries, _, _ = lanes.gather(0)
    assert len(entries) == 1


@given(
    model=st.text(max_size=20),
    key=st.text(st.characters(max_codepoint=127), min_size=1, max_size=layout.MAX_KEY_BYTES),
    weight=st.floats(0, 1),
)
def test_the_place_of_a_key_is_that_of_the_general_path(model: str, key: str, weight: float) -> None:
    memory = Memory()
    kernels_over(memory)
    hashing, salt = memory.add(_hashing().tobytes()), memory.add(salt_of(model))
    place = _DRAW.key_place(hashing, salt, memory.add(key.encode()), len(key))
    assert place * 2.0**-53 == key_place(model, key)
    for share in (weight, key_place(model, key), nextafter(key_place(model, key), 1)):
        assert (place < places_of(share)) == (key_place(model, key) < share)


@pytest.mark.parametrize("size", [1, 7, 8, 127, 128, 129, 255, 256])
def test_keys_of_whole_blocks_have_their_places(size: int) -> None:
    memory = Memory()
    kernels_over(memory)
    hashing, salt = memory.add(_hashing().tobytes()), memory.add(salt_of("m"))
    place = _DRAW.key_place(hashing, salt, memory.add(b"k" * size), size)
    assert place * 2.0**-53 == key_place("m", "k" * size)


def test_places_at_random_are_even() -> None:
    memory = Memory()
    kernels_over(memory)
    state = memory.add(layout.STATE_BYTES)
    memory.set_word(state + layout.T_RANDOM, 1234567)
    places = [_DRAW.any_place(state) for _ in range(4000)]
    # SplitMix64's own first number for this seed.
    assert places[0] == 6457827717110365317 >> 11
    tenths = np.histogram(places, bins=10, range=(0, 2**53))[0]
    assert 300 < tenths.min() <= tenths.max() < 500
    assert len(set(places)) == 4000
