"""A version with features and a drift baseline, and rows for it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from penstock_server.models import artifact
from penstock_tools.publish import golden
from penstock_tools.publish.pipeline import prepare

COLUMNS = ("age", "fare", "city")
CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def people(frame):
    """Rows whose age may be missing, and whose fare may not."""
    return frame[list(COLUMNS)]


@pytest.fixture(scope="session")
def pipeline(people):
    """A fitted classifier with the classes `leaves` and `stays`."""
    columns = ColumnTransformer(
        [
            ("filled", SimpleImputer(), ["age"]),
            ("whole", "passthrough", ["fare"]),
            ("texts", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ]
    )
    told = np.where(people["fare"] > people["fare"].median(), "stays", "leaves")
    return make_pipeline(columns, LogisticRegression()).fit(people, told)


@pytest.fixture(scope="session")
def version(pipeline, people, tmp_path_factory):
    """The folder of a version."""
    prepared = prepare(pipeline, people)
    folder = tmp_path_factory.mktemp("version")
    (folder / "model.onnx").write_bytes(prepared.graph.model.SerializeToString())
    (folder / "MLmodel").write_text("flavors: {}")
    baseline = golden.fit_baseline(prepared.graph, prepared.pipeline, {name: people[name] for name in COLUMNS})
    graph = prepared.graph
    artifact.write(
        folder, features=prepared.features, baseline=baseline, classes=graph.classes, class_output=graph.class_output
    )
    return folder


def table(rows: int, seed: int = 1) -> pa.Table:
    """Rows with an id, in the order of their ids."""
    draw = np.random.default_rng(seed)
    cities = np.array(["Oslo", "Rome", "Łódź", "Bern", "Paris"], object)
    return pa.table(
        {
            "id": np.arange(rows),
            "age": pa.array(draw.normal(40, 12, rows).round(1), mask=draw.random(rows) < 0.1),
            "fare": draw.lognormal(2, 1, rows).round(2),
            "city": pa.array(draw.choice(cities, rows).tolist(), mask=draw.random(rows) < 0.05),
        }
    )


@pytest.fixture(scope="session")
def rows():
    return table(10_000)


@pytest.fixture(scope="session")
def on_cluster(tmp_path_factory):
    """Runs a module with arguments in an environment of its own that has Ray and Spark; gives what it printed."""
    folder = tmp_path_factory.mktemp("clusters") / "venv"
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder)], check=True)
    known = ("--constraint", str(CHECKOUT / "requirements.lock"))
    extras = ("--editable", f"{CHECKOUT}[ray,spark]", "psutil")
    subprocess.run([*uv, "pip", "install", "--python", str(python), *known, *extras], check=True)

    def ran(module, *arguments):
        # Spark's processes of Python are those of PATH.
        environment = os.environ | {"PYSPARK_PYTHON": str(python), "PYSPARK_DRIVER_PYTHON": str(python)}
        command = [str(python), "-m", module, *map(str, arguments)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=CHECKOUT, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ran
