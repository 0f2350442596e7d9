"""Doubles that every room's tests share: time that stands still, a call that remembers, a report that keeps facts."""

import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_server.call import UNARY, Cancellable, Metadata
from penstock_server.errors import PenstockError
from penstock_server.metrics.counters import CountersShape, SharedCounters, create_counters
from tests.server.sources.fake_registry import FakeRegistry, fake_registry


@dataclass
class FakeClock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class FakeCall:
    """A call without a transport; keeps `call.Call`'s promises, and what it was told."""

    def __init__(self, deadline_s: float = float("inf"), metadata: Metadata = (), peer: tuple[str, ...] = ()) -> None:
        self.deadline_s = deadline_s
        self.is_over = False
        self.pending: Cancellable | None = None
        self.sent: list[bytes] = []
        self.answers: list[bytes | PenstockError | None] = []
        self.late_answers = 0
        self.is_answered = threading.Event()
        self.is_watched = False
        self.headers: Metadata = ()
        self.trailers: Metadata = ()
        self._metadata = metadata
        self._peer = peer

    kind = UNARY

    def watch(self) -> None:
        self.is_watched = True

    def metadata(self) -> Metadata:
        return self._metadata

    def peer(self) -> tuple[str, ...]:
        return self._peer

    def send(self, message: bytes) -> None:
        if not self.is_over:
            self.sent.append(message)

    def finish(self, message: bytes | None = None) -> None:
        self._end(message)

    def fail(self, error: PenstockError) -> None:
        self._end(error)

    def leave(self) -> None:
        """The caller leaves, and the transport notices."""
        if not self.is_over:
            self.is_over = True
            if self.pending is not None:
                self.pending.cancelled()

    @property
    def answer(self) -> Any:
        (answer,) = self.answers
        return answer

    def _end(self, answer: bytes | PenstockError | None) -> None:
        if self.is_over:
            self.late_answers += 1
            return
        self.is_over = True
        self.answers.append(answer)
        self.is_answered.set()


class FakeReport:
    """Keeps what an executor tells; watches drift only when it is given cells."""

    def __init__(self, cells: NDArray[np.int64] | None = None) -> None:
        self.cells = cells
        self.refusals: Counter[str] = Counter()
        self.named_refusals: Counter[str] = Counter()
        self.routed_requests = 0
        self.batches: list[dict[str, Any]] = []
        self.cache_hits: list[dict[str, Any]] = []
        self.misses = 0
        self.cached_bytes = 0
        self.evictions = 0
        self.labels: list[int] = []
        self.scored: list[float] = []
        self.drift_rows = 0
        self.left_waiting = (0, 0)
        self.shadow: Counter[str] = Counter()
        self.log_drops: Counter[str] = Counter()
        self.distances: list[float] = []
        self.shadow_shares: list[float] = []
        self.shadow_means: list[float] = []
        self.failed_keys: object = None
        self.keys: list[str] = []

    def refused(self, reason: str, *, is_named: bool = False, key: str = "") -> None:
        self.refusals[reason] += 1
        self.named_refusals[reason] += is_named
        self.keys.append(key)

    def routed(self) -> None:
        self.routed_requests += 1

    def batch(self, *, arrived_s: Sequence[float], **facts: Any) -> None:
        self.batches.append({"arrived_s": list(arrived_s), **facts})

    def hit(self, **facts: Any) -> None:
        self.cache_hits.append(facts)

    def missed(self, took_s: float, requests: int = 1) -> None:
        self.misses += requests

    def cached(self, size_bytes: int) -> None:
        self.cached_bytes += size_bytes

    def evicted(self) -> None:
        self.evictions += 1

    def classes(self, labels: NDArray[np.int64], *, is_drift: bool = True) -> None:
        self.labels += labels.tolist()

    def numbers(self, _place: int, values: NDArray[Any]) -> None:
        self.scored += values.reshape(-1).tolist()

    def waiting(self, rows: int, requests: int) -> None:
        self.left_waiting = (rows, requests)

    def drift_cells(self) -> NDArray[np.int64] | None:
        return self.cells

    def drift_counted(self, rows: int) -> None:
        self.drift_rows += rows

    def request_log_dropped(self, reason: str, rows: int) -> None:
        self.log_drops[reason] += rows

    def drift_added(self, counts: NDArray[np.int64], rows: int) -> None:
        assert self.cells is not None
        self.cells += counts
        self.drift_rows += rows

    def shadow_compared(self, *, agree: NDArray[np.bool_], distance: NDArray[np.float64], **_: Any) -> None:
        self.shadow["agree"] += int(agree.sum())
        self.shadow["disagree"] += int((~agree).sum())
        self.distances += distance.tolist()

    def shadow_requests(self, differing: NDArray[np.float64], distances: NDArray[np.float64]) -> None:
        self.shadow_shares += differing.tolist()
        self.shadow_means += distances.tolist()

    def shadow_refused(self, rows: int) -> None:
        if rows:
            self.shadow["refused"] += rows

    def shadow_failed(self, rows: int) -> None:
        self.shadow["failed"] += rows

    def shadow_dropped(self, reason: str, rows: int) -> None:
        self.shadow[reason] += rows

    @property
    def answered(self) -> int:
        return sum(len(batch["arrived_s"]) for batch in self.batches)


