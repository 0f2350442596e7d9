"""One peer measured beside Penstock and the bare baseline, in one run; nothing it started lives on.

A peer that cannot be installed, started or trusted becomes a finding with a reason. Called by `__main__`.
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
from bench.scenarios import Effort, Scenario
from bench.servers.measured import BASELINE, CONTESTANTS, ROOT, Contestant
from bench.servers.peers.shared import free_port
from bench.servers.roles import ServerError
from bench.session import Order, Run

PENSTOCK: Final = "penstock"
SCENARIOS: Final = (Scenario("tabular", 1, 1), Scenario("tabular", 4, 2), Scenario("tabular", 8, 8))
MARK: Final = "PENSTOCK_BENCH_PEER"
"""The environment variable by which a peer's processes are found, however far they went from their parents."""

_MODEL: Final = "tabular"
_END_S: Final = 5.0
_FAILURES: Final = (InstallError, LoadError, ServerError, TimeoutError, inference.WrongAnswerError, ValueError)


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one peer.

    Attributes:
        run: the measurements of the peer, of Penstock and of the baseline; None where there are none.
        installed: every package of its environment.
        failure: why nothing was measured.
    """

    peer: Peer
    run: Run | None = None
    installed: tuple[str, ...] = ()
    failure: str | None = None


def order(peer: Peer, effort: Effort) -> Order:
    """The peer comes first, so that ratios say how many times better than it the others are."""
    return Order(servers=(peer.name, PENSTOCK, BASELINE), scenarios=SCENARIOS, effort=effort)


def find(
    peer: Peer,
    effort: Effort,
    *,
    on_start: Callable[[str], None] = lambda _: None,
    on_measured: Callable[[], None] = lambda: None,
) -> Finding:
    """Installs, starts, checks and measures a peer; a reason stands in for what failed."""
    installed: tuple[str, ...] = ()
    try:
        if not environments.is_fresh(peer):
            on_start(f"installing {peer.name} {peer.version}")
        environments.make(peer)
        installed = tuple(environments.installed(peer))
        with TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder, _marked() as mark:
            contestants = {**CONTESTANTS, peer.name: contestant(peer, Path(folder), mark)}
            run = session.run(order(peer, effort), on_start=on_start, on_measured=on_measured, contestants=contestants)
    except _FAILURES as error:
        return Finding(peer, installed=installed, failure=str(error))
    return Finding(peer, run, installed)


def contestant(peer: Peer, folder: Path, mark: str) -> Contestant:
    """The peer as the bench starts it: alone with its environment, this checkout's protocol, a folder and the mark.

    The folder is its home and all: several leave workspaces, tokens and counters wherever they run.
    """
    path = os.pathsep.join((str(ROOT), str(ROOT / "protos")))
    env = {"PYTHONPATH": path, "PYTHONNOUSERSITE": "1", "HOME": str(folder), "TMPDIR": str(folder), MARK: mark}

    def command(repository: Path, files: Mapping[str, Path]) -> list[str]:  # noqa: ARG001
        python = environments.python(peer)
        return peer.command(python, files[_MODEL], model=_MODEL, port=free_port(), folder=folder, env=env)

    return Contestant(peer.name, command, peer.how)


@contextmanager
def _marked() -> Iterator[str]:
    """A mark for processes; those that carry it are ended on leaving."""
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
