"""A real server process, a real registry, real models: what the integration tests drive."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock_tools.server_process import PENSTOCK, ServerProcess

READY_S = 60.0
WAIT_S = 30.0


class Server(ServerProcess):
    """`penstock serve` as a process, and what it says of itself over HTTP."""

    def __init__(self, arguments: list[str], env: dict[str, str], log: Path) -> None:
        super().__init__([*PENSTOCK, "serve", *arguments], env=env, log=log)
        self._log = log

    def error(self) -> str:
        """What it wrote to standard error, once it has ended."""
        self.wait(WAIT_S)
        return self._log.read_text()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=WAIT_S) as reply:
            text: str = reply.read().decode()
            return text

    def models(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.get("/v1/models"))["models"]
        return rows

    def workers(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.get("/v1/models"))["workers"]
        return rows

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The samples of this name now, by their labels."""
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
            if sample.name == name
        }

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return sum(value for found, value in self.samples(name).items() if labels.items() <= dict(found).items())


def _until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """The condition's first true value; another process's state can only be asked for, so it is asked again and again."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        threading.Event().wait(0.02)
    return value


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the test run's own, with the kernels of the user's cache when they are there: compiling takes seconds."""
    from penstock_server.features.compiled import ensure_compiled

    kernels = ensure_compiled()
    folder = tmp_path_factory.mktemp("cache")
    shutil.copy(kernels, folder / kernels.name)
    return folder


Starter = Callable[..., Server]


@pytest.fixture(scope="session")
def without_training_stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH in which these libraries are not installed, as the extra `server` leaves a server.

    MLflow imports whatever of them is there, which takes as long as the rest of a server's start.
    """
    folder = tmp_path_factory.mktemp("without")
    for name in ("pandas", "polars", "sklearn"):
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('not in this environment', name={name!r})")
    return folder


@pytest.fixture(scope="session")
def environment(
    cache_folder: Path, without_training_stack: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    data = tmp_path_factory.mktemp("data")
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(without_training_stack), os.environ.get("PYTHONPATH")))),
        "PENSTOCK_CACHE_DIR": str(cache_folder),
        "PENSTOCK_DATA_DIR": str(data),
        # A registry that is away is told in two seconds instead of twenty.
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for what servers write to standard error."""
    return tmp_path_factory.mktemp("logs")


@contextmanager
def starting(environment: dict[str, str], logs: Path) -> Iterator[Starter]:
    """Starts servers on free ports, and ends all of them."""
    servers: list[Server] = []

    def start(*arguments: str) -> Server:
        log = logs / f"server-{len(list(logs.iterdir()))}.log"
        server = Server(["--port", "0", "--http-port", "0", *arguments], environment, log)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def start(environment: dict[str, str], logs: Path) -> Iterator[Starter]:
    with starting(environment, logs) as starter:
        yield starter


@pytest.fixture(scope="module")
def start_shared(environment: dict[str, str], logs: Path) -> Iterator[Starter]:
    """For servers that all tests of a module ask."""
    with starting(environment, logs) as starter:
        yield starter


@pytest.fixture(scope="session")
def flag_model() -> bytes:
    """A classifier of two columns: class 1 when their sum is positive."""
    return classifier(sign=1)


@pytest.fixture(scope="session")
def opposite_model() -> bytes:
    """The same with the classes exchanged, so that answers tell which version gave them."""
    return classifier(sign=-1)


def classifier(sign: int) -> bytes:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 2)).astype(np.float32)
    model = LogisticRegression().fit(rows, (sign * rows.sum(axis=1) > 0).astype(int))
    return bytes(to_onnx(model, rows[:1], options={"zipmap": False}).SerializeToString())


