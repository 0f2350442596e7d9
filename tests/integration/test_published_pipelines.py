"""A scikit-learn pipeline goes from a file through the command into a registry and a server, and answers as it did."""

import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler, TargetEncoder
from typer.testing import CliRunner

from penstock_client import Client, PenstockClientError
from penstock_tools.cli.app import app
from penstock_tools.functions import cyclical

pytestmark = [pytest.mark.slow, pytest.mark.long]  # they train, publish and serve a pipeline of every kind

DRAW = np.random.default_rng(3)
FRAME = pd.DataFrame(
    {
        "amount": DRAW.lognormal(3, 1, 600),
        "hour": DRAW.integers(0, 24, 600),
        "age": np.where(DRAW.random(600) < 0.1, np.nan, DRAW.normal(40, 10, 600)),
        "country": DRAW.choice(["NO", "SE", "IT"], 600),
        "card": DRAW.choice(["visa", "amex", None], 600),
    }
)
TRUTH = (np.log1p(FRAME["amount"]) + (FRAME["country"] == "IT") > 3.2).astype(int)


def fitted_pipeline(handle_unknown):
    number = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    columns = ColumnTransformer(
        [
            ("amount", make_pipeline(FunctionTransformer(np.log1p), StandardScaler()), ["amount"]),
            ("hour", FunctionTransformer(cyclical, kw_args={"period": 24}), ["hour"]),
            ("age", number, ["age"]),
            ("country", OneHotEncoder(handle_unknown=handle_unknown), ["country"]),
            ("card", make_pipeline(SimpleImputer(strategy="most_frequent"), TargetEncoder()), ["card"]),
        ]
    )
    return Pipeline([("preprocess", columns), ("model", LogisticRegression())]).fit(FRAME, TRUTH)


@pytest.fixture(scope="module")
def pipelines():
    return {"skops": fitted_pipeline("ignore"), "joblib": fitted_pipeline("error")}


@pytest.fixture(scope="module")
def server(pipelines, tmp_path_factory, start_shared, empty_registry):
    """A server of two models that the command published, one of a .skops and one of a .joblib file."""
    folder = tmp_path_factory.mktemp("pipelines")
    registry = f"sqlite:///{shutil.copy(empty_registry, folder / 'registry.db')}"
    FRAME.assign(truth=TRUTH).to_csv(folder / "sample.csv", index=False)
    skops.io.dump(pipelines["skops"], folder / "p.skops")
    joblib.dump(pipelines["joblib"], folder / "p.joblib")
    for kind, options in {"skops": ["--labels", "truth"], "joblib": ["--trust"]}.items():
        command = ["publish", kind, str(folder / f"p.{kind}"), "--sample", str(folder / "sample.csv")]
        result = CliRunner().invoke(app, [*command, "--alias", "champion", "--registry", registry, *options])
        assert result.exit_code == 0, result.exception
        assert f"{kind} version 1 is registered and is now champion" in result.stdout
    return start_shared("--registry", registry).wait_ready()


def asked(server, model, rows):
    """The probabilities that the server answers, with missing values as requests have them."""
    columns = {
        name: values.fillna("").tolist() if values.dtype.kind not in "biuf" else values.to_numpy()
        for name, values in rows.items()
    }
    with Client(server.grpc) as client:
        return client.predict(model, columns)


@pytest.mark.parametrize("kind", ["skops", "joblib"])
def test_the_server_answers_as_the_pipeline_does(server, pipelines, kind):
    prediction = asked(server, kind, FRAME)
    np.testing.assert_allclose(prediction["probabilities"], pipelines[kind].predict_proba(FRAME), atol=1e-6)
    one = asked(server, kind, FRAME.iloc[[7]])
    np.testing.assert_array_equal(one["label"], pipelines[kind].predict(FRAME.iloc[[7]]))


def test_values_that_training_never_saw(server, pipelines):
    rows = FRAME.head(4).assign(country=["XX", "", "IT", "NO"], card=["visa", "diners", "", "amex"])
    expected = pipelines["skops"].predict_proba(rows.replace("", None))
    np.testing.assert_allclose(asked(server, "skops", rows)["probabilities"], expected, atol=1e-6)


def test_what_the_pipeline_refuses_the_server_refuses(server, pipelines):
    rows = FRAME.head(2).assign(country=["XX", "NO"])
    with pytest.raises(ValueError, match="unknown categories"):
        pipelines["joblib"].predict(rows)
    with pytest.raises(PenstockClientError, match="country"):
        asked(server, "joblib", rows)
