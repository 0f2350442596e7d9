"""The servers that are measured, as data: how each is started, and which protocol it speaks.

Another server is another entry. `running` starts one and waits for its address.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bench.load.plan import endpoint
from bench.protocols import GRPC, JSON, REST, TLS, RequestProtocol
from bench.servers import roles
from bench.servers.roles import PORTS, penstock_command
from penstock_server.errors import UnavailableError
from penstock_tools.server_process import ServerProcess

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout."""

_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ServerThere:
    """A server that somebody else has started: it serves the bench's models over the Open Inference Protocol.

    Attributes:
        grpc: HOST:PORT, of this machine.
        pid: its process, whose CPU and memory are measured with those of its children; None to measure neither.
    """

    grpc: str
    pid: int | None = None
    http: str = ""
    rest: str = ""
    last_lines: str = ""

    @classmethod
    def read(cls, text: str) -> "ServerThere":
        """Of HOST:PORT or HOST:PORT@PID.

        Raises:
            ValueError: it is neither, or of another machine.
        """
        address, _, pid = text.partition("@")
        endpoint(address)
        return cls(address, int(pid) if pid else None)


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


def _penstock_with_tls(repository: Path, files: Mapping[str, Path]) -> list[str]:
    """Penstock with a certificate of its own, made now."""
    folder = repository.parent / "tls"
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem",
         "-out", "certificate.pem", "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    files_of_tls = f'tls_certificate = "{folder / "certificate.pem"}"\ntls_key = "{folder / "key.pem"}"\n'
    (folder / "penstock.toml").write_text(f"[grpc]\n{files_of_tls}")
    return _penstock("--config", str(folder / "penstock.toml"))(repository, files)


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
            MeasuredServer("penstock-rest", _penstock("--rest-port", "0"), REST),
            MeasuredServer("penstock-beside-rest", _penstock("--rest-port", "0")),
            MeasuredServer("penstock-completion-queue", _penstock("--transport", "completion-queue")),
            MeasuredServer("penstock-aio", _penstock("--transport", "aio")),
            MeasuredServer("penstock-tls", _penstock_with_tls, TLS),
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
