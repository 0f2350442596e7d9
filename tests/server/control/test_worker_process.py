import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.control import messages, worker_process
from penstock_server.control.messages import Event, framed
from penstock_server.control.worker_process import ENVIRONMENT, start_worker
from penstock_server.frames import HEAD
from penstock_server.rollout.plan import ModelRoutes, TrafficPlan, VersionStatus
from tests.server.control.fake_worker import TIMEOUT_S, FakeWorker

EVENTS: list[Event] = [messages.Served(0), messages.LoadFailed("m", "1", "ü" * 300), messages.Listening("aio")]


class Followed:
    """A fake worker whose events are kept."""

    def __init__(self) -> None:
        self.worker = FakeWorker()
        self.events: list[Event] = []
        self.ended = asyncio.create_task(self.worker.end_here.follow(lambda _, event: self.events.append(event)))

    async def code(self) -> int:
        return await asyncio.wait_for(self.ended, TIMEOUT_S)


def routes(champion: str | None, reason: str = "") -> dict[str, ModelRoutes]:
    plan = None if champion is None else TrafficPlan(champion)
    return {"m": ModelRoutes(plan, {"1": VersionStatus("READY", reason)})}


@pytest.mark.parametrize("size", [1, 3, HEAD.size, 50])
async def test_events_arrive_whole_however_they_are_cut(size: int) -> None:
    followed = Followed()
    stream = b"".join(map(framed, EVENTS))
    for at in range(0, len(stream), size):
        followed.worker.reader.feed_data(stream[at : at + size])
        await asyncio.sleep(0)
    followed.worker.die(7)
    assert await followed.code() == 7
    assert followed.events == EVENTS


@pytest.mark.parametrize("kept", [1, HEAD.size, HEAD.size + 1, -1])
async def test_an_event_that_is_torn_by_the_end_is_dropped(kept: int) -> None:
    followed = Followed()
    followed.worker.reader.feed_data(framed(EVENTS[0]) + framed(EVENTS[1])[:kept])
    followed.worker.die(-9)
    assert await followed.code() == -9
    assert followed.events == EVENTS[:1]


async def test_a_reset_socket_is_the_end_as_well() -> None:
    followed = Followed()
    followed.worker.reader.set_exception(ConnectionResetError())
    followed.worker.process.end(-9)
    assert await followed.code() == -9


async def test_the_end_of_the_socket_waits_for_the_end_of_the_process() -> None:
    followed = Followed()
    followed.worker.reader.feed_eof()
    done, _ = await asyncio.wait({followed.ended}, timeout=0.01)
    assert not done
    followed.worker.process.end(0)
    assert await followed.code() == 0


async def test_a_worker_that_sends_bytes_that_are_no_event_is_killed() -> None:
    followed = Followed()
    followed.worker.reader.feed_data(framed(messages.Listen("a command")))
    assert await followed.code() == -9
    assert followed.worker.process.kills == 1


async def test_a_version_that_answers_keeps_its_state_while_other_files_of_it_are_loaded() -> None:
    worker = FakeWorker().end_here
    command = messages.Load("m", "1", "/f", "/c", 0, 0)
    worker.load(command, "old")
    assert (worker.versions, worker.loading) == ({("m", "1"): VersionStatus("LOADING")}, ("m", "1"))
    assert worker.on_loaded(("m", "1")) == "old"
    worker.load(command, "new")
    assert worker.versions == {("m", "1"): VersionStatus("READY")}
    worker.on_load_failed(("m", "1"), "no")
    assert (worker.loading, worker.identities, worker.tried) == (None, {("m", "1"): "old"}, {("m", "1"): "new"})
    assert worker.notes == {("m", "1"): "its new files cannot be loaded, and the former ones answer: no"}
    worker.load(command, "newer")
    assert worker.on_loaded(("m", "1")) == "newer"
    assert worker.notes == {}
    worker.on_unloaded(("m", "1"))
    assert (worker.versions, worker.identities, worker.tried) == ({}, {}, {})


async def test_a_version_that_cannot_be_loaded_is_unavailable() -> None:
    worker = FakeWorker().end_here
    worker.load(messages.Load("m", "1", "/f", "/c", 0, 0), "")
    worker.on_load_failed(("m", "1"), "no")
    assert worker.versions == {("m", "1"): VersionStatus("UNAVAILABLE", "no")}


async def test_a_worker_that_cannot_be_started_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process.sys, "executable", str(tmp_path / "none"))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="none"):
        await start_worker("{}")
    assert len(os.listdir("/proc/self/fd")) == before


async def test_commands_to_a_worker_that_is_gone_are_dropped() -> None:
    followed = Followed()
    followed.worker.die()
    await followed.code()
    followed.worker.end_here.send(messages.Drain(1.0))
    assert followed.worker.commands == []


