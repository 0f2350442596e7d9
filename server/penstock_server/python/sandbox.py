"""A pipeline's process, as its worker sees it: started, asked, ended when it does not answer, and started again.

Whatever the pipeline does costs the batch that runs and the time of a new start. The worker waits on a thread of the version's
own, never longer than the limits. A process that ends again and again is started ever later; the supervisor, which learns of
each end, keeps the version out when there are too many (`control.quarantine`).
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from penstock.names import VersionKey
from penstock.tensors import from_raw
from penstock_server import frames, leases, paths
from penstock_server.errors import (
    InvalidInputError,
    ModelFailedError,
    NotReadyError,
    PenstockError,
    RefusedByModelError,
)
from penstock_server.python.description import Description, Output
from penstock_server.python.messages import (
    Answered,
    Array,
    Command,
    Event,
    PipelineFailed,
    PipelineRun,
    PipelineStart,
    Ready,
    encoded,
    event,
)
from penstock_server.python.settings import PythonSettings

log = structlog.get_logger(__name__)

PAUSES_S: Final = (0.0, 0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""The pause before a process is started again, by how many ended in a row without an answer between."""
CLOSE_S: Final = 1.0
ENDING_S: Final = 5.0
"""How long a process that closed its socket may take to end, so that it is known how it ended."""
MAX_ANSWER_BYTES: Final = 1 << 28
_STDERR: Final = "stderr"
_SHOWN_CHARS: Final = 2000
_TRACE_CHARS: Final = 10_000
_KEPT_VARIABLES: Final = (
    "PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "LC_CTYPE",
    "TZ", "SYSTEMROOT", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
)  # fmt: skip
"""What Python needs to find its libraries and to read text; the rest of the environment may hold secrets."""
_THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "LOKY_MAX_CPU_COUNT",
)  # fmt: skip


class Sandbox:
    """One pipeline's process. Several threads may use it; they take turns.

    Args:
        key: the model's name and the version's.
        description: how the pipeline is loaded and what it gives.
        content: reads the pipeline's file, and checks that it is what was published; called at each start.
        settings: what the process may use.

    Attributes:
        on_end: called with how it ended, each time that it ended by itself or had to be ended.
    """

    def __init__(
        self, key: VersionKey, description: Description, content: Callable[[], bytes], settings: PythonSettings
    ) -> None:
        self.key = key
        self.on_end: Callable[[str], None] = lambda _: None
        self._description = description
        self._content = content
        self._settings = settings
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._ends = 0
        self._not_before_s = 0.0
        self._is_closed = False

    def start(self) -> tuple[str, ...]:
        """Starts the process and waits until the pipeline is loaded; what the process may not do.

        Raises:
            InvalidInputError: it cannot be loaded; says why.
        """
        with self._lock:
            return self._started().confined

    def run(self, blocks: Sequence[bytes], rows: int) -> list[NDArray[Any]]:
        """The outputs for these rows, in the description's order.

        Raises:
            RefusedByModelError: the pipeline refuses the rows, and says why.
            ModelFailedError: it raised, took too much memory or time, or its process ended.
            NotReadyError: the process ended before, and is to be started again later.
        """
        with self._lock:
            try:
                process = self._started()
            except InvalidInputError as error:  # which says nothing about the rows
                log.error("a pipeline does not load again", model=self.key[0], version=self.key[1], reason=str(error))
                raise NotReadyError(str(error)) from error
            limit_s = self._settings.run_limit_s
            try:
                said = process.ask(PipelineRun(list(blocks), rows), limit_s)
            except TimeoutError:
                how = f"it did not answer {rows:,} rows within {limit_s:g} s (the limit is the setting python.run_limit_s)"
                raise self._ended(how) from None
            except EOFError:
                raise self._ended(process.ending()) from None
            except _NoAnswerError as error:
                raise self._ended(str(error)) from None
            try:
                arrays = _arrays(said, self._description.outputs, rows) if isinstance(said, Answered) else None
            except ValueError as error:
                raise self._ended(f"it sent other arrays than it was asked for: {error}") from None
            self._ends = 0
        if arrays is not None:
            return arrays
        raise self._failure(said)

    def close(self) -> None:
        """Ends the process, also while it answers."""
        self._is_closed = True
        if (process := self._process) is not None:
            process.kill()
        with self._lock:
            if self._process is not None:
                self._process.end()
                self._process = None

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        process = self._process
        return None if process is None else process.pid

    def _started(self) -> "_Process":
        """The process, ready to answer."""
        model, version = self.key
        if self._is_closed:
            raise NotReadyError(f"model {model!r} version {version} is being unloaded")
        left_s = self._not_before_s - time.monotonic()
        if self._process is None and left_s > 0:
            raise NotReadyError(
                f"the process of model {model!r} version {version} ended {self._ends} times in a row, "
                f"and is started again in {left_s:.0f} s"
            )
        process = self._process or self._spawned()
        if not process.is_ready:
            try:
                process.wait_ready(self._settings.start_limit_s)
            except TimeoutError:
                limit = f"{self._settings.start_limit_s:g} s (the limit is the setting python.start_limit_s)"
                raise self._ended(f"it did not load the pipeline within {limit}", InvalidInputError) from None
            except EOFError:
                raise self._ended(process.ending(), InvalidInputError) from None
            except (InvalidInputError, _NoAnswerError) as error:
                raise self._ended(str(error), InvalidInputError) from None
        return process

    def _spawned(self) -> "_Process":
        start = PipelineStart(self._description, self._content(), "", self._settings.memory_mib)
        process = self._process = _Process(start, self._settings.threads)
        return process

    def _ended(self, how: str, kind: type[PenstockError] = ModelFailedError) -> PenstockError:
        """Cleans up behind a process that ended or hangs, and starts another if its turn is now; the error of who asked."""
        process, self._process = self._process, None
        assert process is not None
        said = process.end()
        if self._is_closed:
            return NotReadyError("the version was unloaded before the request had its answer")
        pause_s = PAUSES_S[min(self._ends, len(PAUSES_S) - 1)]
        self._ends += 1
        self._not_before_s = time.monotonic() + pause_s
        if kind is ModelFailedError:
            log.error(
                "a pipeline's process ended", model=self.key[0], version=self.key[1], pid=process.pid, how=how,
                pause_s=pause_s, stderr=said,
            )  # fmt: skip
            self.on_end(how)
            if not pause_s:
                # It loads while nobody waits for it, or while the other requests of the batch do.
                with suppress(OSError, PenstockError):
                    self._spawned()
        return kind(f"the process of the pipeline failed: {how}" if kind is ModelFailedError else how)

    def _failure(self, said: Event) -> PenstockError:
        if not isinstance(said, PipelineFailed):
            return ModelFailedError("the process of the pipeline answered something else than was asked")
        if said.kind == "memory":
            limit = f"{self._settings.memory_mib:,} MiB (the limit is the setting python.memory_mib)"
            return ModelFailedError(f"the pipeline needs more memory for these rows than {limit}")
        if said.kind == "refused":
            return RefusedByModelError(f"the pipeline refuses these rows: {said.text[:_SHOWN_CHARS]}")
        error = ModelFailedError("the model failed on this input")
        error.__cause__ = _RaisedThereError(f"{said.text}\n{said.trace}"[:_TRACE_CHARS])
        return error


