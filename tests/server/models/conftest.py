"""A real registry in a temporary folder, and what a publisher does to it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# mlflow asks for a terminal's progress bars and usage reports unless told otherwise before its import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


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


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's database, made once because mlflow takes seconds to make one."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("registry") / "registry.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}", registry_uri=f"sqlite:///{path}").search_registered_models()
    return path


@pytest.fixture
def publisher(empty_registry: Path, tmp_path: Path, onnx_bytes: bytes) -> Publisher:
    database = tmp_path / "registry.db"
    shutil.copy(empty_registry, database)
    return Publisher(uri=f"sqlite:///{database}", root=tmp_path, onnx=onnx_bytes)
