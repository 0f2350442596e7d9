"""An MLflow registry in sqlite, small models, and rows with everything that columns hold."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from penstock_tools.publish import registry as registries


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A registry's tables take seconds to make; each test gets a copy."""
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    with registries.opened(f"sqlite:///{path}") as client:
        client.search_registered_models()
    return path


@pytest.fixture
def registry(empty_database: Path, tmp_path: Path, monkeypatch) -> str:
    """The address of an empty registry that is also the default one."""
    shutil.copy(empty_database, tmp_path / "registry.db")
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


ROWS = 240


@pytest.fixture(scope="session")
def frame():
    """Passengers: numbers with and without gaps, whole numbers, booleans, text with None, NaN and "" for what is missing."""
    draw = np.random.default_rng(7)
    age = draw.normal(40, 12, ROWS).round(1)
    age[::9] = np.nan
    city = draw.choice(["Oslo", "Rome", "Łódź", "Bern"], ROWS, p=[0.5, 0.3, 0.18, 0.02]).astype(object)
    city[::11] = None
    deck = draw.choice(["A", "B", "C"], ROWS).astype(object)
    deck[::5] = ""
    gate = draw.choice(["g1", "g2", "?"], ROWS).astype(object)
    gate[3::13] = np.nan
    maybe = draw.choice([True, False], ROWS).astype(object)
    maybe[::10] = None
    return pd.DataFrame(
        {
            "age": age,
            "fare": draw.lognormal(2, 1, ROWS),
            "year": draw.integers(1990, 2030, ROWS).astype(float),
            "class": draw.integers(1, 4, ROWS),
            "alone": draw.choice([True, False], ROWS),
            "maybe": pd.Series(maybe, dtype=object),
            "hole": np.full(ROWS, np.nan),
            "sex": draw.choice(["f", "m"], ROWS).astype(object),
            "city": pd.Series(city, dtype=object),
            "deck": deck,
            "gate": pd.Series(gate, dtype=object),
        }
    )


@pytest.fixture(scope="session")
def answers(frame):
    """Answers of every kind for each row."""
    draw = np.random.default_rng(8)
    number = np.nan_to_num(frame["age"].to_numpy()) / 40 + frame["class"].to_numpy() + draw.normal(0, 0.3, ROWS)
    is_high = number > np.median(number)
    return {
        "binary": is_high.astype(int),
        "boolean": is_high,
        "float": is_high + 1.0,
        "text": np.where(is_high, "high", "low"),
        "three": np.digitize(number, [2, 3]),
        "number": number,
    }