class _RaisedThereError(Exception):
    """What a pipeline raised in its process, as text."""


class _NoAnswerError(Exception):
    """What a process sent is no message. The code of a pipeline can write to the socket, too."""


class _Process:
    """One process: its socket, its folder, and how it ends. It begins to load at once."""

    def __init__(self, start: PipelineStart, threads: int) -> None:
        self.is_ready = False
        self.confined: tuple[str, ...] = ()
        self._folder, self._lease = _own_folder()
        ours, theirs = socket.socketpair()
        self._link = ours
        try:
            with theirs, (self._folder / _STDERR).open("wb") as stderr:
                self._popen = _spawned(theirs.fileno(), _environment(self._folder, threads), self._folder, stderr)
        except BaseException:
            ours.close()
            self._remove_folder()
            raise
        self._start: PipelineStart | None = PipelineStart(
            start.description, start.content, str(self._folder), start.memory_mib
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait_ready(self, limit_s: float) -> None:
        """Waits until the pipeline is loaded.

        Raises:
            InvalidInputError: it cannot be loaded; says why.
            TimeoutError, EOFError: as `ask`.
        """
        assert self._start is not None
        start, self._start = self._start, None
        said = self.ask(start, limit_s)
        if isinstance(said, PipelineFailed):
            limit = (
                "it needs more memory than the setting python.memory_mib allows" if said.kind == "memory" else said.text
            )
            raise InvalidInputError(f"the pipeline does not load here: {limit}")
        if not isinstance(said, Ready):
            raise _NoAnswerError("it sent something else than that it is ready")
        self.confined, self.is_ready = said.confined, True

    def ask(self, command: Command, limit_s: float) -> Event:
        """Sends a command and waits for its answer.

        Raises:
            TimeoutError: none came in time.
            EOFError: the process is gone.
            _NoAnswerError: it sent something else.
        """
        until_s = time.monotonic() + limit_s
        try:
            self._link.settimeout(limit_s)
            self._link.sendall(frames.framed(encoded(command)))
            (size,) = frames.HEAD.unpack(self._received(frames.HEAD.size, until_s))
            if size > MAX_ANSWER_BYTES:
                raise _NoAnswerError(f"it sent {size:,} bytes at once; expected at most {MAX_ANSWER_BYTES:,}")
            return event(self._received(size, until_s))
        except msgspec.DecodeError as error:
            raise _NoAnswerError("it sent something that is no answer") from error
        except TimeoutError:
            raise
        except OSError as error:
            raise EOFError("the process is gone") from error

    def _received(self, size: int, until_s: float) -> bytearray:
        found = bytearray(size)
        view, at = memoryview(found), 0
        while at < size:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._link.settimeout(left_s)
            got = self._link.recv_into(view[at:])
            if not got:
                raise EOFError("the process is gone")
            at += got
        return found

    def ending(self) -> str:
        """How it ended, which it has, or is about to."""
        try:
            code = self._popen.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        if code == -signal.SIGKILL:
            return "it was killed (signal 9), which the system does when the machine runs out of memory"
        if code >= 0:
            return f"it ended with exit code {code}"
        with suppress(ValueError):
            return f"it ended with signal {-code}, {signal.Signals(-code).name}"
        return f"it ended with signal {-code}"

    def kill(self) -> None:
        """Kills it with what it has started; it is the first of a session of its own."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def end(self) -> str:
        """Ends it, and removes its folder; the end of what it wrote to standard error."""
        self.kill()
        self._link.close()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(CLOSE_S)
        said = self._stderr()
        self._remove_folder()
        return said

    def _stderr(self) -> str:
        with suppress(OSError), (self._folder / _STDERR).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _SHOWN_CHARS))
            return file.read(_SHOWN_CHARS).decode(errors="replace").strip()
        return ""

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lease.close()


def _arrays(said: Answered, outputs: Sequence[Output], rows: int) -> list[NDArray[Any]]:
    """The outputs of an answer; `ValueError` where they are not those that were published."""
    expected = [(rows,) if output.width is None else (rows, output.width) for output in outputs]
    if [array.shape for array in said.arrays] != expected:
        raise ValueError(f"arrays of shape {[array.shape for array in said.arrays][:8]}, expected {expected[:8]}")
    return [_array(array, output.datatype) for array, output in zip(said.arrays, outputs, strict=True)]


def _array(array: Array, datatype: str) -> NDArray[Any]:
    values = from_raw(array.raw, datatype, array.shape)
    if datatype != "BYTES":
        return values
    texts = np.empty(values.size, object)
    texts[:] = [element.decode("utf-8", "replace") for element in values.ravel().tolist()]
    return texts.reshape(array.shape)


def _own_folder() -> tuple[Path, leases.Lease]:
    """A new folder for a process, and what keeps it from being swept; those of workers that were killed are removed."""
    parent = paths.cache_dir() / "python"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        with leases.for_deleting(left) as is_free:
            if is_free:
                shutil.rmtree(left, ignore_errors=True)
    return leases.new_folder(parent, "process-")


def _environment(folder: Path, threads: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    own = dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR", "JOBLIB_TEMP_FOLDER"), str(folder))
    count = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return {**kept, **own, **count, "PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "1"}


def _spawned(descriptor: int, environment: dict[str, str], folder: Path, stderr: Any) -> "subprocess.Popen[bytes]":
    found: Future[subprocess.Popen[bytes]] = Future()

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            # -P: its folder, which it may write to, is no place to import from.
            [sys.executable, "-P", "-m", "penstock_server.python.process", str(descriptor), str(os.getpid())],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(descriptor,),
            start_new_session=True,
        )

    _starter().put((start, found))
    return found.result()


_starting = threading.Lock()
_jobs: "SimpleQueue[tuple[Callable[[], Any], Future[Any]]] | None" = None


def _starter() -> "SimpleQueue[tuple[Callable[[], Any], Future[Any]]]":
    """The thread that starts processes: the kernel ends a process with the thread that started it (`lifeline`)."""
    global _jobs  # noqa: PLW0603 - one thread per process, which lives as long as it does
    with _starting:
        if _jobs is None:
            _jobs = SimpleQueue()
            threading.Thread(target=_start_each, args=(_jobs,), name="sandboxes", daemon=True).start()
        return _jobs


def _start_each(jobs: "SimpleQueue[tuple[Callable[[], Any], Future[Any]]]") -> None:
    while True:
        start, found = jobs.get()
        try:
            found.set_result(start())
        except BaseException as error:  # noqa: BLE001 - told to who asked
            found.set_exception(error)
