"""How long a server takes from its start to its first answer, and how much memory it then holds."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import inference, measure
from bench.servers.measured import running


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
    processes: tuple[measure.ProcessMemory, ...]

    @property
    def largest_rss_bytes(self) -> int:
        """Of the process that holds most, which is the one that runs the models."""
        return max(process.rss_bytes for process in self.processes)


def startup(name: str, command: Sequence[str], message: bytes, *, timeout_s: float = 60) -> Startup:
    """Starts a server of the Open Inference Protocol, waits for its first answer, and stops it.

    Raises:
        UnavailableError: it did not start.
        TimeoutError: it did not answer.
    """
    started = time.perf_counter()
    with running(command) as server:
        inference.first_answer(server.grpc, message, timeout_s=timeout_s)
        answered_s = time.perf_counter() - started
        return Startup(name, server.ready_s, answered_s, tuple(measure.memory(server.pid)))
