"""How long a server takes from its start to its first answer, and what memory it then holds. Called by `__main__`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import inference, measure
from bench.servers.measured import ServerProcess


@dataclass(frozen=True, slots=True)
class Readiness:
    """One start.

    Attributes:
        server: its name.
        listening_s: from the start to the line that names its address.
        answered_s: from the start to its first good answer.
        processes: the memory of each of its processes then, the one started first.
    """

    server: str
    listening_s: float
    answered_s: float
    processes: tuple[measure.ProcessMemory, ...]

    @property
    def largest_rss_bytes(self) -> int:
        """Of the process that holds most: the one that runs the models."""
        return max(process.rss_bytes for process in self.processes)


def readiness(name: str, command: Sequence[str], message: bytes, *, timeout_s: float = 60) -> Readiness:
    """Starts a server, waits for its first answer, and ends it.

    Raises:
        ServerError: it did not start.
        TimeoutError: it did not answer.
    """
    started = time.perf_counter()
    with ServerProcess(command, timeout_s=timeout_s) as server:
        inference.first_answer(server.grpc, message, timeout_s=timeout_s)
        answered_s = time.perf_counter() - started
        return Readiness(name, server.ready_s, answered_s, tuple(measure.memory(server.pid)))
