"""The servers that are measured, as data: how each is started, and which protocol it speaks.

Another server is another entry. `running` starts one and waits for its address.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bench.protocols import GRPC, JSON, RequestProtocol
from bench.servers import roles
from bench.servers.roles import PORTS, penstock_command
from penstock_server.errors import UnavailableError
from penstock_tools.server_process import ServerProcess

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout."""

_STOP_S: Final = 10.0

Command = Callable[[Path, Mapping[str, Path]], list[str]]
"""The command line that serves model files: takes the repository folder, and each model's file in it."""


@dataclass(frozen=True, slots=True)
class MeasuredServer:
    """A server to measure.

    Attributes:
        name: in tables and results.
        command: its command line.
        protocol: how requests are sent to it.
    """

    name: str
    command: Command
    protocol: RequestProtocol = GRPC


def _penstock(*more: str, workers: int = 1) -> Command:
    def command(repository: Path, files: Mapping[str, Path]) -> list[str]:  # noqa: ARG001
        folder = ("--model-repository", str(repository))
        return penstock_command("serve", *folder, *PORTS, "--workers", str(workers), *more)

    return command


def _baseline(module: str) -> Command:
    def command(repository: Path, files: Mapping[str, Path]) -> list[str]:  # noqa: ARG001
        models = (f"{name}={file}" for name, file in files.items())
        return [sys.executable, "-m", f"bench.servers.baselines.{module}", *models]

    return command


def _penstock_with_roles(*, are_idle: bool) -> Command:
    def command(repository: Path, files: Mapping[str, Path]) -> list[str]:
        folder = repository.parent / ("idle-roles" if are_idle else "busy-roles")
        return roles.serve(folder, files, are_idle=are_idle)

    return command


BASELINE: Final = "baseline"
SERVERS: Final[Mapping[str, MeasuredServer]] = MappingProxyType(
    {
        server.name: server
        for server in (
            MeasuredServer(BASELINE, _baseline("aio_server")),
            MeasuredServer("fastapi", _baseline("fastapi_server"), JSON),
            MeasuredServer("penstock", _penstock()),
            MeasuredServer("penstock-native", _penstock("--transport", "native")),
            MeasuredServer("penstock-aio", _penstock("--transport", "aio")),
            MeasuredServer("penstock-2-workers", _penstock(workers=2)),
            MeasuredServer("penstock-idle-roles", _penstock_with_roles(are_idle=True)),
            MeasuredServer("penstock-canary-shadow", _penstock_with_roles(are_idle=False)),
        )
    }
)


@contextmanager
def running(
    command: Sequence[str], *, protocol: RequestProtocol = GRPC, env: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """A server that has printed its address; stopped on leaving, with every process that it started.

    Raises:
        UnavailableError: it cannot be started, or printed no address in time.
    """
    # The baselines are modules of the checkout.
    with ServerProcess(command, cwd=ROOT, env=env, stop_timeout_s=_STOP_S) as process:
        try:
            process.wait_ready(protocol=protocol.name)
        except UnavailableError as error:
            raise UnavailableError(f"{' '.join(command)}: {error}") from error
        yield process
