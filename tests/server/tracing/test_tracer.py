from pathlib import Path
from typing import Any

import pytest

from penstock_server.call import HTTP
from penstock_server.errors import OverloadedError
from penstock_server.tracing import layout, span_file
from penstock_server.tracing.span_file import SpanFile, SpanWriter
from penstock_server.tracing.tracer import Run, SpanContext, Tracer, TraceWords
from penstock_server.transport.status import status_of
from tests.server.tracing.test_context import PARENT, SAMPLED, SPAN, TRACE


class World:
    """A tracer whose numbers are chosen, and the file that it writes into."""

    def __init__(self, path: Path, clock: Any) -> None:
        span_file.create(path, 1, 0.5)
        self.file = SpanFile(path)
        self.drawn: list[int] = []
        self.counts: list[int] = []
        self.tracer = Tracer(
            SpanWriter(self.file, 0), code_of=lambda error: status_of(error).number, now_s=clock, bits=self._bits
        )

    def _bits(self, count: int) -> int:
        self.counts.append(count)
        return self.drawn.pop(0)

    def records(self) -> list[dict[str, int]]:
        names = [
            name for name in vars(layout) if name.startswith("RECORD_") and name not in {"RECORD_WORDS", "RECORD_BYTES"}
        ]
        return [
            {name.removeprefix("RECORD_"): int(record[getattr(layout, name) // 8]) for name in names}
            for record in self.file.take(0)
        ]


@pytest.fixture
def world(tmp_path: Path, fake_clock: Any) -> World:
    return World(tmp_path / "spans", fake_clock())


def test_the_callers_decision_holds(world: World, fake_call: Any) -> None:
    world.drawn = [5]
    trace = world.tracer.begin(fake_call(metadata=(("traceparent", SAMPLED),)), 1.0)
    assert trace is not None
    assert trace.context == SpanContext(PARENT.trace_id, 5)
    assert world.tracer.begin(fake_call(metadata=(("traceparent", f"00-{TRACE}-{SPAN}-00"),)), 1.0) is None


@pytest.mark.parametrize(
    ("place", "share", "is_traced"),
    [
        (layout.PLACES // 2 - 1, 0.5, True),
        (layout.PLACES // 2, 0.5, False),
        (layout.PLACES - 1, 1.0, True),
        (0, 0.0, False),
    ],
)
def test_of_the_others_a_share_is_drawn(
    world: World, fake_call: Any, place: int, share: float, is_traced: bool
) -> None:
    world.file.set_sampling(is_on=True, share=share)
    world.drawn = [place, 77, 0]
    trace = world.tracer.begin(fake_call(), 1.0)
    assert (trace is not None) == is_traced
    if trace is not None:
        # No number is 0, which would be none.
        assert trace.context == SpanContext(77, 1)
        world.drawn = [place, 0, 9]
        assert world.tracer.begin(fake_call(), 1.0).context == SpanContext(1, 9)  # type: ignore[union-attr]
        assert world.counts == [53, 128, 64] * 2
        trace.cancelled(0)
        assert world.records()[0]["PARENT"] == 0


def test_nothing_is_traced_while_it_is_off(world: World, fake_call: Any) -> None:
    world.file.set_sampling(is_on=False, share=1.0)
    assert world.tracer.begin(fake_call(metadata=(("traceparent", SAMPLED),)), 1.0) is None


def test_an_answer_leaves_one_record(world: World, fake_call: Any) -> None:
    world.drawn = [5]
    call = fake_call(metadata=(("traceparent", SAMPLED),))
    call.kind = HTTP
    trace = world.tracer.begin(call, 1.0)
    assert trace is not None
    trace.answered(3, 2, Run(1.5, 0.25, 0.125, 64), 2.0)
    trace.refused(OverloadedError("too late to matter"))
    trace.cancelled(3)
    (record,) = world.records()
    assert record == {
        "KIND": HTTP, "CODE": 0, "TRACE_HIGH": PARENT.trace_id >> 64,
        "TRACE_LOW": (PARENT.trace_id & (1 << 64) - 1) - (1 << 64), "PARENT": PARENT.span_id - (1 << 64), "SPAN": 5,
        "SUBJECT": 3, "ARRIVED": 1_000_000_000, "BEGAN": 1_500_000_000, "FEATURES": 250_000_000, "INFER": 125_000_000,
        "ENDED": 2_000_000_000, "ROWS": 2, "BATCH_ROWS": 64,
    }  # fmt: skip


def test_an_error_and_a_caller_that_left_leave_their_codes(world: World, fake_call: Any) -> None:
    world.drawn = [5, 6]
    for end in ("refused", "cancelled"):
        trace = world.tracer.begin(fake_call(metadata=(("traceparent", SAMPLED),)), 1.0)
        assert trace is not None
        trace.refused(OverloadedError("full"), 2) if end == "refused" else trace.cancelled(2)
    names = ("CODE", "SUBJECT", "ROWS", "BEGAN", "FEATURES", "INFER", "BATCH_ROWS", "ENDED")
    assert [[record[name] for name in names] for record in world.records()] == [
        [8, 2, 0, 0, 0, 0, 0, 100_000_000_000],
        [1, 2, 0, 0, 0, 0, 0, 100_000_000_000],
    ]


def test_what_kernels_have_begun_goes_on(world: World) -> None:
    words = TraceWords(-1, 5, -2, -3, HTTP)
    trace = world.tracer.resumed(words, 17)
    assert trace.context == words.context == SpanContext((1 << 64) - 1 << 64 | 5, (1 << 64) - 3)
    trace.answered(0, 1, Run(1.0, 0.0, 0.5, 1), 2.0)
    (record,) = world.records()
    assert [record[name] for name in ("TRACE_HIGH", "TRACE_LOW", "PARENT", "SPAN", "KIND", "ARRIVED")] == [
        -1, 5, -2, -3, HTTP, 17,
    ]  # fmt: skip


def test_a_shadow_has_a_record_for_each_traced_request(world: World) -> None:
    world.drawn = [21, 22]
    world.tracer.shadowed([SpanContext(7, 1), SpanContext(8, 2)], 4, Run(1.0, 0.25, 0.5, 6), 2.0)
    times = {"ARRIVED": 10**9, "BEGAN": 10**9, "FEATURES": 250_000_000, "INFER": 500_000_000, "ENDED": 2 * 10**9}
    alike = {"KIND": layout.SHADOW, "CODE": 0, "TRACE_HIGH": 0, "SUBJECT": 4, "ROWS": 6, "BATCH_ROWS": 6, **times}
    assert world.records() == [
        {**alike, "TRACE_LOW": 7, "PARENT": 1, "SPAN": 21},
        {**alike, "TRACE_LOW": 8, "PARENT": 2, "SPAN": 22},
    ]


def test_a_version_has_a_name_in_its_role(world: World) -> None:
    number = world.tracer.subject(("m", "3"), "champion")
    assert world.file.name(0, number) == ("m", "3", "champion")
    assert world.file.name(0, world.tracer.subject(("m", "4"), None)) == ("m", "4", "")
