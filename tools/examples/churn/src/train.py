"""Fits the pipeline on data/train.parquet, and tracks parameters, data set and model in MLflow."""

import json
from pathlib import Path
from typing import Any

import mlflow
import skops.io
import tracking
import yaml
from customers import COLUMNS, LABEL, NUMBERS, TEXTS
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler


def unfitted(params: dict[str, Any]) -> Pipeline:
    """The pipeline that `train` in params.yaml describes.

    Raises:
        ValueError: there is no such model.
    """
    name = params["model"]
    if name == "boosted_trees":
        columns = make_column_transformer(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), TEXTS),
            (SimpleImputer(strategy="median"), NUMBERS),
        )
        return make_pipeline(columns, HistGradientBoostingClassifier(random_state=0, **params[name]))
    if name == "logistic_regression":
        columns = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), TEXTS),
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
        )
        return make_pipeline(columns, LogisticRegression(**params[name]))
    raise ValueError(f"train.model is {name!r}, expected boosted_trees or logistic_regression")


def main() -> None:
    """Writes models/pipeline.skops, and models/run.json with the run's id."""
    params = yaml.safe_load(Path("params.yaml").read_text())["train"]
    tracking.connect()
    with mlflow.start_run(run_name=params["model"]) as run:
        train = tracking.log_dataset("data/train.parquet", "training")
        mlflow.log_params({"model": params["model"], "rows": len(train), **params[params["model"]]})
        pipeline = unfitted(params).fit(train[COLUMNS], train[LABEL])
        example = train[COLUMNS].head(5)
        mlflow.sklearn.log_model(
            pipeline,
            name="pipeline",
            signature=infer_signature(example, pipeline.predict_proba(example)),
            input_example=example,
            skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(pipeline)),
            pip_requirements=["scikit-learn", "pandas"],
        )
    Path("models").mkdir(exist_ok=True)
    skops.io.dump(pipeline, "models/pipeline.skops")
    tracking.RUN.write_text(json.dumps({"run_id": run.info.run_id}) + "\n")


if __name__ == "__main__":
    main()
