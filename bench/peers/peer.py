"""The peers as data: what is installed, how each is set up and why, read from `peers.toml`. Pure but for the reading.

Called by `__main__`; `environments` and `running` act on what it says.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.peers.wires import WIRES
from bench.protocols import Wire

FILE: Final = Path(__file__).with_name("peers.toml")
SERVERS: Final = "bench.servers.peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to measure beside Penstock.

    Attributes:
        name: in tables and results.
        module: its server, among `bench.servers.peers`.
        packages: what its environment holds, each NAME==VERSION, the peer's own first.
        wire: how it is asked, one of `WIRES`.
        settings: given to its server as they are.
        env: given to its process.
        processes: which processes it consists of, in words.
        documentation: where its settings are recommended.
        why: what was chosen, and why.
        python: the versions of Python that it runs on, where that of the bench will not do.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    wire: str
    settings: Mapping[str, Any]
    env: Mapping[str, str]
    processes: str
    documentation: tuple[str, ...]
    why: str
    python: str | None = None

    def __post_init__(self) -> None:
        if not self.packages:
            raise ValueError(f"peer {self.name!r} needs its packages")
        for package in self.packages:
            if not all(package.partition("==")[::2]):
                raise ValueError(f"a package of peer {self.name!r} is NAME==VERSION, got {package!r}")
        if self.wire not in WIRES:
            raise ValueError(f"peer {self.name!r} is asked by one of {', '.join(WIRES)}, got {self.wire!r}")

    @property
    def version(self) -> str:
        """The peer's own."""
        return self.packages[0].partition("==")[2]

    @property
    def how(self) -> Wire:
        """How it is asked."""
        return WIRES[self.wire]

    def command(
        self, python: Path, file: Path, *, model: str, port: int, folder: Path, env: Mapping[str, str]
    ) -> list[str]:
        """The command line that serves a model's file.

        Args:
            python: of the peer's environment.
            file: of the model.
            model: the name under which it is asked for.
            port: where the server listens.
            folder: where it runs.
            env: more than the peer's own.
        """
        variables = [f"{name}={value}" for name, value in {**self.env, **env}.items()]
        order = (f"{model}={file}", "--port", str(port), "--settings", json.dumps(dict(self.settings)))
        return ["env", f"--chdir={folder}", *variables, str(python), "-m", f"{SERVERS}.{self.module}", *order]


def read(file: Path = FILE) -> dict[str, Peer]:
    """The peers of a file by name, in its order.

    Raises:
        ValueError: an entry is malformed.
    """
    try:
        peers = [_peer(entry) for entry in tomllib.loads(file.read_text())["peer"]]
    except (TypeError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file.name} is malformed: {error}") from error
    return {peer.name: peer for peer in peers}


def _peer(entry: dict[str, Any]) -> Peer:
    lists = {name: tuple(entry.pop(name)) for name in ("packages", "documentation")}
    return Peer(**{"settings": {}, "env": {}, **entry}, **lists)
