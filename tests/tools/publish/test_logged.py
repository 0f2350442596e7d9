"""Models that MLflow keeps: each flavour is logged by MLflow itself and published from its address."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock_server.errors import InvalidInputError, NotFoundError, UnsupportedError
from penstock_tools.publish import files, logged
from penstock_tools.publish.files import Request

ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
TRUTH = (ROWS.a > 0).astype(int)


@pytest.fixture(scope="module")
def estimators():
    import catboost
    import lightgbm
    import xgboost

    return {
        "sklearn": make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, TRUTH),
        "xgboost": xgboost.XGBClassifier(n_estimators=3).fit(ROWS, TRUTH),
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(ROWS, TRUTH),
        "catboost": catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False).fit(ROWS, TRUTH),
    }


@pytest.fixture
def mlflow(registry):
    import mlflow

    mlflow.set_tracking_uri(registry)
    mlflow.set_registry_uri(registry)
    return mlflow


@pytest.fixture
def log(mlflow):
    """Logs a model as its users do; gives the run's id."""

    def logged_by(flavour, model, **options):
        with mlflow.start_run() as run:
            # Requirements are given, since MLflow would find them by loading the model in a process of its own.
            getattr(mlflow, flavour).log_model(
                model, name="model", registered_model_name="raw", pip_requirements=[], **options
            )
        return run.info.run_id

    return logged_by


def publish(address, agree=lambda _: True, **options):
    return files.publish(Request("churn", files.Path(address), **options), agree, lambda _: None)


@pytest.mark.long
@pytest.mark.parametrize("flavour", ["sklearn", "lightgbm", "xgboost", "catboost"])
def test_a_logged_model_is_compiled_with_its_input_example(log, client, estimators, flavour):
    log(flavour, estimators[flavour], input_example=ROWS)
    client.set_registered_model_alias("raw", "best", "1")
    version, published = publish("models:/raw@best")
    assert version == "1"
    assert [column.name for column in published.prepared.features.columns] == ["a", "b", "c"]
    run = client.get_run(client.get_model_version("churn", "1").run_id)
    assert run.data.params["published_from"] == "models:/raw/1"


@pytest.mark.long
def test_a_run_names_a_model_too_and_the_sample_may_be_another(log, client, estimators, tmp_path):
    run = log("sklearn", estimators["sklearn"])
    ROWS.assign(truth=TRUTH).to_parquet(tmp_path / "s.parquet")
    _, published = publish(f"runs:/{run}/model", sample=tmp_path / "s.parquet", labels="truth")
    assert published.prepared.compiled.sample.rows == 60
    assert published.scores["accuracy"] > 0.9


def test_a_graph_goes_on_as_it_is(log, client, onnx_model):
    log("onnx", onnx_model)
    assert publish("models:/raw/1") == ("1", None)


def test_own_code_and_pickles_need_agreement(log, estimators, tmp_path, client):
    (tmp_path / "own_steps.py").write_text("VALUE = 1\n")
    log(
        "sklearn",
        estimators["sklearn"],
        serialization_format="cloudpickle",
        code_paths=[str(tmp_path / "own_steps.py")],
        input_example=ROWS,
    )
    asked = []
    with pytest.raises(InvalidInputError, match="--trust agrees"):
        publish("models:/raw/1", asked.append)
    with pytest.raises(InvalidInputError, match="--trust agrees"):
        publish("models:/raw/1", lambda warning: asked.append(warning) or "code of its own" in warning)
    assert ["code of its own" in warning for warning in asked] == [True, True, False]
    assert client.search_registered_models(filter_string="name = 'churn'") == []


def test_what_cannot_be_published_is_told(log, mlflow, client, estimators):
    class Constant(mlflow.pyfunc.PythonModel):
        def predict(self, model_input: list[str]):
            return [0] * len(model_input)

    log("pyfunc", None, python_model=Constant())
    log("sklearn", estimators["sklearn"])
    log("xgboost", estimators["xgboost"].get_booster(), input_example=ROWS)
    refused = {
        "models:/raw/1": (UnsupportedError, "was logged as python_function alone; expected one of onnx, sklearn"),
        "models:/raw/2": (InvalidInputError, "logged without an input example; give sample rows with --sample"),
        "models:/raw/3": (UnsupportedError, "logged as a Booster"),
        "models:/raw/9": (NotFoundError, "not found"),
        "models:/raw@nobody": (InvalidInputError, "nobody"),
        "runs:/0123/model": (NotFoundError, "0123"),
    }
    for address, (kind, sentence) in refused.items():
        with pytest.raises(kind, match=sentence):
            publish(address)


def test_a_file_outside_its_folder_is_not_read(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").touch()
    model = logged.LoggedModel("models:/x/1", tmp_path / "inside", "sklearn", {"pickled_model": "../secret"})
    with pytest.raises(InvalidInputError, match="lacks its file"):
        model.estimator(lambda _: True)
