"""How long servers take from their start to their first answer, and how much memory they then hold."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench import inference
from bench.processes import ProcessMemory, memory_of
from bench.protocols import GRPC
from bench.scenarios import Scenario
from bench.servers.measured import MeasuredServer, running

_FIRST_ANSWER_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Startup:
    """One start.

    Attributes:
        server: its name.
        listening_s: from the start to the line with its address.
        answered_s: from the start to its first good answer.
        processes: the memory of each of its processes then; the process started first comes first.
    """

    server: str
    listening_s: float
    answered_s: float
    processes: tuple[ProcessMemory, ...]

    @property
    def largest_rss_bytes(self) -> int:
        """Of the process that holds most, which is the one that runs the models."""
        return max(process.rss_bytes for process in self.processes)


def measure_startups(
    commands: Mapping[str, Sequence[str]],
    scenario: Scenario,
    servers: Mapping[str, MeasuredServer],
    *,
    on_start: Callable[[str], None],
) -> list[Startup]:
    """Starts and stops each server that speaks gRPC, one after another.

    Raises:
        UnavailableError: one did not start.
        TimeoutError: one did not answer.
    """
    message = inference.messages(scenario.model, rows=1, copies=scenario.copies)[0]
    found = []
    for name, command in commands.items():
        if servers[name].protocol is GRPC:
            on_start(f"starting {name}")
            found.append(_startup(name, command, message))
    return found


def _startup(name: str, command: Sequence[str], message: bytes) -> Startup:
    started = time.perf_counter()
    with running(command) as server:
        inference.first_answer(server.grpc, message, timeout_s=_FIRST_ANSWER_S)
        answered_s = time.perf_counter() - started
        return Startup(name, server.ready_s, answered_s, tuple(memory_of(server.pid)))