async def test_the_same_plans_and_statuses_are_sent_once() -> None:
    fake = FakeWorker()
    worker = fake.end_here
    worker.serve({}, False)
    assert (fake.serves, worker.is_serve_pending) == ([], False)  # as a worker begins
    worker.serve(routes("1"), False)
    worker.serve(routes("1"), False)
    worker.serve(routes("1"), True)
    worker.serve(routes("1", "slow"), True)
    assert [(serve.generation, serve.is_settled) for serve in fake.serves] == [(1, False), (2, True), (3, True)]
    assert worker.is_serve_pending


@given(
    steps=st.lists(
        st.tuples(st.dictionaries(st.sampled_from("abc"), st.sampled_from("12").map(TrafficPlan)), st.booleans()),
        max_size=8,
    )
)
def test_what_is_sent_makes_what_is_to_be_served_of_what_was(steps: list[tuple[dict[str, TrafficPlan], bool]]) -> None:
    fake = asyncio.run(made())
    for plans, is_settled in steps:
        models = {model: ModelRoutes(plan, {}) for model, plan in plans.items()}
        former, sent = fake.routes, len(fake.serves)
        fake.end_here.serve(models, is_settled)
        assert fake.routes == models
        for serve in fake.serves[sent:]:
            assert all(former.get(model) != one for model, one in serve.models.items())
            assert former.keys() - set(serve.removed) == former.keys() & models.keys()
            assert serve.is_settled == is_settled


async def made() -> FakeWorker:
    return FakeWorker()


async def test_plans_are_in_force_once_the_last_are_confirmed() -> None:
    worker = FakeWorker().end_here
    worker.serve(routes("1"), True)
    worker.serve(routes("2"), True)
    worker.on_served(1)
    assert (worker.plans, worker.is_serve_pending) == ({}, True)
    worker.on_served(2)
    assert (worker.plans, worker.is_serve_pending) == ({"m": TrafficPlan("2")}, False)
    worker.serve(routes(None), True)
    worker.on_served(3)
    assert worker.plans == {}


async def test_a_worker_is_told_to_listen_once() -> None:
    fake = FakeWorker()
    for _ in range(3):
        fake.end_here.listen("127.0.0.1:8001")
    assert fake.commands == [messages.Listen("127.0.0.1:8001")]


async def test_a_process_that_ended_is_not_killed() -> None:
    fake = FakeWorker()
    fake.end_here.kill()
    fake.end_here.kill()
    assert fake.process.kills == 1


async def test_a_snapshot_does_not_change_with_the_worker() -> None:
    worker = FakeWorker().end_here
    worker.versions["m", "1"] = VersionStatus("UNAVAILABLE", "why")
    snapshot = worker.snapshot()
    worker.versions.clear()
    assert snapshot.versions == {("m", "1"): "UNAVAILABLE"}


async def test_a_worker_starts_with_its_socket_settings_and_counters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process of its own session, in the place of `penstock_server.worker`."""
    (tmp_path / "interpreter").write_text(
        f"#!{sys.executable}\n"
        "import os, socket, sys\n"
        "from penstock_server import frames\n"
        "from penstock_server.control import messages\n"
        "link = socket.socket(fileno=int(sys.argv[3]))\n"
        "file = link.makefile('rb')\n"
        "start = messages.command(frames.receive(file))\n"
        "counters = f'{start.counters} {start.slot}'\n"
        "os.fstat(int(sys.argv[6])), os.fstat(int(sys.argv[7]))\n"
        "found = [counters, *sys.argv[1:3], *sys.argv[4:], os.environ['MALLOC_ARENA_MAX'], os.environ['OMP_NUM_THREADS'],\n"
        "         str(os.getsid(0) == os.getpid())]\n"
        "link.sendall(messages.framed(messages.ListenFailed('|'.join(found))))\n"
        "sys.exit(5)\n"
    )
    (tmp_path / "interpreter").chmod(0o755)
    monkeypatch.setattr(worker_process.sys, "executable", str(tmp_path / "interpreter"))
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the user's own wins
    events: list[Any] = []
    inherited, other_end = os.pipe()
    worker = await start_worker("{}", (inherited,), (other_end,))
    for descriptor in (inherited, other_end):
        os.close(descriptor)
    assert worker.slot == -1
    worker.begin(4, tmp_path / "counters")
    code = await asyncio.wait_for(worker.follow(lambda _, event: events.append(event)), 60)
    assert (worker.slot, code) == (4, 5)
    expected = [
        f"{tmp_path / 'counters'} 4",
        "-m",
        "penstock_server.worker",
        "{}",
        str(os.getpid()),
        str(inherited),
        str(other_end),
        ENVIRONMENT["MALLOC_ARENA_MAX"],
        "3",
    ]
    assert [event.reason for event in events] == ["|".join([*expected, "True"])]
