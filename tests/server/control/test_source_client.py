"""Sources in real processes, which hang, die and are killed."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock_server import leases
from penstock_server.control import source_client
from penstock_server.control.source_client import SourceClient, SourceProcess, start_process
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.priority import NICENESS
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources import messages
from tests.server.sources.fake_registry import FakeRegistry

TIMEOUT_S = 30.0
GRAPH = "/api/2.0/mlflow-artifacts/artifacts/1/model/model.onnx"


class Starter:
    """Starts real processes, and keeps them."""

    def __init__(self) -> None:
        self.started: list[SourceProcess] = []

    async def __call__(self, opening: messages.Open) -> SourceProcess:
        self.started.append(await start_process(opening))
        return self.started[-1]


@pytest.fixture
def starter() -> Starter:
    return Starter()


@pytest.fixture
async def open_client(tmp_path: Path, starter: Starter) -> AsyncIterator[Callable[..., SourceClient]]:
    made: list[SourceClient] = []

    def opened(source: messages.Registry | messages.Directory, *, max_mib: float = 100.0, **given: Any) -> SourceClient:
        opening = messages.Open(source, str(tmp_path / "cache"), max_mib, 100, 100.0, 1)
        given = {"fetch_timeout_s": TIMEOUT_S, "has_spare": False, "start": starter, **given}
        made.append(SourceClient("the source", opening, **given))
        return made[-1]

    yield opened
    for client in made:
        await client.close()
    for process in starter.started:
        assert not is_alive(process.pid)


def partials(folder: Path) -> int:
    return len(list(folder.rglob(".partial-*")))


def said_of(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def publish(fake: FakeRegistry, version: str = "1", created: int = 1) -> None:
    fake.register("m", version, source="mlflow-artifacts:/1/model", created=created, champion=version)
    fake.files = {"1/model/MLmodel": b"flavors: {onnx: {}}", "1/model/model.onnx": f"graph {created}".encode()}


def database_in(folder: Path) -> Path:
    """A database in which mlflow has made no tables yet."""
    path = folder / "registry.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE other (x)")
    return path


async def test_a_registry_is_polled_and_fetched_from(open_client: Any, fake: FakeRegistry, starter: Starter) -> None:
    publish(fake)
    client = open_client(messages.Registry(fake.uri))
    desired = await client.poll()
    assert desired.models == {"m": TrafficPlan("1")}
    found = await client.fetch("m", "1", desired.identity("m", "1"))
    assert (found.folder / "model.onnx").read_bytes() == b"graph 1"
    assert found.identity == desired.identity("m", "1")
    with leases.for_deleting(found.folder) as is_free:
        assert not is_free  # until who asked for it closes the lease
    await client.poll()
    assert len(starter.started) == 2  # one polls, and stays; one fetched, and ends by itself
    assert await asyncio.wait_for(starter.started[1].wait(), TIMEOUT_S) == 0
    assert starter.started[0].pid != starter.started[1].pid


async def test_a_process_waits_for_the_next_fetch(open_client: Any, fake: FakeRegistry, starter: Starter) -> None:
    publish(fake)
    client = open_client(messages.Registry(fake.uri), has_spare=True)
    await client.fetch("m", "1", "")
    await asyncio.wait_for(client._spare._starting, TIMEOUT_S)
    fetched, waiting = starter.started
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, waiting.pid) == min(
        19, own + NICENESS
    )  # its imports take no core from workers
    assert await asyncio.wait_for(fetched.wait(), TIMEOUT_S) == 0
    publish(fake, "2")
    found = await client.fetch("m", "2", "")
    assert (found.folder / "model.onnx").is_file()
    assert await asyncio.wait_for(waiting.wait(), TIMEOUT_S) == 0  # it fetched this one
    await asyncio.wait_for(client._spare._starting, TIMEOUT_S)
    os.kill(client._spare.process.pid, 9)
    await client._spare.process.wait()
    publish(fake, "3")
    await client.fetch("m", "3", "")


async def test_a_directory_is_polled_and_used_where_it_is(open_client: Any, tmp_path: Path) -> None:
    version = tmp_path / "models" / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"x")
    client = open_client(messages.Directory(str(tmp_path / "models")))
    desired = await client.poll()
    found = await client.fetch("m", "1", desired.identity("m", "1"))
    assert (found.folder, found.identity, found.lease) == (version, desired.identity("m", "1"), None)
    with pytest.raises(NotFoundError, match="is not in directory"):
        await client.fetch("m", "2", "")


async def test_errors_keep_their_class(open_client: Any, fake: FakeRegistry) -> None:
    publish(fake)
    client = open_client(messages.Registry(fake.uri), max_mib=0.000001)
    with pytest.raises(NotFoundError, match="version 2 of model 'm' is not in the registry"):
        await client.fetch("m", "2", "")
    with pytest.raises(InvalidInputError, match="its files take more than"):
        await client.fetch("m", "1", "")
    fake.answers.clear()
    with pytest.raises(UnavailableError, match="does not list its models"):
        await client.poll()


async def test_a_process_that_hangs_is_killed_and_started_again_later(
    open_client: Any, fake: FakeRegistry, starter: Starter, fake_clock: Any
) -> None:
    publish(fake)
    clock = fake_clock()
    client = open_client(messages.Registry(fake.uri), poll_timeout_s=1.0, clock=clock)
    fake.hangs = True
    with pytest.raises(UnavailableError, match="the source took longer than 1 s; its process was ended"):
        await client.poll()
    (hung,) = starter.started
    assert not is_alive(hung.pid)
    fake.hangs = False
    client._poll_timeout_s = TIMEOUT_S
    assert (await client.poll()).models == {"m": TrafficPlan("1")}  # the first time at once
    assert len(starter.started) == 2


@pytest.mark.long
async def test_a_process_that_keeps_ending_is_started_ever_later(
    open_client: Any, fake: FakeRegistry, starter: Starter, fake_clock: Any
) -> None:
    publish(fake)
    clock = fake_clock()
    client = open_client(messages.Registry(fake.uri), clock=clock)
    pauses = []
    for _ in source_client.PAUSES_S:
        fake.hangs = True
        poll = asyncio.create_task(client.poll())
        assert await asyncio.to_thread(fake.hung.acquire, timeout=TIMEOUT_S)
        os.kill(starter.started[-1].pid, 9)
        with pytest.raises(UnavailableError, match=r"its process ended \(signal 9\)"):
            await poll
        pauses.append(client._start_at_s - clock.now)
        if pauses[-1]:
            with pytest.raises(UnavailableError, match="it is started again in"):
                await client.poll()
        clock.now += pauses[-1]
    assert pauses == list(source_client.PAUSES_S)
    fake.hangs = False
    assert (await client.poll()).models == {"m": TrafficPlan("1")}
    assert client._failures == 0


async def test_a_fetch_that_hangs_holds_up_no_poll_and_ends_in_time(
    open_client: Any, fake: FakeRegistry, starter: Starter
) -> None:
    publish(fake)
    client = open_client(messages.Registry(fake.uri), fetch_timeout_s=3.0)
    identity = (await client.poll()).identity("m", "1")
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def never(_: Any) -> Any:
        loop.call_soon_threadsafe(asked.set)
        fake.is_over.wait(TIMEOUT_S)

    fake.answers[GRAPH] = never
    fetch = asyncio.create_task(client.fetch("m", "1", identity))
    await asyncio.wait_for(asked.wait(), TIMEOUT_S)
    publish(fake, "2")
    assert (await client.poll()).models == {"m": TrafficPlan("2")}
    with pytest.raises(
        UnavailableError, match=r"fetching version 1 of model 'm' from the source took longer than 3 s "
    ):
        await fetch
    assert not is_alive(starter.started[1].pid)


async def test_what_a_killed_fetch_left_is_swept_by_the_next(
    open_client: Any, fake: FakeRegistry, starter: Starter, tmp_path: Path
) -> None:
    publish(fake)
    client = open_client(messages.Registry(fake.uri))
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def never(_: Any) -> Any:
        loop.call_soon_threadsafe(asked.set)
        fake.is_over.wait(TIMEOUT_S)

    fake.answers[GRAPH] = never
    fetch = asyncio.create_task(client.fetch("m", "1", ""))
    await asyncio.wait_for(asked.wait(), TIMEOUT_S)
    os.kill(starter.started[0].pid, 9)
    with pytest.raises(UnavailableError, match="its process ended"):
        await fetch
    assert partials(tmp_path) == 1
    del fake.answers[GRAPH]
    found = await client.fetch("m", "1", "")
    await asyncio.wait_for(starter.started[1].wait(), TIMEOUT_S)
    assert partials(tmp_path) == 0
    assert (found.folder / "model.onnx").read_bytes() == b"graph 1"


async def test_closing_ends_everything_at_once(open_client: Any, fake: FakeRegistry, starter: Starter) -> None:
    publish(fake)
    client = open_client(messages.Registry(fake.uri))
    fake.hangs = True
    waiting = [asyncio.create_task(client.poll()), asyncio.create_task(client.fetch("m", "1", ""))]
    for _ in waiting:
        assert await asyncio.to_thread(fake.hung.acquire, timeout=TIMEOUT_S)
    await asyncio.wait_for(client.close(), 5.0)
    for ended in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(ended, UnavailableError)
    with pytest.raises(UnavailableError, match="the server is stopping"):
        await client.fetch("m", "1", "")
    assert len(starter.started) == 2


async def test_no_secret_is_on_the_command_line(open_client: Any, fake: FakeRegistry, starter: Starter) -> None:
    publish(fake)
    await open_client(messages.Registry(fake.uri)).poll()
    assert b"hunter2" not in said_of(starter.started[0].pid, "cmdline")


async def test_mlflow_is_imported_by_none_that_reads_a_database_or_a_server(
    open_client: Any, fake: FakeRegistry, starter: Starter, tmp_path: Path
) -> None:
    publish(fake)
    for uri in (fake.uri, f"sqlite:///{database_in(tmp_path)}"):
        await open_client(messages.Registry(uri)).poll()
        maps = said_of(starter.started[-1].pid, "maps")
        assert b"pydantic" not in maps  # of mlflow's
        assert b"numpy" not in maps
        resident = int(said_of(starter.started[-1].pid, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert resident < 45 * 2**20


async def test_a_locked_registry_is_told(open_client: Any, tmp_path: Path) -> None:
    path = database_in(tmp_path)
    client = open_client(messages.Registry(f"sqlite:///{path}"), poll_timeout_s=60.0)
    with closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError, match="database is locked"):
            await client.poll()
    assert (await client.poll()).models == {}
