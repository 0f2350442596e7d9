"""The command line of every peer's program. It imports only the standard library."""

import argparse
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a peer's program.

    Attributes:
        model: the name that requests use.
        file: the model.
        port: where to listen, on 127.0.0.1.
        settings: the peer's own, as `peers.toml` names them.
    """

    model: str
    file: Path
    port: int
    settings: dict[str, Any]


def read_arguments(protocol: str) -> Arguments:
    """Reads the command line, and prints the address at which the server will answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", metavar="NAME=FILE.onnx")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON")
    options = parser.parse_args()
    name, _, file = options.model.partition("=")
    print(f"{protocol} 127.0.0.1:{options.port}", flush=True)
    return Arguments(name, Path(file), options.port, options.settings)


def free_port() -> int:
    """A free port, for a listener that the peer opens but the bench does not use."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