@pytest.fixture(scope="session")
def strings_model() -> bytes:
    """Gives its strings and its numbers back, [N, 2] each."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", ["text"], ["text_out"]), helper.make_node("Identity", ["x"], ["x_out"])],
        "identity",
        [
            helper.make_tensor_value_info("text", TensorProto.STRING, [None, 2]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2]),
        ],
        [
            helper.make_tensor_value_info("text_out", TensorProto.STRING, [None, 2]),
            helper.make_tensor_value_info("x_out", TensorProto.FLOAT, [None, 2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _put_version(repository: Path, model: str, version: str, onnx: bytes) -> Path:
    """A version in a model repository, written aside and renamed as a careful publisher does."""
    folder = repository / model / version
    aside = repository / f".{model}-{version}"
    aside.mkdir(parents=True)
    (aside / "model.onnx").write_bytes(onnx)
    folder.parent.mkdir(exist_ok=True)
    aside.rename(folder)
    return folder


class Registry:
    """A sqlite registry of a test's own, filled through the tools."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self._folder = folder
        self._files = 0

    def publish(self, name: str, onnx: bytes, alias: str | None = None, weight: float | None = None) -> str:
        from penstock_tools.publish.onnx import publish

        self._files += 1
        file = self._folder / f"{self._files}.onnx"
        file.write_bytes(onnx)
        return str(publish(name, file, registry=self.uri, alias=alias, weight=weight))

    def promote(self, name: str, version: str, alias: str = "champion", weight: float | None = None) -> None:
        from penstock_tools.publish.promote import promote

        promote(name, version, alias=alias, weight=weight, registry=self.uri)

    def forget(self, name: str, alias: str) -> None:
        from mlflow import MlflowClient

        MlflowClient(self.uri, self.uri).delete_registered_model_alias(name, alias)


def _new_registry(empty_registry: Path, folder: Path) -> Registry:
    database = folder / "registry.db"
    shutil.copy(empty_registry, database)
    return Registry(f"sqlite:///{database}", folder)


@pytest.fixture
def registry(empty_registry: Path, tmp_path: Path) -> Registry:
    return _new_registry(empty_registry, tmp_path)


@pytest.fixture(scope="module")
def shared_registry(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """For the tests of a module that use models of their own."""
    return _new_registry(empty_registry, tmp_path_factory.mktemp("registry"))


@pytest.fixture
def penstock(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process, which has imported what the commands need: exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from penstock_tools.cli.main import main

        with pytest.raises(SystemExit) as exited:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(exited.value.code or 0), captured.out, captured.err

    return run


class RegistryServer:
    """MLflow's own server over a test's registry, behind a door that a test can shut and open.

    MLflow's server takes many seconds to start; a door that is shut refuses connections just as a stopped server does.
    """

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._port = _free_port()
        arguments = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        arguments += ["--backend-store-uri", registry.uri, "--artifacts-destination", str(folder / "artifacts")]
        with (folder / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        self._door_port = _free_port()
        self._door: socketserver.ThreadingTCPServer | None = None
        self._connections: list[socket.socket] = []
        self.uri = f"http://127.0.0.1:{self._door_port}"

    def open(self) -> None:
        """Lets callers through; returns when the registry answers."""
        port = self._port
        connections = self._connections

        class Relay(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                connections.append(self.request)
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
                    back = threading.Thread(target=_pump, args=(server, self.request), daemon=True)
                    back.start()
                    _pump(self.request, server)
                    back.join()

        class Door(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self._door = Door(("127.0.0.1", self._door_port), Relay)
        threading.Thread(target=self._door.serve_forever, daemon=True).start()
        _until(self._answers, "the registry's server answers", READY_S * 2)

    def shut(self) -> None:
        """Refuses callers from now on, and hangs up on those that are connected."""
        if self._door is not None:
            self._door.shutdown()
            self._door.server_close()
            self._door = None
        for connection in self._connections:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def end(self) -> None:
        self.shut()
        # Its workers are processes of the session that it was started in.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(WAIT_S)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=WAIT_S):
                return True
        except (OSError, http.client.HTTPException):
            return False


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def serve_registry(registry: Registry, tmp_path: Path) -> Iterator[Callable[[], RegistryServer]]:
    servers: list[RegistryServer] = []

    def serve() -> RegistryServer:
        server = RegistryServer(registry, tmp_path)
        servers.append(server)
        server.open()
        return server

    yield serve
    for server in servers:
        server.end()


@pytest.fixture(scope="module")
def repository_server(
    environment: dict[str, str],
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    flag_model: bytes,
    strings_model: bytes,
) -> Iterator[Server]:
    """A server of two plain models from a folder, for tests that change nothing."""
    repository = tmp_path_factory.mktemp("repository")
    _put_version(repository, "flag", "1", flag_model)
    _put_version(repository, "strings", "3", strings_model)
    with starting(environment, logs) as starter:
        yield starter("--model-repository", str(repository)).wait_ready()


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return _until


@pytest.fixture(scope="session")
def put_version() -> Callable[..., Path]:
    return _put_version
