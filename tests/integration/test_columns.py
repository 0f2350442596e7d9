"""Columns by name from the client and from `penstock predict` to a real server: whatever the order, the right answers."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from penstock_client import Client, InvalidRequestError
from penstock_tools.publish.registry import opened
from penstock_tools.server_process import PENSTOCK

NAMES = ["height", "width", "depth"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    draw = np.random.default_rng(3)
    return pd.DataFrame({name: draw.normal(10 * at, 1 + at, 40).round(3) for at, name in enumerate(NAMES)})


@pytest.fixture(scope="module")
def classifier(rows: pd.DataFrame) -> Any:
    classes = np.digitize(rows["height"] - rows["depth"] / 10, [-3, -1.5])
    return LogisticRegression(max_iter=1000).fit(rows.to_numpy(np.float32), classes)


@pytest.fixture(scope="module")
def address(
    start_shared: Any, shared_folder: Path, empty_registry: Path, tmp_path_factory: Any, rows: Any, classifier: Any
) -> str:
    """A server of a version whose MLflow signature names the columns, published as any MLflow user does."""
    import mlflow  # takes two seconds, also of each process that runs no test of this module
    from mlflow.models import infer_signature

    folder = tmp_path_factory.mktemp("columns")
    (folder / "registry.db").write_bytes(empty_registry.read_bytes())
    uri = f"sqlite:///{folder / 'registry.db'}"
    graph = to_onnx(classifier, rows.to_numpy(np.float32)[:1], options={"zipmap": False})
    with opened(uri) as client:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        experiment = client.create_experiment("columns", artifact_location=(folder / "artifacts").as_uri())
        with mlflow.start_run(experiment_id=experiment):
            signature = infer_signature(rows, classifier.predict(rows.to_numpy(np.float32)))
            mlflow.onnx.log_model(
                graph,
                name="model",
                signature=signature,
                registered_model_name="boxes",
                pip_requirements=["onnxruntime"],  # mlflow would load the model in another process to find them
            )
        client.set_registered_model_alias("boxes", "champion", "1")
    return str(start_shared("--registry", uri).wait_ready().grpc)


def reversed_forms(rows: pd.DataFrame) -> dict[str, Any]:
    turned = rows[rows.columns[::-1]].assign(note="not a column of the model")
    return {
        "frame": turned,
        "dict": turned.to_dict("list"),
        "records": turned.to_dict("records"),
        "tuples": list(turned.itertuples()),
        "polars": pl.DataFrame(turned.to_dict("list")),
        "pyarrow": pa.Table.from_pydict(turned.to_dict("list")),
        "structured": turned.drop(columns="note").to_records(index=False),
        "array in the model's order": rows.to_numpy(),
        "frame without names": pd.DataFrame(rows.to_numpy()),
    }


@pytest.mark.parametrize("form", list(reversed_forms(pd.DataFrame({name: [1.0] for name in NAMES}))))
def test_every_form_of_rows_gets_the_answers_of_scikit_learn(
    address: str, rows: Any, classifier: Any, form: str
) -> None:
    expected = classifier.predict(rows.to_numpy(np.float32))
    with Client(address, timeout_s=30.0) as client:
        prediction = client.predict("boxes", reversed_forms(rows)[form])
        label, *_ = prediction
        np.testing.assert_array_equal(prediction[label], expected)


def test_a_missing_name_is_refused_and_an_extra_one_if_so_asked(address: str, rows: pd.DataFrame) -> None:
    with Client(address, timeout_s=30.0) as client:
        with pytest.raises(InvalidRequestError, match=r"missing 'width' \(did you mean 'widht'\?\)"):
            client.predict("boxes", rows.rename(columns={"width": "widht"}))
        with pytest.raises(InvalidRequestError, match="unexpected 'note'"):
            client.predict("boxes", rows.assign(note="x"), extra="refuse")


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_predict_takes_columns_in_any_order(
    address: str, rows: Any, classifier: Any, penstock: Any, tmp_path: Path, kind: str
) -> None:
    turned = rows[rows.columns[::-1]].assign(note="x")
    file = tmp_path / f"rows.{kind}"
    file.write_text(turned.to_csv(index=False) if kind == "csv" else turned.to_json(orient="records"))
    arguments = ["predict", "boxes", str(file), "--server", address, "--timeout", "30", "--json"]
    done = subprocess.run([*PENSTOCK, *arguments], capture_output=True, text=True, timeout=120, check=True)
    label, *_ = json.loads(done.stdout)["outputs"].values()
    assert label == classifier.predict(rows.to_numpy(np.float32)).tolist()
    assert done.stderr == "model 'boxes' takes no column 'note': left out; extra='refuse' refuses such rows\n"
    code, _, errors = penstock(*arguments, "--extra", "refuse")
    assert (code, "unexpected 'note'" in errors) == (1, True)
