"""Registers the model as the next version, compiled and proven by Penstock, and writes models/version.json.

The training rows become the drift baseline, the held-out ones tell servers what accuracy to expect. The version has no role
yet: `src/deploy.py` gives it one.
"""

import json
import sys
from pathlib import Path

import mlflow
import pandas as pd
import skops.io
import tracking
import yaml
from customers import COLUMNS, LABEL, MONTH

from penstock_tools import publish_pipeline
from penstock_tools.publish.onnx import Record

VERSION = Path("models/version.json")
MODEL = Path("models/pipeline.skops")


def main() -> None:
    """Publishes, and writes {"name", "version"}."""
    name = yaml.safe_load(Path("params.yaml").read_text())["publish"]["name"]
    train, test = pd.read_parquet("data/train.parquet"), pd.read_parquet("data/test.parquet")
    pipeline = skops.io.load(MODEL, trusted=skops.io.get_untrusted_types(file=MODEL))
    metrics = json.loads(Path("metrics.json").read_text())
    with tracking.same_run() as run:
        published = publish_pipeline(
            name,
            pipeline,
            train[[MONTH, *COLUMNS]],
            time=MONTH,
            holdout=(test[[MONTH, *COLUMNS]], test[LABEL]),
            record=Record(
                title=f"{name}, published",
                params={"trained_by": run.info.run_id},
                metrics={f"test_{key}": value for key, value in metrics.items()},
                link=tracking.page(run),
            ),
        )
        mlflow.set_tag("registered", f"{name} {published.version}")
    VERSION.write_text(json.dumps({"name": name, "version": published.version}) + "\n")
    sys.stdout.write(f"{name} version {published.version} is registered\n")


if __name__ == "__main__":
    main()
