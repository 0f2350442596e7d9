"""The servers that the suite is run against: how each is started with the contract's models, and what it cannot have.

Other servers run in their environments of `bench.peers`, with the program of `bench.servers.conforming` that has their name.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import grpc
import psutil

from bench.peers import environments
from bench.peers.peer import Peer, read
from bench.peers.run import MARK, survivors
from bench.servers import roles
from bench.servers.measured import ROOT
from bench.servers.peers.command_line import free_port
from penstock import inference_pb2 as pb
from penstock_conformance import contract
from penstock_conformance.contract import MODELS, VERSIONS
from penstock_server.errors import UnavailableError
from penstock_tools.server_process import ServerProcess

PENSTOCK: Final = "penstock"
PROGRAMS: Final = "bench.servers.conforming"
WITHOUT: Final[Mapping[str, frozenset[str]]] = {
    PENSTOCK: frozenset(),
    "kserve": frozenset({VERSIONS}),  # its Python server knows no versions
    "mlserver": frozenset(),
    "pytriton": frozenset({VERSIONS}),  # a second version of a model ends it
}
"""The servers, and the models that each cannot have."""

_START_S: Final = 240.0
_LOOK_S: Final = 0.5
_CALL_S: Final = 2.0
_END_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers: where it speaks gRPC and REST, and in which version."""

    grpc: str
    rest: str
    version: str


@contextmanager
def running(name: str) -> Iterator[Running]:
    """The server, until the context is left.

    Raises:
        UnavailableError: it does not become ready.
        environments.InstallError: it cannot be installed.
    """
    with TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as folder:
        started = _penstock(Path(folder)) if name == PENSTOCK else _peer(read()[name], Path(folder))
        with started as found:
            yield found


@contextmanager
def _penstock(folder: Path) -> Iterator[Running]:
    contract.write(folder / "models")
    _, env = roles.registry_in(folder)
    options = ("--registry", "", "--model-repository", str(folder / "models"), *roles.PORTS, "--rest-port", "0")
    command = roles.penstock_command("serve", *options)
    with ServerProcess(command, env=env) as process:
        process.wait_ready()
        _wait_ready(process.grpc, MODELS, process)
        yield Running(process.grpc, process.rest, "")


@contextmanager
def _peer(peer: Peer, folder: Path) -> Iterator[Running]:
    environments.make(peer)
    ports = {name: free_port() for name in ("grpc", "http", "metrics")}
    mark = uuid.uuid4().hex
    path = os.pathsep.join(map(str, (ROOT, ROOT / "protos", ROOT / "tools")))
    env = {"PYTHONPATH": path, "PYTHONNOUSERSITE": "1", "HOME": str(folder), "TMPDIR": str(folder), MARK: mark}
    options = [word for name, port in ports.items() for word in (f"--{name}", str(port))]
    command = [str(environments.python(peer)), "-m", f"{PROGRAMS}.{peer.module}", *options]
    try:
        with ServerProcess(command, env=env, cwd=folder) as process:
            address = f"127.0.0.1:{ports['grpc']}"
            _wait_ready(address, MODELS.keys() - WITHOUT[peer.name], process)
            yield Running(address, f"127.0.0.1:{ports['http']}", peer.version)
    finally:
        left = survivors(mark)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(left, timeout=_END_S)


def _wait_ready(address: str, models: Iterable[str], process: ServerProcess) -> None:
    """Waits until the server says that each version of the models is ready: one that loads them by and by is ready before."""
    deadline_s = time.monotonic() + _START_S
    with grpc.insecure_channel(address) as channel:
        is_ready = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelReady",
            pb.ModelReadyRequest.SerializeToString,
            pb.ModelReadyResponse.FromString,
        )
        for request in (pb.ModelReadyRequest(name=name, version=v) for name in models for v in MODELS[name].versions):
            while not _says(is_ready, request):
                if time.monotonic() > deadline_s:
                    raise UnavailableError(f"{request.name} {request.version} was not ready: {process.last_lines}")
                time.sleep(_LOOK_S)


def _says(is_ready: Callable[..., pb.ModelReadyResponse], request: pb.ModelReadyRequest) -> bool:
    try:
        return is_ready(request, timeout=_CALL_S, wait_for_ready=True).ready
    except grpc.RpcError:
        return False
