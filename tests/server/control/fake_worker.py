"""A worker without a process: a real `WorkerProcess` over a stream of the test's own, which plays the worker's end."""

import asyncio
from itertools import count
from typing import Any

from penstock_server.control import messages
from penstock_server.control.messages import Command, Event, command, framed
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.frames import HEAD
from penstock_server.rollout.plan import ModelRoutes, TrafficPlan

TIMEOUT_S = 30.0
_pids = count(1000)


class FakeProcess:
    """What `WorkerProcess` uses of a process."""

    def __init__(self) -> None:
        self.pid = next(_pids)
        self.returncode: int | None = None
        self.kills = 0
        self._ended = asyncio.Event()

    def end(self, code: int) -> None:
        self.returncode = code
        self._ended.set()

    def kill(self) -> None:
        self.kills += 1
        self.end(-9)

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


class FakeWriter:
    """Splits what is written into commands."""

    def __init__(self, on_command: Any) -> None:
        self._on_command = on_command
        self._is_closed = False

    def write(self, frame: bytes) -> None:
        (size,) = HEAD.unpack_from(frame)
        assert len(frame) == HEAD.size + size
        self._on_command(command(frame[HEAD.size :]))

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True


class FakeWorker:
    """The worker's end.

    Attributes:
        commands: all that it got.
        said: the same in short, as in "load m 1"; a `Serve` is said when it changes the plans, as in "serve m:1+2@0.1".
        confirms: whether it confirms each `Serve` at once.
        routes: those in force.
    """

    def __init__(self) -> None:
        self.process = FakeProcess()
        self.reader = asyncio.StreamReader()
        self.commands: list[Command] = []
        self.confirms = True
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.routes: dict[str, ModelRoutes] = {}
        self._plans: dict[str, TrafficPlan | None] = {}
        writer: Any = FakeWriter(self._on_command)
        process: Any = self.process
        self.end_here = WorkerProcess(process, self.reader, writer)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.reader.feed_data(framed(event))

    def die(self, code: int = 1) -> None:
        self.process.end(code)
        self.reader.feed_eof()

    async def hears(self, *expected: str) -> None:
        """The next commands are these, in this order."""
        found = [await asyncio.wait_for(self.said.get(), TIMEOUT_S) for _ in expected]
        assert found == list(expected)

    @property
    def serves(self) -> list[messages.Serve]:
        return [one for one in self.commands if isinstance(one, messages.Serve)]

    def _on_command(self, command: Command) -> None:
        self.commands.append(command)
        match command:
            case messages.Start():
                pass
            case messages.Serve(generation):
                self.routes = command.applied(self.routes)
                plans = {model: routes.plan for model, routes in self.routes.items() if routes.plan is not None}
                if plans != self._plans:
                    self._plans = dict(plans)
                    self.said.put_nowait(
                        " ".join(["serve", *(f"{name}:{_short(plan)}" for name, plan in sorted(plans.items()))])
                    )
                if self.confirms:
                    self.tell(messages.Served(generation))
            case messages.Load(model, version) | messages.Unload(model, version):
                self.said.put_nowait(f"{type(command).__name__.lower()} {model} {version}")
            case _:
                self.said.put_nowait(type(command).__name__.lower())


def _short(plan: TrafficPlan | None) -> str:
    assert plan is not None
    canaries = "".join(f"+{arm.version}@{arm.weight}" for arm in plan.canaries)
    return f"{plan.champion}{canaries}"
