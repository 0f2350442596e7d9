"""The MLflow server of this project: `$MLFLOW_TRACKING_URI`, else the file mlflow.db beside params.yaml."""

import json
import os
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from customers import LABEL

RUN = Path("models/run.json")
"""Which run trained the model that lies beside it: later stages log to the same one."""


def connect() -> None:
    """Makes MLflow and Penstock use this project's registry."""
    uri = os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlflow.db').resolve()}")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("churn")


def same_run() -> AbstractContextManager[Any]:
    """The run that trained the model.

    A run that this registry does not know, since the model came from the store of another machine, is begun anew.
    """
    connect()
    run_id = json.loads(RUN.read_text())["run_id"]
    if any(run.info.run_id == run_id for run in mlflow.search_runs(output_format="list")):
        return mlflow.start_run(run_id=run_id)
    return mlflow.start_run(run_name=f"from {run_id}")


def log_dataset(path: str, context: str) -> pd.DataFrame:
    """The rows in a file of Parquet, noted in the run that is under way as what it was used for, such as "training"."""
    frame = pd.read_parquet(path)
    with warnings.catch_warnings():
        # That a path may be several kinds of source, and that labels are whole numbers.
        warnings.simplefilter("ignore")
        mlflow.log_input(mlflow.data.from_pandas(frame, path, targets=LABEL, name="customers"), context)
    return frame


def page(run: Any) -> str | None:
    """The address of a run's page; None where the registry is a file."""
    uri = mlflow.get_tracking_uri()
    return f"{uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" if uri.startswith("http") else None
