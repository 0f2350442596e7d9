"""Traced requests leave the same records whether kernels answer them or Python does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock_server.call import Metadata
from penstock_server.errors import ModelFailedError
from penstock_server.metrics.recorder import Recorder
from penstock_server.prediction.block_copies import BlockCopy
from penstock_server.prediction.decode import block_of
from penstock_server.prediction.shadow import ShadowTarget
from penstock_server.prediction.shadows import Shadows
from penstock_server.request_log.sampler import RequestSampler
from penstock_server.request_log.segment import header_of
from penstock_server.tracing import layout
from tests.server.prediction.plain_world import Collected, HeldThread, World, message
from tests.server.tracing.test_context import SPAN, TRACE

IDS = [f"{at:032x}" for at in (0xA0 << 100, 0xB0 << 100, 0xC0 << 100)]


def sampled(trace: str, flags: str = "01") -> Metadata:
    return (("traceparent", f"00-{trace}-{SPAN}-{flags}"),)


Worlds = Callable[..., list[World]]


@pytest.fixture
def worlds(tmp_path: Path, fake_servable: Any, fake_clock: Any, new_counters: Any) -> Worlds:
    """One in which kernels take plain requests, and one in which nothing is plain."""

    def make(**settings: Any) -> list[World]:
        made = [
            World(
                {"1": fake_servable()},
                report_of=lambda: Recorder(new_counters()),
                clock=fake_clock(),
                is_plain=is_plain,
                spans=tmp_path / f"spans-{is_plain}",
                **settings,
            )
            for is_plain in (True, False)
        ]
        for world in made:
            world.warm(message([1.0, 2.0]))
        return made

    return make


def records(world: World) -> list[dict[str, int]]:
    """What was written, but for numbers at random and what stages took by the clock."""
    tracer = world.tracer
    assert tracer is not None
    names = ("KIND", "CODE", "TRACE_HIGH", "PARENT", "ARRIVED", "BEGAN", "ENDED", "ROWS", "BATCH_ROWS")
    return [
        {name: int(record[getattr(layout, f"RECORD_{name}") // 8]) for name in names}
        | {"SUBJECT": tracer.spans.file.name(0, int(record[layout.RECORD_SUBJECT // 8]))}  # type: ignore[dict-item]
        for record in tracer.spans.file.take(0)
    ]


def both(worlds: Sequence[World], act: Callable[[World], Any]) -> list[dict[str, int]]:
    """Does something in both, whose records are the same."""
    found = []
    for world in worlds:
        act(world)
        found.append(records(world))
    plain, general = found
    assert plain == general
    return plain


def test_an_answered_request_leaves_a_record(worlds: Worlds) -> None:
    pair = worlds()

    def act(world: World) -> None:
        world.send(
            *(message(*[[1.0, 2.0]] * rows) for rows in (1, 3, 2)),
            metadata=[sampled(IDS[0]), sampled(IDS[1], "00"), sampled(IDS[2])],
        )
        world.clock.now += 1.0
        world.run()

    first, second = both(pair, act)
    assert pair[0].taken == 3
    assert (first["CODE"], first["ROWS"], first["BATCH_ROWS"], first["SUBJECT"]) == (0, 1, 6, ("m", "1", "champion"))
    assert (first["TRACE_HIGH"] & (1 << 64) - 1, second["ROWS"]) == (int(IDS[0][:16], 16), 2)
    assert first["BEGAN"] - first["ARRIVED"] == 1_000_000_000


def test_histograms_show_the_trace(worlds: Worlds) -> None:
    pair = worlds()
    for world in pair:
        world.send(message([1.0, 2.0]), metadata=[sampled(TRACE)])
        world.run()
        exemplars = world.reports["1"].counters.exemplars
        shown = exemplars[exemplars[..., -1] > 0]
        assert len(shown) == 4  # one of each stage
        assert {tuple(each[:2].view("u8").tolist()) for each in shown} == {(int(TRACE[:16], 16), int(TRACE[16:], 16))}


def test_a_full_queue_leaves_a_record_with_its_code(worlds: Worlds) -> None:
    pair = worlds(queue_requests=2)
    messages = [message([1.0, float(at)]) for at in range(3)]

    def act(world: World) -> None:
        world.send(*messages, metadata=[sampled(each) for each in IDS])
        world.run()

    found = both(pair, act)
    assert sorted(record["CODE"] for record in found) == [0, 0, 8]
    assert pair[0].port.refused == 1


def test_a_caller_that_leaves_leaves_a_record(worlds: Worlds) -> None:
    def act(world: World) -> None:
        slots = world.send(message([1.0, 2.0]), message([3.0, 4.0]), metadata=[sampled(IDS[0]), sampled(IDS[1])])
        world.leave(slots[0])
        world.run()

    found = both(worlds(), act)
    assert [record["CODE"] for record in found] == [layout.CANCELLED, 0]
    assert found[0]["BEGAN"] == 0


def test_what_cannot_be_answered_in_time_leaves_a_record(worlds: Worlds) -> None:
    def act(world: World) -> None:
        world.send(message([1.0, 2.0]), deadline_s=world.clock.now + 1.0, metadata=[sampled(IDS[0])])
        world.clock.now += 5.0
        world.run()

    assert [record["CODE"] for record in both(worlds(), act)] == [layout.DEADLINE_EXCEEDED]


def test_a_batch_that_fails_leaves_a_record_of_each(worlds: Worlds) -> None:
    pair = worlds()

    def act(world: World) -> None:
        world.executors["1"].servable.fails = lambda _: ModelFailedError("no")  # type: ignore[attr-defined]
        world.send(message([1.0, 2.0]), message([3.0, 4.0]), metadata=[sampled(IDS[0]), sampled(IDS[1])])
        world.run()

    assert [record["CODE"] for record in both(pair, act)] == [13, 13]


def test_an_unknown_model_leaves_a_record(worlds: Worlds) -> None:
    def act(world: World) -> None:
        world.send(message([1.0, 2.0], model_name="other"), metadata=[sampled(IDS[0])])

    (record,) = both(worlds(), act)
    assert (record["CODE"], record["SUBJECT"]) == (5, ())


def test_a_role_is_named_as_it_is_when_the_request_ends(worlds: Worlds) -> None:
    pair = worlds()

    def act(world: World) -> None:
        world.executors["1"].set_role("canary")
        world.send(message([1.0, 2.0]), metadata=[sampled(IDS[0])])
        world.run()

    (record,) = both(pair, act)
    assert record["SUBJECT"] == ("m", "1", "canary")


def test_the_shadow_leaves_a_record_below_the_request(worlds: Worlds, new_counters: Any) -> None:
    pair = worlds()

    def act(world: World) -> None:
        executor, thread = world.executors["1"], Collected()
        tracer = world.tracer
        assert tracer is not None
        executor.set_shadows(
            Shadows(
                [
                    (
                        ShadowTarget(
                            thread,  # type: ignore[arg-type]
                            servable=executor.servable,
                            report=Recorder(new_counters()),
                            reader=executor.reader,
                            champion=executor.reader,
                            order=(BlockCopy(0),),
                            traced=lambda requests, run, ended_s: tracer.shadowed(
                                requests, executor.subject, run, world.clock.now
                            ),
                        ),
                        1.0,
                    )
                ]
            )
        )
        world.send(
            *(message([1.0, float(at)]) for at in range(3)),
            metadata=[sampled(IDS[0]), (), sampled(IDS[2])],
        )
        world.run()
        for target, copy in thread.copies:
            target.run(copy)

    found = []
    for world in pair:
        act(world)
        found.append([(each["KIND"], each["TRACE_HIGH"], each["ROWS"]) for each in records(world)])
    assert found[0] == found[1]
    assert [kind for kind, _, _ in found[0]] == [0, 0, layout.SHADOW, layout.SHADOW]
    assert [high for _, high, _ in found[0]][:2] == [high for _, high, _ in found[0]][2:]


@pytest.mark.parametrize("is_on_thread", [False, True])
def test_the_request_log_has_the_trace_whether_it_is_sampled_or_not(worlds: Worlds, is_on_thread: bool) -> None:
    pair = worlds(**({"thread": HeldThread()} if is_on_thread else {}))
    logged = []
    for world in pair:
        executor = world.executors["1"]
        sampler = RequestSampler(
            header_of(
                ("m", "1"),
                executor.decoder.blocks,
                [block_of(spec, is_batched=True) for spec in executor.servable.outputs],
            ),
            sample_ratio=1.0,
            report=world.reports["1"],
            wake=lambda: None,
        )
        executor.set_sampler(sampler)
        world.send(
            *(message([1.0, float(at)]) for at in range(3)), metadata=[sampled(IDS[0]), sampled(IDS[1], "00"), ()]
        )
        world.run()
        logged.append([sample.trace_id for sample in sampler._waiting])
    assert logged == [[IDS[0], IDS[1], ""]] * 2
    assert pair[0].taken == 3


def test_a_share_of_requests_begins_a_trace_here(worlds: Worlds) -> None:
    pair = worlds()
    for world in pair:
        assert world.tracer is not None
        world.tracer.spans.file.set_sampling(is_on=True, share=1.0)
        world.send(*(message([1.0, float(at)]) for at in range(20)), metadata=[()] * 20)
        world.run()
        found = records(world)
        assert len(found) == 20
        assert len({each["TRACE_HIGH"] for each in found}) == 20
        assert {each["PARENT"] for each in found} == {0}
        world.check_clean()


def test_numbers_of_versions_are_given_back(worlds: Worlds) -> None:
    for world in worlds():
        executor = world.executors["1"]
        assert world.tracer is not None
        free = len(world.tracer.spans._free)
        for role in ("canary", "champion", "canary", "canary"):
            executor.set_role(role)  # type: ignore[arg-type]
        assert len(world.tracer.spans._free) == free
        executor.close()
        assert len(world.tracer.spans._free) == free + 1
