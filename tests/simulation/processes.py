"""What the supervisor has of the processes that it starts: handles and sockets whose other ends are in the simulation."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock_server import frames
from penstock_server.control.source_client import SourceProcess
from penstock_server.errors import UnavailableError
from penstock_server.frames import HEAD
from penstock_server.rollout.registered import Change
from penstock_server.source_process import SourceServer
from penstock_server.sources import messages
from penstock_server.sources.source import Desired
from tests.simulation.loop import Process
from tests.simulation.registry import FakeRegistry, SimulatedSource, Store, WrittenRegistry
from tests.simulation.world import Wire, World


class Handle:
    """An `asyncio.subprocess.Process`, as far as it is used."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._ended = asyncio.Event()
        # Told by a signal, some time after the end.
        process.on_end.append(lambda: world.loop.later(world.network, world.delay_s(0.0001, 0.01), self._ended.set))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.code if self._ended.is_set() else None

    def kill(self) -> None:
        self._world.end(self._process, -9)

    async def wait(self) -> int:
        await self._ended.wait()
        assert self._process.code is not None
        return self._process.code


class Writer:
    """A stream's writing end: splits what is written into the bodies of frames."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._is_closed = False

    def write(self, frame: bytes) -> None:
        (size,) = HEAD.unpack_from(frame)
        assert len(frame) == HEAD.size + size
        self._wire.send(frame[HEAD.size :])

    def write_eof(self) -> None:
        self._wire.end()

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True
        self._wire.end()


def reading(world: World, reader: asyncio.StreamReader) -> Wire:
    """The wire to a stream's reading end."""

    def deliver(frame: bytes | None) -> None:
        if frame is None:
            reader.feed_eof()
        else:
            reader.feed_data(frame)

    return Wire(world, deliver)


class Troubles:
    """What is wrong with sources' processes and what they read, while it is.

    Attributes:
        slow_s: the longest that an answer takes.
        is_hung: they answer nothing.
    """

    def __init__(self) -> None:
        self.slow_s = 0.0
        self.is_hung = False


class FakeSourceProcess(SourceProcess):
    """A source's process: the real one's server, at its own time."""

    def __init__(
        self,
        world: World,
        opening: messages.Open,
        registry: FakeRegistry,
        store: Store,
        troubles: Troubles,
        told: Callable[[Desired], None],
    ) -> None:
        self._world = world
        self.process = world.process("source")
        self._handle = Handle(world, self.process)
        self._told = told
        self._troubles = troubles
        self._registry = registry
        reader = asyncio.StreamReader(limit=frames.MAX_FRAME_BYTES)
        self._to_supervisor = reading(world, reader)
        self._requests: list[messages.Request] = []
        self._is_ended = False
        self._is_busy = False
        self._server = SourceServer(opening)
        self._server._source = SimulatedSource(registry, store, Path(opening.cache_dir))
        writer: Any = Writer(Wire(world, self._on_frame))
        handle: Any = self._handle
        super().__init__(handle, reader, writer)
        self.process.on_end.append(self._to_supervisor.end)

    def __hash__(self) -> int:
        return self.process.pid

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def is_busy(self) -> bool:
        """Whether it has requests to answer."""
        return bool(self._requests)

    async def kill(self) -> int:
        self._writer.close()
        self._world.end(self.process, -9)
        return await self._handle.wait()

    def _on_frame(self, body: bytes | None) -> None:
        if self.process.is_dead:
            return
        if body is None:
            self._is_ended = True
        else:
            request = messages.request(body)
            if not isinstance(request, messages.Open):
                self._requests.append(request)
        self._next()

    def _next(self) -> None:
        if self._is_busy or self._troubles.is_hung:
            return
        if self._requests:
            self._is_busy = True
            half_s = self._duration_s(self._requests[0]) / 2
            # It reads the registry somewhere in the middle.
            self._world.loop.later(self.process.context, half_s, self._answer, half_s)
        elif self._is_ended:
            self._world.end(self.process, 0)

    def unhang(self) -> None:
        if not self.process.is_dead:
            self._next()

    def _duration_s(self, request: messages.Request) -> float:
        most_s = {"Poll": 0.1, "Fetch": 3.0}.get(type(request).__name__, 0.1)
        return self._world.delay_s(0.001, most_s + self._troubles.slow_s)

    def _answer(self, half_s: float) -> None:
        answer = self._server.answer(self._requests[0])
        request = self._requests[0]
        if isinstance(request, messages.Write) and isinstance(answer, messages.Written):
            self._world.loop.later(self.process.context, half_s, self._make, request.model, [*request.changes])
        else:
            self._world.loop.later(self.process.context, half_s, self._send, answer)

    def _make(self, model: str, changes: list[Change]) -> None:
        """Makes one change after the other in a registry that does not make all at once; its end may come between."""
        registry = self._registry
        assert isinstance(registry, WrittenRegistry)
        if registry.is_atomic or not changes:
            self._send(messages.Written())
            return
        try:
            registry.make(model, changes.pop(0))
        except UnavailableError as error:
            self._send(messages.Failed("UnavailableError", str(error)))
            return
        delay_s = self._world.delay_s(0.001, 0.2 + self._troubles.slow_s)
        self._world.loop.later(self.process.context, delay_s, self._make, model, changes)

    def _send(self, answer: messages.Answer | None) -> None:
        request = self._requests.pop(0)
        self._is_busy = False
        if isinstance(answer, messages.Polled):
            self._told(answer.desired)
        if not isinstance(request, messages.Poll):
            said = type(answer).__name__ + (
                f" {answer.kind}: {answer.reason}" if isinstance(answer, messages.Failed) else ""
            )
            self._world.say(f"{self.process} answers {request} with {said}")
        if answer is not None:
            self._to_supervisor.send(frames.framed(messages.encode(answer)))
        self._next()
