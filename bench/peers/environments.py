"""The peers' environments: one per peer, made by uv in the user's cache, kept until the peer's pins change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol

_INSTALL_S: Final = 1800.0
_QUOTED_LINES: Final = 12
_STAMP: Final = ".penstock-bench"


class Pinned(Protocol):
    """What an environment is made for: its name, its packages as NAME==VERSION, and its Python if not the bench's own."""

    @property
    def name(self) -> str: ...

    @property
    def packages(self) -> tuple[str, ...]: ...

    @property
    def python(self) -> str | None: ...


class InstallError(Exception):
    """An environment could not be made."""


def cache() -> Path:
    """The folder of all environments."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "bench-peers"


def folder(peer: Pinned) -> Path:
    """The folder of a peer's environment."""
    return cache() / peer.name


def python(peer: Pinned) -> Path:
    """The interpreter of a peer's environment."""
    return folder(peer) / "bin" / "python"


def is_fresh(peer: Pinned) -> bool:
    """Whether the environment exists and was made for the peer's current pins."""
    stamp = folder(peer) / _STAMP
    return stamp.is_file() and stamp.read_text() == _stamp(peer)


def make(peer: Pinned) -> None:
    """Installs a peer, unless its environment is fresh.

    Raises:
        InstallError: it cannot be installed; quotes the installer.
    """
    if is_fresh(peer):
        return
    remove(peer)
    for command in commands(peer):
        _run(command)
    (folder(peer) / _STAMP).write_text(_stamp(peer))


def commands(peer: Pinned) -> list[list[str]]:
    """The command lines that make an environment."""
    uv = str(Path(sys.executable).with_name("uv"))
    return [
        [uv, "venv", "--quiet", "--python", peer.python or sys.executable, str(folder(peer))],
        [uv, "pip", "install", "--quiet", "--python", str(python(peer)), *peer.packages],
    ]


def installed(peer: Pinned) -> list[str]:
    """Every package of a peer's environment, as NAME==VERSION."""
    uv = str(Path(sys.executable).with_name("uv"))
    return _run([uv, "pip", "freeze", "--quiet", "--python", str(python(peer))]).split()


def remove(peer: Pinned) -> None:
    """Deletes an environment, if it exists."""
    if folder(peer).exists():
        shutil.rmtree(folder(peer))


def _stamp(peer: Pinned) -> str:
    return "\n".join((peer.python or sys.version, *peer.packages))


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{Path(command[0]).name} {command[1]} failed: {error}") from error
    if done.returncode:
        quoted = "\n".join((done.stderr or done.stdout).strip().splitlines()[:_QUOTED_LINES])
        raise InstallError(f"{Path(command[0]).name} {command[1]} failed: {quoted}")
    return done.stdout
