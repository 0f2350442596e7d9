"""Measures one peer, Penstock and the bare baseline in one run, and ends every process that the peer started.

A peer that cannot be installed or started, or that answers wrongly, gives a result with the reason.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psutil

from bench import inference, session
from bench.load.generator import LoadError
from bench.peers import environments
from bench.peers.environments import InstallError
from bench.peers.peer import Peer
from bench.scenarios import Rounds, Scenario
from bench.servers.measured import BASELINE, ROOT, SERVERS, MeasuredServer
from bench.servers.peers.command_line import free_port
from bench.session import RunResult, RunSpec
from penstock_server.errors import UnavailableError

PENSTOCK: Final = "penstock"
SCENARIOS: Final = (Scenario("tabular", 1, 1), Scenario("tabular", 4, 2), Scenario("tabular", 8, 8))
MARK: Final = "PENSTOCK_BENCH_PEER"
"""An environment variable of a peer's processes. By it they are found, even if they left their parents' session."""

_MODEL: Final = "tabular"
_END_S: Final = 5.0
_FAILURES: Final = (InstallError, LoadError, UnavailableError, TimeoutError, inference.WrongAnswerError, ValueError)


@dataclass(frozen=True, slots=True)
class PeerResult:
    """The outcome for one peer.

    Attributes:
        run: the measurements of the peer, of Penstock and of the baseline; None if there are none.
        installed: every package of its environment.
        failure: why nothing was measured.
    """

    peer: Peer
    run: RunResult | None = None
    installed: tuple[str, ...] = ()
    failure: str | None = None


def run_spec(peer: Peer, rounds: Rounds) -> RunSpec:
    """What is measured; the peer comes first, so that ratios say how many times better than it the others are."""
    return RunSpec(servers=(peer.name, PENSTOCK, BASELINE), scenarios=SCENARIOS, rounds=rounds)


def measure(
    peer: Peer,
    rounds: Rounds,
    *,
    on_start: Callable[[str], None] = lambda _: None,
    on_measured: Callable[[], None] = lambda: None,
) -> PeerResult:
    """Installs, starts, checks and measures a peer; if that fails, the result has the reason."""
    installed: tuple[str, ...] = ()
    try:
        if not environments.is_fresh(peer):
            on_start(f"installing {peer.name} {peer.version}")
        environments.make(peer)
        installed = tuple(environments.installed(peer))
        with TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder, _marked() as mark:
            servers = {**SERVERS, peer.name: measured_server(peer, Path(folder), mark)}
            run = session.run(run_spec(peer, rounds), on_start=on_start, on_measured=on_measured, servers=servers)
    except _FAILURES as error:
        return PeerResult(peer, installed=installed, failure=str(error))
    return PeerResult(peer, run, installed)


def measured_server(peer: Peer, folder: Path, mark: str) -> MeasuredServer:
    """The peer as a server to measure: its environment, this checkout's contract, a folder and the mark."""
    # The folder is its home too: several peers leave workspaces, tokens and counters there.
    path = os.pathsep.join((str(ROOT), str(ROOT / "protos")))
    env = {"PYTHONPATH": path, "PYTHONNOUSERSITE": "1", "HOME": str(folder), "TMPDIR": str(folder), MARK: mark}

    def command(repository: Path, files: Mapping[str, Path]) -> list[str]:  # noqa: ARG001
        python = environments.python(peer)
        return peer.command(python, files[_MODEL], model=_MODEL, port=free_port(), folder=folder, env=env)

    return MeasuredServer(peer.name, command, peer.request_protocol)


@contextmanager
def _marked() -> Iterator[str]:
    """A mark for processes; processes that have it are killed on leaving."""
    mark = uuid.uuid4().hex
    try:
        yield mark
    finally:
        left = survivors(mark)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_END_S)


def survivors(mark: str) -> list[psutil.Process]:
    """The living processes with this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found
