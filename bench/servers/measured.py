"""The servers that are measured: how each is started, how it says where it listens, how it is ended.

A contestant is data; a new peer is a new entry. Called by `__main__` and `promotions`.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

from bench.protocols import GRPC, JSON, Wire
from bench.servers import roles
from bench.servers.roles import PORTS, ServerError, penstock_command

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout."""

_ADDRESS: Final = re.compile(r"\b(grpc|http)\s+((?:127\.0\.0\.1|\[::1\]|localhost):\d+)")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_KEPT_LINES: Final = 30
_KEPT_CHARACTERS: Final = 500
_END_S: Final = 10.0
_SPOKEN: Final = {"grpc": "gRPC", "http": "HTTP"}


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server to measure.

    Attributes:
        name: in tables and results.
        command: the command line that serves these model files, found in this repository folder.
        wire: how it is asked.
    """

    name: str
    command: Callable[[Path, Mapping[str, Path]], list[str]]
    wire: Wire = GRPC


def _serve_penstock(*more: str, workers: int = 1) -> Callable[[Path, Mapping[str, Path]], list[str]]:
    def command(repository: Path, files: Mapping[str, Path]) -> list[str]:  # noqa: ARG001
        folder = ("--model-repository", str(repository))
        return penstock_command("serve", *folder, *PORTS, "--workers", str(workers), *more)

    return command


def _serve_baseline(module: str) -> Callable[[Path, Mapping[str, Path]], list[str]]:
    def command(repository: Path, files: Mapping[str, Path]) -> list[str]:  # noqa: ARG001
        return [
            sys.executable,
            "-m",
            f"bench.servers.baselines.{module}",
            *(f"{name}={file}" for name, file in files.items()),
        ]

    return command


def _serve_roles(*, are_idle: bool) -> Callable[[Path, Mapping[str, Path]], list[str]]:
    def command(repository: Path, files: Mapping[str, Path]) -> list[str]:
        folder = repository.parent / ("idle-roles" if are_idle else "busy-roles")
        return roles.serve(folder, files, are_idle=are_idle)

    return command


BASELINE: Final = "baseline"
CONTESTANTS: Final[Mapping[str, Contestant]] = MappingProxyType(
    {
        contestant.name: contestant
        for contestant in (
            Contestant(BASELINE, _serve_baseline("aio_server")),
            Contestant("fastapi", _serve_baseline("fastapi_server"), JSON),
            Contestant("penstock", _serve_penstock()),
            Contestant("penstock-aio", _serve_penstock("--transport", "aio")),
            Contestant("penstock-2-workers", _serve_penstock(workers=2)),
            Contestant("penstock-idle-roles", _serve_roles(are_idle=True)),
            Contestant("penstock-canary-shadow", _serve_roles(are_idle=False)),
        )
    }
)


def addresses(line: str) -> dict[str, str]:
    """The addresses that a line of a server's output names, by protocol: `grpc 127.0.0.1:PORT`, `http ...`."""
    return dict(_ADDRESS.findall(_ANSI.sub("", line)))


class ServerProcess:
    """A server's process, ready when constructed, ended on leaving its context.

    Attributes:
        grpc, http: where it listens; `http` is "" when it named none by then.
        pid: of the process started; workers are its descendants.
        ready_s: from the start of the process to the line that names its gRPC address.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = 60,
        env: Mapping[str, str] | None = None,
        protocol: str = "grpc",
    ) -> None:
        self._protocol = protocol
        self._found: dict[str, str] = {}
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._is_ready = threading.Event()
        started = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # so that its workers end with it
            )
        except OSError as error:
            raise ServerError(f"{command[0]} cannot be started: {error}") from error
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._is_ready.wait(timeout_s)
        self.ready_s = time.perf_counter() - started
        if protocol not in self._found:
            self.close()
            when = f"within {timeout_s:g} s" if self.ready_s >= timeout_s else "before it ended"
            raise ServerError(
                f"{' '.join(command)} named no {_SPOKEN[protocol]} address {when}; it said:\n{self.last_lines or 'nothing'}"
            )

    @property
    def address(self) -> str:
        """Of the protocol that was awaited."""
        return self._found[self._protocol]

    @property
    def grpc(self) -> str:
        return self._found["grpc"]

    @property
    def http(self) -> str:
        return self._found.get("http", "")

    @property
    def last_lines(self) -> str:
        """What it said last."""
        return "\n".join(self._lines)

    def close(self) -> None:
        """Asks it to end, and after ten seconds ends it and its workers."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        with suppress(ProcessLookupError):  # nobody is left, as it should be
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_END_S)

    def _read(self) -> None:
        """Takes all output until it ends: a full pipe would stop the server."""
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._lines.append(line.rstrip()[:_KEPT_CHARACTERS])
                if not self._is_ready.is_set():
                    self._found |= addresses(line)
                    if self._protocol in self._found:
                        self._is_ready.set()
        self._is_ready.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
