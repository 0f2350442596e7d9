"""Lanes as plain Python over memory that knows its blocks: no request is lost, answered twice, or read after its end."""

from collections.abc import Sequence
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock import inference_pb2 as pb
from penstock.tensors import join_bytes
from penstock_server.plain import layout
from penstock_server.transport import layout as wire
from tests.server.plain.uncompiled import Memory, kernels

_SCAN, _LANES = kernels(Memory())
SLOTS: Final = 16
MOST: Final = 4
METHOD: Final = 2
TIMING: Final = b"TIMES"
KEY: Final = b"\x0a\x01q"


def kernels_over(memory: Memory) -> Any:
    """The lanes' kernels over another memory."""
    for module in (_SCAN, _LANES):
        for name in list(vars(module)):
            if callable(getattr(memory, name, None)):
                setattr(module, name, getattr(memory, name))
    return _LANES


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
        self.kernels = kernels_over(memory)
        self.state = memory.add(layout.STATE_BYTES)
        self.places = bounds.get("places", 12)
        self.entries = memory.add(self.places * layout.ENTRY_BYTES)
        self.entry_of = memory.add(8 * SLOTS)
        self.lane = memory.add(layout.LANE_BYTES)
        self.plans = memory.add(2 * layout.PLAN_BYTES)
        self.buckets = memory.add(8 * layout.BUCKETS)
        self.blocks = memory.add(2 * layout.BLOCK_BYTES)
        self.found = memory.add(layout.FOUND_BYTES)
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
                layout.T_SKELETON: memory.add(layout.MAX_SKELETON),
                layout.T_MAX_BYTES: 1000,
                layout.T_METHOD: METHOD,
                layout.T_SCRATCH: self.found,
            },
        )
        self._set(
            self.lane,
            {
                layout.L_RING: memory.add(8 * bounds.get("ring", 8)),
                layout.L_CAPACITY: bounds.get("ring", 8),
                layout.L_BLOCKS: self.blocks,
                layout.L_BLOCK_COUNT: 2,
                layout.L_MAX_REQUESTS: bounds.get("requests", 6),
                layout.L_MAX_ROWS: bounds.get("rows", 10),
                layout.L_MAX_BYTES: bounds.get("size", 500),
                layout.L_USUAL_ROWS: 4,
                layout.L_LARGEST: 4,
                layout.L_IS_OPEN: 1,
                layout.L_BASE: 10,
                layout.L_ROW: 5,
            },
        )
        memory.set_word(self.blocks + layout.B_ROW_BYTES, 8)
        for number, is_turned in enumerate((False, True)):
            self._learn(number, request("", [1], ["a"], is_turned=is_turned), is_turned=is_turned)
        self.messages: set[int] = set()

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
        memory.set_word(bucket, number + 1)

    def sift(self, kind: int, slot: int, message: bytes = b"", *, now: int, deadline: int = layout.NEVER) -> bool:
        """One event; whether it was taken. What was not is the transport's again."""
        event = self.memory.add(wire.EVENT_BYTES)
        data = self.memory.add(message) if kind == wire.CALL else 0
        words = (kind, slot, data, len(message), METHOD, deadline, 0, 0)
        self._set(event, {8 * at: word for at, word in enumerate(words)})
        left = self.kernels.sift(self.state, event, 1, now)
        is_taken = self.memory.word(event + wire.E_KIND) == wire.TAKEN
        assert left == (not is_taken)
        if kind == wire.CALL and not is_taken:
            self.memory.release(data)
        elif kind == wire.CALL:
            self.messages.add(data)
        else:
            assert not is_taken
        self.memory.release(event)
        return is_taken

    def gather(self, now: int) -> tuple[list[int], list[int], int]:
        """The entries of the next batch, those that are too late, and the table of the first."""
        batch = self.memory.add(8 * (2 * MOST + 2))
        count = self.kernels.gather(self.state, 0, 4, MOST, batch, now)
        late = self.memory.word(batch + 8 * MOST)
        return self._words(batch, count), self._words(batch + 8 * (MOST + 1), late), batch

    def _words(self, at: int, count: int) -> list[int]:
        return [self.memory.word(at + 8 * place) for place in range(count)]

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
        said = memory.add(len(TIMING).to_bytes(8, "little") + len(KEY).to_bytes(8, "little") + TIMING + KEY)
        answers, operations = memory.add(13 * 8), memory.add(MOST * wire.OPERATION_BYTES)
        self._set(
            answers,
            {
                layout.W_STATE: self.state, layout.W_BATCH: batch, layout.W_COUNT: count, layout.W_OUTPUTS: table,
                layout.W_LAYOUTS: at, layout.W_LAYOUT_COUNT: len(layouts), layout.W_TIMING: said,
                layout.W_BEGAN: 5000, layout.W_OPERATIONS: operations, layout.W_MOST: most,
            },
        )  # fmt: skip
        done = self.kernels.answer(answers)
        block = memory.word(answers + layout.W_BLOCK)
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
    time = b"\x22\x07" + KEY + b"\x12\x02\x10"
    return (
        f"<{plan}:{len(values)}>".encode() + said + TIMING + time + b"\x04"
        b"\x32" + bytes([len(numbers)]) + numbers + b"\x32" + bytes([len(words)]) + words
    )  # fmt: skip


