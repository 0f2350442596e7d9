"""A Penstock server with files of its own, and what it says of itself over HTTP."""

import json
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from bench.processes import memory_of, tree
from bench.servers.roles import PORTS, penstock_command
from penstock_server import paths
from penstock_tools.server_process import ServerProcess

T = TypeVar("T")
_HTTP_S: Final = 10.0
_POLL_S: Final = 0.05
_STOP_S: Final = 40.0
_SWITCH_S: Final = 2e-5
_WITHOUT: Final = "without"
_TRAINING_STACK: Final = ("pandas", "polars", "sklearn")

Labels = tuple[tuple[str, str], ...]


class ServerState:
    """What a server says of itself over HTTP, and what the kernel says of its processes."""

    def __init__(self, http: str, pid: int) -> None:
        self._http = http
        self.pid = pid

    def get(self, path: str) -> str:
        """The text of a page.

        Raises:
            OSError: it is not there.
        """
        with urllib.request.urlopen(f"http://{self._http}{path}", timeout=_HTTP_S) as reply:
            found: str = reply.read().decode()
            return found

    def models(self) -> list[dict[str, Any]]:
        """A row per version and role."""
        rows: list[dict[str, Any]] = json.loads(self.get("/v1/models"))["models"]
        return rows

    def version(self, model: str, version: str) -> dict[str, Any] | None:
        """The row of a version; None if there is none."""
        return next((row for row in self.models() if (row["name"], row["version"]) == (model, version)), None)

    def are_ready(self, models: set[str]) -> bool:
        """Whether each of the models has a version that is ready."""
        return models <= {row["name"] for row in self.models() if row["state"] == "READY"}

    def workers(self) -> list[dict[str, Any]]:
        """A row per worker."""
        rows: list[dict[str, Any]] = json.loads(self.get("/v1/models"))["workers"]
        return rows

    def restarts(self) -> int:
        """How many workers died and were replaced."""
        return sum(row["restarts"] for row in self.workers())

    def samples(self, *names: str) -> dict[tuple[str, Labels], float]:
        """The samples of these names now, by name and labels."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
            if sample.name in names
        }

    def tree_bytes(self) -> int:
        """Resident memory of all its processes."""
        return sum(process.rss_bytes for process in memory_of(self.pid))

    def workers_bytes(self) -> int:
        """Resident memory of its workers."""
        pids = {row["pid"] for row in self.workers()}
        return sum(process.rss_bytes for process in memory_of(self.pid) if process.pid in pids)

    def descendants(self) -> list[int]:
        """Its processes but the first."""
        return tree(self.pid)[1:]


@contextmanager
def serving(
    folder: Path,
    *arguments: str,
    settings: str = "",
    has_kernels: bool = True,
    models: set[str] | None = None,
    switches_often: bool = False,
    has_training_stack: bool = False,
) -> Iterator[tuple[ServerProcess, ServerState]]:
    """A server that is ready, with cache, data and log in a folder; ended with all its processes on leaving.

    Args:
        folder: of the server's own; made if it is not there.
        arguments: more of its command line.
        settings: a TOML file's text.
        has_kernels: whether the compiled kernels of this user's cache are copied, which saves compiling them.
        models: waits until each has a version that is ready.
        switches_often: see `switch_threads_often`.
        has_training_stack: pandas and scikit-learn are there, as the extra `python` leaves a server.

    Raises:
        UnavailableError, TimeoutError: it did not become ready.
    """
    command, env = command_of(
        folder, *arguments, settings=settings, has_kernels=has_kernels, has_training_stack=has_training_stack
    )
    if switches_often:
        switch_threads_often(folder / _WITHOUT)
    with ServerProcess(command, env=env, cwd=folder, log=log_of(folder), stop_timeout_s=_STOP_S) as process:
        try:
            process.wait_ready()
            state = ServerState(process.http, process.pid)
            wait_for(lambda: state.are_ready(models or set()), "every model is ready", timeout_s=60)
            yield process, state
        except BaseException:
            end(process, patience_s=0.0)  # nobody looks at how it ends
            raise
        end(process, patience_s=_STOP_S)


def end(process: ServerProcess, *, patience_s: float) -> None:
    """Tells a server to end, and after that time kills what is left of it.

    A hung worker may outlive its supervisor, in a process group of its own, and hold the pipe that `ServerProcess` reads
    to its end.
    """
    pids = tree(process.pid)
    if patience_s and process.returncode is None:
        os.kill(process.pid, signal.SIGTERM)
        happens(lambda: process.returncode is not None, within_s=patience_s)
    for pid in pids:
        with suppress(OSError):
            if b"penstock" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    process.kill()


def command_of(
    folder: Path,
    *arguments: str,
    settings: str = "",
    has_kernels: bool = True,
    has_training_stack: bool = False,
    ports: tuple[str, ...] = PORTS,
) -> tuple[list[str], dict[str, str]]:
    """The command line of a server with its files in a folder, and its environment."""
    cache, without = folder / "cache", folder / _WITHOUT
    for each in (cache, without):
        each.mkdir(parents=True, exist_ok=True)
    if has_kernels:
        for kernels in paths.cache_dir().glob("kernels-*"):
            shutil.copy(kernels, cache)
    # As the extra `server` leaves a server: mlflow imports the training stack where it is there.
    for name in () if has_training_stack else _TRAINING_STACK:
        (without / f"{name}.py").write_text(f"raise ModuleNotFoundError('not in this environment', name={name!r})\n")
    env = {
        "PENSTOCK_CACHE_DIR": str(cache),
        "PENSTOCK_DATA_DIR": str(folder / "data"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(without), os.environ.get("PYTHONPATH")))),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    config = folder / "penstock.toml"
    config.write_text(settings)
    return penstock_command("serve", "--config", str(config), *ports, *arguments), env


def switch_threads_often(folder: Path) -> None:
    """Makes every Python process that has this folder in PYTHONPATH switch between its threads all the time.

    By default a thread keeps the interpreter for 5 ms if it wants. A race of two threads that needs a switch between two
    certain instructions is then met once in many minutes of load, and so in seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(f"import sys\n\nsys.setswitchinterval({_SWITCH_S!r})\n")


def log_of(folder: Path) -> Path:
    """Where a server in this folder writes its log."""
    return folder / "server.log"


def tracebacks(folder: Path) -> int:
    """How many tracebacks a server in this folder has logged."""
    try:
        return log_of(folder).read_text(errors="replace").count("Traceback (most recent call last)")
    except OSError:
        return 0


def wait_for(condition: Callable[[], T], what: str, *, timeout_s: float) -> T:
    """The condition's first true value; another process's state can only be polled. A refused connection is not yet true.

    Raises:
        TimeoutError: it was not true in time.
    """
    give_up_at = time.monotonic() + timeout_s
    while True:
        try:
            if value := condition():
                return value
        except OSError:
            pass
        if time.monotonic() >= give_up_at:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(_POLL_S)


def happens(condition: Callable[[], object], *, within_s: float) -> float | None:
    """Seconds until the condition was true; None if it was not in time."""
    started = time.monotonic()
    try:
        wait_for(condition, "", timeout_s=within_s)
    except TimeoutError:
        return None
    return time.monotonic() - started
