"""A server in a process of its own: started, ready when it prints its addresses, stopped as an operator would.

The demo, the bench and the integration tests use it, for Penstock and for anything else that prints `grpc HOST:PORT` or
`http HOST:PORT` once it listens.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from penstock_server.errors import UnavailableError

PENSTOCK: Final = (sys.executable, "-m", "penstock_tools.cli.main")
"""The command line of `penstock`, by this interpreter."""

READY_TIMEOUT_S: Final = 120.0
"""A machine that has never run the server reads its libraries from disk first."""

STOP_TIMEOUT_S: Final = 40.0
"""Longer than the server's own grace for calls in flight."""

Protocol = Literal["grpc", "http", "rest"]

_ADDRESS: Final = re.compile(r"\b(grpc|http|rest)\s+((?:127\.0\.0\.1|\[::1\]|localhost):\d+)")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_KEPT_LINES: Final = 30
_LINE_CHARACTERS: Final = 1000
"""One line of a structured log may hold a whole traceback."""


def addresses(line: str) -> dict[str, str]:
    """The addresses by protocol that a line of output names.

    >>> addresses("penstock is ready: grpc 127.0.0.1:8001  http 127.0.0.1:8002")
    {'grpc': '127.0.0.1:8001', 'http': '127.0.0.1:8002'}
    """
    return dict(_ADDRESS.findall(_ANSI.sub("", line)))


class ServerProcess:
    """A server's process. It starts when constructed; leaving the context stops it and every process that it started.

    It runs in a session of its own: Ctrl-C at the terminal reaches the caller only, who then stops the server in order.

    Attributes:
        pid: the process started; workers are its descendants.
        ready_s: from the start to the line with the awaited address; set by `wait_ready`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        """Starts the process.

        Args:
            command: its command line.
            env: variables in addition to those of this process.
            cwd: its working directory; None for that of this process.
            log: a file for its standard error; None reads standard error together with standard output.
            stop_timeout_s: how long it may take to end after SIGTERM before it is killed.

        Raises:
            UnavailableError: it cannot be started.
        """
        self._stop_timeout_s = stop_timeout_s
        self._has_log = log is not None
        self._found: dict[str, str] = {}
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._changed = threading.Condition()
        self._is_silent = False
        self._started = time.perf_counter()
        self.ready_s = 0.0
        with ExitStack() as files:
            try:
                self._process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT if log is None else files.enter_context(log.open("wb")),
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise UnavailableError(f"{command[0]} cannot be started: {error}") from error
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S, *, protocol: Protocol = "grpc") -> Self:
        """Waits until the server has printed its address for this protocol.

        Raises:
            UnavailableError: it ended before, or was not ready in time; it is stopped then.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_silent or protocol in self._found, timeout_s)
            self.ready_s = time.perf_counter() - self._started
            if protocol in self._found:
                return self
            has_ended = self._is_silent
        code = self.stop()
        why = (
            f"ended with exit code {code} before it was ready" if has_ended else f"was not ready within {timeout_s:g} s"
        )
        output = "" if self._has_log else f"; its output ends with:\n{self.last_lines or 'nothing'}"
        raise UnavailableError(f"the server {why}{output}")

    @property
    def grpc(self) -> str:
        """Where it listens for gRPC, as `host:port`."""
        return self._found["grpc"]

    @property
    def http(self) -> str:
        """Where it listens for HTTP, as `host:port`; empty while it has named no such address."""
        return self._found.get("http", "")

    @property
    def rest(self) -> str:
        """Where it serves REST, as `host:port`; empty where it does not."""
        return self._found.get("rest", "")

    @property
    def last_lines(self) -> str:
        """The last lines of its standard output, and of its standard error where there is no log file."""
        with self._changed:
            return "\n".join(self._lines)

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for the signal that killed it; None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits until the server has ended by itself and everything that it printed is read.

        Raises:
            UnavailableError: it still runs after that time.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"the server still runs after {timeout_s:g} s") from None
        self._reader.join(timeout_s)
        return code

    def stop(self) -> int:
        """Sends SIGTERM, waits until the server has drained, and kills what is left of it then.

        A second call only returns the exit code, which is negative for the signal that killed it.
        """
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._stop_timeout_s)
        return self.kill()

    def kill(self) -> int:
        """Kills the server and every process that it started, and returns the exit code."""
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._reader.join()
        return code

    def _read(self) -> None:
        # All output is read until it ends, since a full pipe would stop the server.
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip()[:_LINE_CHARACTERS])
                    self._found = addresses(line) | self._found
                    self._changed.notify_all()
        with self._changed:
            self._is_silent = True
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def tail(log: Path, lines: int = 10) -> str:
    """The last lines of a log file, long ones cut; empty if there is no such file."""
    try:
        with log.open(errors="replace") as file:
            last = deque(file, maxlen=lines)
    except OSError:
        return ""
    return "".join(line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]} ...\n" for line in last)
