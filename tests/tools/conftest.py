"""An MLflow registry in sqlite, an HTTP server, small models, and rows with everything that columns hold."""

import http.server
import sqlite3
import threading
from contextlib import closing
from functools import cache
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from skl2onnx import to_onnx
from skl2onnx.common import _container
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from penstock_server.features.spec import spec
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import Fill, OneHot
from penstock_tools.publish.registry import opened

# Every conversion asks for all operators that onnx knows, which are always the same.
_container.get_all_schemas_with_history = cache(_container.get_all_schemas_with_history)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of every test's registry: mlflow compiles its statements for each address anew."""
    return tmp_path_factory.mktemp("registry") / "registry.db"


@pytest.fixture
def registry(empty_registry: Path, database: Path, tmp_path: Path, monkeypatch) -> str:
    """The address of an empty registry that is also the default one."""
    with closing(sqlite3.connect(empty_registry)) as empty, closing(sqlite3.connect(database)) as own:
        own.execute("PRAGMA synchronous = OFF")
        empty.backup(own)  # a transaction, which those who read the former registry notice
    uri = f"sqlite:///{database}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    return uri


@pytest.fixture
def client(registry: str):
    with opened(registry) as client:
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


@pytest.fixture(scope="session")
def before_onnx() -> FeatureSpec:
    """A specification of the width that `onnx_model` takes."""
    return FeatureSpec(
        (NumberColumn("age"), StringColumn("city")),
        Join((Take(("age",), (Fill((0.0,)),)), Text("city", Categories(("Oslo",)), (OneHot(((0, 1),), (2,)),)))),
    )


@pytest.fixture(scope="session")
def small_frame() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": draw.normal(40, 10, 200),
            "city": draw.choice(["Oslo", "Rome"], 200),
            "id": np.arange(200),
            "truth": draw.integers(0, 2, 200),
        }
    )


@pytest.fixture(scope="session")
def small_pipeline(small_frame):
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("s", OneHotEncoder(), ["city"])])
    return make_pipeline(columns, LogisticRegression()).fit(small_frame, small_frame["truth"])


@pytest.fixture
def files(tmp_path: Path, small_frame, small_pipeline, before_onnx, onnx_file) -> Path:
    """A folder with a pipeline as skops and joblib, its sample, a specification and an ONNX model of its width."""
    skops.io.dump(small_pipeline, tmp_path / "p.skops")
    joblib.dump(small_pipeline, tmp_path / "p.joblib")
    small_frame.to_csv(tmp_path / "s.csv", index=False)
    (tmp_path / "before.yaml").write_bytes(spec.encode_yaml(before_onnx))
    (tmp_path / "before.json").write_bytes(spec.encode(before_onnx))
    return tmp_path


@pytest.fixture
def serving():
    """An HTTP server that answers every path with one status and body, and keeps the paths and tokens that it got."""
    asked, headers = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            headers.append(self.headers.get("Authorization"))
            self.send_response(server.status)
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.status, server.body, server.asked, server.headers = 200, b"", asked, headers
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
