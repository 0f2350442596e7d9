"""A real server process, a real registry, real models: what the integration tests drive."""

import json
import os
import re
import shutil
import socketserver
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref import simple_server

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock_server.control.port import reserve
from penstock_server.errors import UnavailableError
from penstock_server.transport import nghttp2
from penstock_tools.server_process import PENSTOCK, ServerProcess

WAIT_S = 30.0


class Server(ServerProcess):
    """`penstock serve` as a process, and what it says of itself over HTTP."""

    def __init__(self, arguments: list[str], env: dict[str, str], log: Path) -> None:
        super().__init__([*PENSTOCK, "serve", *arguments], env=env, log=log)
        self._log = log

    def logged(self) -> str:
        """What it has written to standard error so far."""
        return self._log.read_text()

    def error(self) -> str:
        """What it wrote to standard error, once it has ended."""
        self.wait(WAIT_S)
        return self._log.read_text()

    def wait_http(self) -> "Server":
        """Waits until its HTTP port answers, which may be long before it is ready."""

        def address() -> str | None:
            found = re.search(r'"http": "([^"]+)", "event": "the HTTP port answers"', self._log.read_text())
            return None if found is None else found[1]

        self._found["http"] = _until(address, "the HTTP port answers")
        return self

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

    def transports(self) -> list[str]:
        """The transport that each worker serves over, which may be another than it was told to use."""
        return [worker["transport"].split()[0] for worker in json.loads(self.get("/v1/server"))["workers"]]

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
    """The condition's first true value; another process's state can only be polled."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        threading.Event().wait(0.02)
    return value


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the test run's own, with the kernels of the user's cache when they are there: compiling takes seconds."""
    from penstock_server.kernel_sets import KERNEL_SETS
    from penstock_server.kernels.compiled import ensure_compiled

    folder = tmp_path_factory.mktemp("cache")
    for kernels in KERNEL_SETS:
        path = ensure_compiled(kernels)
        shutil.copy(path, folder / path.name)
    return folder


Starter = Callable[..., Server]


@pytest.fixture(scope="session")
def without_training_stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH in which these libraries are not installed, as the extra `server` leaves a server.

    MLflow imports those that are there, which takes as long as the rest of a server's start.
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
        # A registry that does not answer fails in two seconds instead of twenty.
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for what servers write to standard error."""
    return tmp_path_factory.mktemp("logs")


def need_nghttp2() -> None:
    """Skips a test of the native transport where there is no nghttp2."""
    try:
        nghttp2.load()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["native", "completion-queue"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "native":
        need_nghttp2()
    return name


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

        promote(name, version, alias=alias, weight=weight, also=alias != "champion", registry=self.uri)

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


class _ThreadingServer(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    allow_reuse_port = True  # the port is reserved by another socket
    daemon_threads = True
    block_on_close = False


class _SilentHandler(simple_server.WSGIRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


class RegistryServer:
    """MLflow's own server over a test's registry, which can be closed and opened again at the same address.

    It is MLflow's WSGI application on threads of the test's process: `mlflow server` takes half a minute to start.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: _ThreadingServer | None = None
        self.uri = f"http://127.0.0.1:{port}"

    def open(self) -> None:
        from mlflow.server import app

        self._server = _ThreadingServer(("127.0.0.1", self._port), _SilentHandler)
        self._server.set_app(app)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Refuses callers from now on. Nobody is connected between two calls: the server speaks HTTP/1.0."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def registry_server(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryServer]:
    import mlflow.server as settings
    from mlflow.server import handlers

    monkeypatch.setenv(settings.BACKEND_STORE_URI_ENV_VAR, registry.uri)
    monkeypatch.setenv(settings.ARTIFACTS_DESTINATION_ENV_VAR, str(tmp_path / "artifacts"))
    monkeypatch.setenv(settings.SERVE_ARTIFACTS_ENV_VAR, "true")
    for store in ("_tracking_store", "_model_registry_store"):
        monkeypatch.setattr(handlers, store, None)  # kept from an earlier registry otherwise
    with reserve("127.0.0.1", 0) as reserved:
        server = RegistryServer(reserved.getsockname()[1])
        server.open()
        yield server
        server.close()


@pytest.fixture(scope="module")
def server_settings() -> str:
    """What the settings file of `repository_server` says; a module may have its tests run with several."""
    return ""


@pytest.fixture(scope="session")
def plain_repository(tmp_path_factory: pytest.TempPathFactory, flag_model: bytes, strings_model: bytes) -> Path:
    """A folder of two plain models, for tests that change nothing in it.

    Each is tried by the first server that reads them: the verdict on the same files lets later ones start in less time.
    """
    repository = tmp_path_factory.mktemp("repository")
    _put_version(repository, "flag", "1", flag_model)
    _put_version(repository, "strings", "3", strings_model)
    return repository


@pytest.fixture(scope="module")
def repository_server(
    server_settings: str,
    environment: dict[str, str],
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    plain_repository: Path,
) -> Iterator[Server]:
    """A server of two plain models from a folder, for tests that change nothing."""
    file = tmp_path_factory.mktemp("settings") / "penstock.toml"
    file.write_text(server_settings)
    with starting(environment, logs) as starter:
        yield starter("--model-repository", str(plain_repository), "--config", str(file)).wait_ready()


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return _until


@pytest.fixture(scope="session")
def put_version() -> Callable[..., Path]:
    return _put_version
