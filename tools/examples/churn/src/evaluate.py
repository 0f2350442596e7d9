"""Judges the model on the held-out months, and fails if it is not good enough.

    python src/evaluate.py --threshold 0.65

The metrics and the curve go to metrics.json and plots/, for `dvc metrics diff` and `dvc plots diff`, and to the run that
trained the model.
"""

import argparse
import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import skops.io
import tracking
from customers import COLUMNS, LABEL
from matplotlib.figure import Figure
from sklearn import metrics

POINTS = 101
MODEL = Path("models/pipeline.skops")


def scores(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The scores of a binary classifier, for the truth of 0 and 1 [rows] and the probabilities of 1 [rows]."""
    return {
        "auc": float(metrics.roc_auc_score(truth, probabilities)),
        "accuracy": float(np.mean((probabilities > 0.5) == truth)),
        "log_loss": float(metrics.log_loss(truth, probabilities)),
        "rows": len(truth),
    }


def curve(truth: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """The ROC curve at evenly spaced rates of false positives."""
    false_positive, true_positive, _ = metrics.roc_curve(truth, probabilities)
    at = np.linspace(0.0, 1.0, POINTS)
    return pd.DataFrame(
        {"false_positive_rate": at, "true_positive_rate": np.interp(at, false_positive, true_positive)}
    ).round(4)


def drawn(roc: pd.DataFrame, auc: float) -> Figure:
    """The same as a figure."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(roc["false_positive_rate"], roc["true_positive_rate"])
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.set(title=f"AUC {auc:.3f}", xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    return figure


def main() -> int:
    """Writes the metrics in any case; returns 1 if the AUC is below the threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threshold", type=float, default=0.0, help="least AUC on the held-out months")
    threshold = parser.parse_args().threshold
    # This project's own file: what skops does not know are the trees of scikit-learn.
    pipeline = skops.io.load(MODEL, trusted=skops.io.get_untrusted_types(file=MODEL))
    with tracking.same_run():
        test = tracking.log_dataset("data/test.parquet", "test")
        truth, probabilities = test[LABEL].to_numpy(), pipeline.predict_proba(test[COLUMNS])[:, 1]
        found, roc = scores(truth, probabilities), curve(truth, probabilities)
        mlflow.log_metrics({f"test_{name}": value for name, value in found.items()})
        mlflow.log_figure(drawn(roc, found["auc"]), "roc.png")
    Path("metrics.json").write_text(
        json.dumps({name: round(value, 4) for name, value in found.items()}, indent=2) + "\n"
    )
    Path("plots").mkdir(exist_ok=True)
    roc.to_csv("plots/roc.csv", index=False)
    # Written so that NaN fails too.
    if not found["auc"] >= threshold:
        sys.stderr.write(
            f"the AUC on {len(test):,} held-out rows is {found['auc']:.3f}, expected at least {threshold:g}\n"
        )
        return 1
    sys.stdout.write(
        f"the AUC on {len(test):,} held-out rows is {found['auc']:.3f}, at least {threshold:g} as expected\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
