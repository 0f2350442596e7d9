"""An MLflow registry in sqlite and small models for the tools' tests."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from penstock_tools.publish import registry as registries


@pytest.fixture
def registry(empty_registry: Path, tmp_path: Path, monkeypatch) -> str:
    """The address of an empty registry that is also the default one."""
    shutil.copy(empty_registry, tmp_path / "registry.db")
    uri = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    return uri


@pytest.fixture
def client(registry: str):
    with registries.opened(registry) as client:
        yield client


@pytest.fixture(scope="session")
def classifier():
    """A classifier of three columns with the classes 0 and 1."""
    rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    return LogisticRegression().fit(rows, (rows[:, 0] > 0).astype(np.int64))


@pytest.fixture(scope="session")
def onnx_model(classifier):
    """The classifier with input X, FP32 [-1, 3], and outputs label and probabilities."""
    return to_onnx(classifier, np.zeros((1, 3), np.float32), options={"zipmap": False})


@pytest.fixture
def onnx_file(onnx_model, tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(onnx_model.SerializeToString())
    return path