@pytest.fixture(scope="session")
def fake_clock() -> type[FakeClock]:
    return FakeClock


@pytest.fixture(scope="session")
def fake_call() -> type[FakeCall]:
    return FakeCall


@pytest.fixture(scope="session")
def fake_report() -> type[FakeReport]:
    return FakeReport


@pytest.fixture(scope="session")
def write_onnx(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a graph of these nodes to a folder of its own, and gives its path."""
    from onnx import TensorProto, helper

    types = {
        "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16,
        "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8,
        "INT16": TensorProto.INT16, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
        "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
        "BF16": TensorProto.BFLOAT16,
    }  # fmt: skip

    def value(name: str, datatype: str, shape: Sequence[int | str]) -> Any:
        return helper.make_tensor_value_info(name, types[datatype], shape)

    def write(
        nodes: Sequence[tuple[str, Sequence[str], Sequence[str], dict[str, Any]]],
        *,
        inputs: Sequence[tuple[str, str, Sequence[int | str]]],
        outputs: Sequence[tuple[str, str, Sequence[int | str]]],
        constants: dict[str, NDArray[Any]] | None = None,
    ) -> Path:
        from onnx import numpy_helper

        graph = helper.make_graph(
            [
                helper.make_node(kind, list(takes), list(gives), **attributes)
                for kind, takes, gives, attributes in nodes
            ],
            "graph",
            [value(*tensor) for tensor in inputs],
            [value(*tensor) for tensor in outputs],
            [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8
        )
        path = tmp_path_factory.mktemp("version") / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


PLAIN = CountersShape()


@pytest.fixture
def new_counters(tmp_path: Path) -> Callable[..., SharedCounters]:
    numbers = count()
    return lambda shape=PLAIN: create_counters(tmp_path / f"counters-{next(numbers)}", shape)


@dataclass
class Publisher:
    """Publishes to one sqlite registry as the tools do, by mlflow's own client."""

    uri: str
    root: Path
    onnx: bytes
    runs: int = field(default=0)

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def publish(self, model: str, *aliases: str, prepare: Callable[[Path], object] = lambda folder: None) -> str:
        """Registers a new version with these aliases; `prepare` may add files to its folder."""
        self.runs += 1
        folder = self.root / f"publish-{self.runs}"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(self.onnx)
        (folder / "MLmodel").write_text("flavors: {onnx: {data: model.onnx}}\n")
        prepare(folder)
        run = self.client.create_run(self._experiment())
        self.client.log_artifacts(run.info.run_id, str(folder), "model")
        if not self.client.search_registered_models(f"name = '{model}'"):
            self.client.create_registered_model(model)
        source = f"{run.info.artifact_uri}/model"
        version = str(self.client.create_model_version(model, source=source, run_id=run.info.run_id).version)
        for alias in aliases:
            self.client.set_registered_model_alias(model, alias, version)
        return version

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name("published")
        if found is not None:
            return str(found.experiment_id)
        return str(self.client.create_experiment("published", artifact_location=(self.root / "artifacts").as_uri()))


@pytest.fixture(scope="session")
def onnx_bytes() -> bytes:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    model = LogisticRegression().fit(rows, [0, 1, 0, 1, 0, 1])
    graph = to_onnx(model, rows[:1], options={"zipmap": False})
    return bytes(graph.SerializeToString())


@pytest.fixture
def publisher(empty_registry: Path, tmp_path: Path, onnx_bytes: bytes) -> Publisher:
    database = tmp_path / "registry.db"
    shutil.copy(empty_registry, database)
    return Publisher(uri=f"sqlite:///{database}", root=tmp_path, onnx=onnx_bytes)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """An MLflow server that answers as it is told."""
    with fake_registry() as server:
        yield server


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate and its key, another pair, a client's, an encrypted key, and what is none of these."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the files, and is not installed")
    folder = tmp_path_factory.mktemp("tls")

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("server", "other"):
        run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")  # fmt: skip
    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "client.key", "-out", "client.pem", "-days", "2",
        "-subj", "/CN=loader", "-addext", "subjectAltName=URI:spiffe://corp/shop,DNS:shop.corp")  # fmt: skip
    run("pkey", "-in", "server.key", "-aes256", "-passout", "pass:secret", "-out", "encrypted.key")
    (folder / "garbage").write_text("garbage")
    (folder / "empty").touch()
    (folder / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (folder / "folder").mkdir()
    return folder
