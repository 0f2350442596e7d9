"""The kernels trace which requests and as what `tracing.tracer` does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.call import HTTP, UNARY
from penstock_server.plain import layout
from penstock_server.tracing import layout as spans
from penstock_server.tracing import span_file
from penstock_server.tracing.context import parent_of
from penstock_server.tracing.span_file import SpanFile
from penstock_server.transport import layout as wire
from penstock_server.transport.headers import as_received, decoded
from tests.server.plain.uncompiled import Memory, kernels_over
from tests.server.tracing.test_context import SAMPLED, SPAN, TRACE

NOW = 10_000
SLOT = 1


class World:
    """One call, and what the kernels find out about it."""

    def __init__(self, share: float = 0.0) -> None:
        self.memory = memory = Memory()
        self.kernels = kernels_over(memory)["traces"]
        self.state = memory.add(layout.STATE_BYTES)
        self.traces = memory.add(layout.TRACES_BYTES)
        self.page = memory.add(spans.PAGE_BYTES)
        self.region = memory.add(spans.NAMES_AT)
        self.streams = memory.add(2 * wire.STREAM_BYTES)
        self.connection = memory.add(wire.CONNECTION_BYTES)
        self.lanes = memory.add(layout.LANE_BYTES)
        self.entry = memory.add(layout.ENTRY_BYTES)
        for at, value in (
            (self.state + layout.T_TRACES, self.traces),
            (self.state + layout.T_STREAMS, self.streams),
            (self.state + layout.T_LANES, self.lanes),
            (self.traces + layout.X_PAGE, self.page),
            (self.traces + layout.X_REGION, self.region),
            (self.page + spans.ALL_IS_ON, 1),
            (self.page + spans.ALL_SHARE, int(share * spans.PLACES)),
            (self.lanes + layout.L_SUBJECT, 9),
            (self.row + wire.S_CONNECTION, self.connection),
            (self.entry + layout.N_ARRIVED, 100),
            (self.entry + layout.N_ROWS, 2),
        ):
            memory.set_word(at, value)

    @property
    def row(self) -> int:
        return self.streams + SLOT * wire.STREAM_BYTES

    def look(self, block: bytes = b"") -> bool:
        """Whether a call with these headers is traced; what was found is in the entry."""
        self.memory.set_word(self.row + wire.S_HEADERS, self.memory.add(block))
        self.memory.set_word(self.row + wire.S_HEADERS_SIZE, len(block))
        self.kernels.look(self.state, SLOT)
        self.kernels.keep(self.state, self.entry)
        return self.word(layout.N_SPAN) != 0

    def word(self, at: int) -> int:
        return self.memory.word(self.entry + at)

    def records(self, tmp_path: Path) -> list[list[int]]:
        """The records, as the exporter takes them."""
        span_file.create(tmp_path / "spans", 1, 0.0)
        file = SpanFile(tmp_path / "spans")
        at = span_file.region_at(0)
        file.memory[at : at + spans.NAMES_AT] = self.memory.read(self.region, spans.NAMES_AT)
        found: list[list[int]] = file.take(0).tolist()
        return found


def _parents() -> Any:
    digits = st.text("0123456789abcdef", min_size=1, max_size=4)
    odd = st.text("0123456789abcdefABCDEFxyz-_ \0", max_size=70)
    pieces = st.tuples(
        st.sampled_from(["00", "01", "ff", "0", "cc", "0G"]),
        st.sampled_from(["-", "_", ""]),
        st.sampled_from([TRACE, TRACE[:-1], "0" * 32, TRACE.upper(), "z" * 32]),
        st.just("-"),
        st.sampled_from([SPAN, "0" * 16, SPAN[1:], "-" * 16]),
        st.sampled_from(["-", ""]),
        st.sampled_from(["00", "01", "03", "fe", "0", "0A", "ff"]),
        st.sampled_from(["", "", "-more", "x"]),
    )
    return st.one_of(odd, digits, pieces.map("".join))


@given(
    st.lists(
        st.tuples(st.sampled_from(["traceparent", "traceparenT", "xtraceparent", "te", "tracepareNt"]), _parents()),
        max_size=3,
    )
)
def test_a_traceparent_is_read_as_python_reads_it(headers: list[tuple[str, str]]) -> None:
    world = World()
    block = as_received(headers)
    parent = parent_of(decoded(block))
    is_traced = world.look(block)
    assert is_traced == (parent is not None and parent.is_sampled)
    if is_traced and parent is not None:
        words = [world.word(at) & (1 << 64) - 1 for at in (layout.N_TRACE_HIGH, layout.N_TRACE_LOW, layout.N_PARENT)]
        assert words == [parent.trace_id >> 64, parent.trace_id & (1 << 64) - 1, parent.span_id]


def test_of_callers_that_decided_nothing_a_share_is_traced() -> None:
    world = World(share=0.25)
    assert sum(world.look() for _ in range(4000)) == pytest.approx(1000, abs=110)
    assert World(share=1.0).look()
    assert not World(share=0.0).look()


def test_a_trace_that_begins_here_has_numbers_of_its_own() -> None:
    world = World(share=1.0)
    found = set()
    for _ in range(100):
        assert world.look()
        assert world.word(layout.N_PARENT) == 0
        found.add((world.word(layout.N_TRACE_HIGH), world.word(layout.N_TRACE_LOW), world.word(layout.N_SPAN)))
    assert len(found) == 100
    assert len({each[2] for each in found}) == 100


@pytest.mark.parametrize("flag", ["off", "closed", "gone"])
def test_nothing_is_traced_while_it_is_off_or_of_a_call_that_is_over(flag: str) -> None:
    world = World(share=1.0)
    place = {
        "off": (world.page + spans.ALL_IS_ON, 0),
        "closed": (world.row + wire.S_FLAGS, wire.IS_CLOSED),
        "gone": (world.row + wire.S_CONNECTION, 0),
    }[flag]
    assert world.look(as_received([("traceparent", SAMPLED)]))
    world.memory.set_word(*place)
    assert not world.look(as_received([("traceparent", SAMPLED)]))


def test_where_nothing_is_traced_an_entry_says_so() -> None:
    world = World()
    world.memory.set_word(world.entry + layout.N_SPAN, 7)
    world.memory.set_word(world.state + layout.T_TRACES, 0)
    world.kernels.keep(world.state, world.entry)
    assert world.word(layout.N_SPAN) == 0
    world.kernels.end_refused(world.state, world.lanes, 8, NOW)


@pytest.mark.parametrize(("flags", "kind"), [(0, UNARY), (wire.IS_LOCAL, HTTP)])
def test_an_answer_is_a_record(tmp_path: Path, flags: int, kind: int) -> None:
    world = World()
    world.memory.set_word(world.connection + wire.C_FLAGS, flags)
    assert world.look(as_received([("traceparent", SAMPLED)]))
    span = world.word(layout.N_SPAN)
    world.kernels.end_span(world.state, world.entry, 0, 200, 30, 40, 300, 64)
    world.kernels.end_unanswered(world.state, world.entry, 1, NOW)
    high, low, parent = (int(each, 16) for each in (TRACE[:16], TRACE[16:], SPAN))
    ((*ids, subject, arrived, began, features, infer, ended, rows, batch_rows),) = world.records(tmp_path)
    assert [each & (1 << 64) - 1 for each in ids] == [kind, 0, high, low, parent, span & (1 << 64) - 1]
    assert (subject, arrived, began, features, infer, ended, rows, batch_rows) == (9, 100, 200, 30, 40, 300, 2, 64)


def test_a_request_without_an_answer_is_a_record_with_its_code(tmp_path: Path) -> None:
    world = World()
    block = as_received([("traceparent", SAMPLED)])
    assert world.look(block)
    world.kernels.end_unanswered(world.state, world.entry, 4, NOW)
    assert world.look(block)
    world.kernels.end_refused(world.state, world.lanes, 8, NOW)
    assert not world.look()
    world.kernels.end_refused(world.state, world.lanes, 8, NOW)
    world.kernels.end_unanswered(world.state, world.entry, 4, NOW)
    waited, refused = world.records(tmp_path)
    begins = [spans.RECORD_ARRIVED // 8, spans.RECORD_ENDED // 8, spans.RECORD_BEGAN // 8, spans.RECORD_ROWS // 8]
    assert (waited[1], [waited[at] for at in begins]) == (4, [100, NOW, 0, 0])
    assert (refused[1], [refused[at] for at in begins]) == (8, [NOW, NOW, 0, 0])


def test_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    world = World()
    world.memory.set_word(world.region + spans.REGION_WRITTEN, spans.RECORDS)
    block = as_received([("traceparent", SAMPLED)])
    assert world.look(block)
    world.kernels.end_refused(world.state, world.lanes, 8, NOW)
    world.kernels.end_span(world.state, world.entry, 0, 200, 30, 40, 300, 64)
    assert world.memory.word(world.region + spans.REGION_LOST) == 2
    assert world.memory.word(world.region + spans.REGION_WRITTEN) == spans.RECORDS
    assert len(world.records(tmp_path)) == spans.RECORDS


def test_a_cell_shows_the_trace_that_was_counted_in_it_last(new_counters: Any) -> None:
    world, counters = World(), new_counters()
    assert world.look(as_received([("traceparent", SAMPLED)]))
    latency = world.memory.add(layout.LATENCY_BYTES)
    cells = world.memory.add(counters.exemplars.nbytes)
    world.memory.set_word(latency + layout.H_EDGE_COUNT, counters.exemplars.shape[1] - 1)
    world.memory.set_word(latency + layout.H_EXEMPLARS, cells)
    world.kernels.put_exemplar(latency, 2, 5, world.entry, 700, NOW)
    found = np.frombuffer(world.memory.read(cells, counters.exemplars.nbytes), np.int64)
    found = found.reshape(counters.exemplars.shape)
    assert found[2, 5].tolist() == [
        int(TRACE[:16], 16),
        int(TRACE[16:], 16) - (1 << 64),
        700,
        NOW,
    ]
    found = found.copy()
    found[2, 5] = 0
    assert not found.any()