class Walk(RuleBasedStateMachine):
    """Calls come, leave, expire, run and are answered in any order."""

    @initialize(
        requests=st.integers(1, 7),
        rows=st.integers(1, 12),
        size=st.integers(50, 600),
        places=st.sampled_from([5, 12]),
        ring=st.sampled_from([4, 8]),
    )
    def begin(self, **bounds: int) -> None:
        self.bounds = bounds
        self.lanes = Lanes(**bounds)
        self.now = 1000
        self.waiting: dict[int, Any] = {}
        self.running: list[tuple[int, list[Any]]] = []
        self.number = 0

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
        is_taken = self.lanes.sift(wire.CALL, slot, message, now=self.now, deadline=call["deadline"])
        assert has_room or not is_taken
        if has_room and left_ns is None and self.lanes.memory.word(self.lanes.state + layout.T_FREE_COUNT) > 1:
            places = self.lanes.word(layout.L_TAIL) - self.lanes.word(layout.L_HEAD)
            assert is_taken or places == self.bounds["ring"]
        if is_taken:
            self.waiting[slot] = call

    @rule(data=st.data(), kind=st.sampled_from([wire.CLOSED, wire.EXPIRED]))
    def leaves(self, data: Any, kind: int) -> None:
        slot = data.draw(self.any_slot)
        before = self.lanes.word(layout.L_LEFT)
        self.lanes.sift(kind, slot, now=self.now)
        assert self.lanes.word(layout.L_LEFT) == before + (slot in self.busy)
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
        for entry in late:
            slot = self.lanes.memory.word(entry + layout.N_SLOT)
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
        self.lanes.kernels.end_batch(self.lanes.state, batch + 8 * (MOST + 1), len(late))
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
TestWalk.settings = settings(max_examples=150, stateful_step_count=40)


@given(
    kinds=st.sampled_from([(layout.DOUBLES, 8, "<d"), (layout.SINGLES, 4, "<f")]),
    values=st.lists(st.floats(width=32), min_size=1, max_size=4),
)
def test_missing_numbers_are_found(kinds: tuple[int, int, str], values: list[float]) -> None:
    import struct

    memory = Memory()
    lanes = kernels_over(memory)
    data = memory.add(b"".join(struct.pack(kinds[2], value) for value in values))
    assert lanes.has_missing(kinds[0], data, len(values)) == any(value != value for value in values)


@given(values=st.lists(st.sampled_from([0, -1, -(2**63), 2**63 - 1, -(2**63) + 1]), min_size=1, max_size=4))
def test_missing_times_are_found(values: list[int]) -> None:
    memory = Memory()
    lanes = kernels_over(memory)
    data = memory.add(b"".join(value.to_bytes(8, "little", signed=True) for value in values))
    assert lanes.has_missing(layout.ROWS, data, len(values)) == (-(2**63) in values)


def ask(lanes: Lanes, slot: int, rows: int = 1, *, now: int = 0, deadline: int = layout.NEVER) -> bool:
    message = request("", list(range(rows)), ["text"] * rows, is_turned=False)
    return lanes.sift(wire.CALL, slot, message, now=now, deadline=deadline)


def test_without_a_place_a_request_takes_the_general_path() -> None:
    lanes = Lanes(places=2)
    assert [ask(lanes, slot) for slot in range(3)] == [True, True, False]
    lanes = Lanes(ring=4, requests=7)
    assert [ask(lanes, slot) for slot in range(5)] == [True] * 4 + [False]
    for slot in (1, 2):
        lanes.sift(wire.CLOSED, slot, now=0)
    assert not ask(lanes, 5)  # those that left keep their places behind the first
    lanes.sift(wire.CLOSED, 0, now=0)
    assert [ask(lanes, slot) for slot in range(6, 10)] == [True] * 3 + [False]


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
