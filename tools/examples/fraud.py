"""Makes the files of the README: payments of which some are fraud, and a scikit-learn pipeline that finds them.

    python tools/examples/fraud.py [FOLDER]

It writes to the folder, which is the current one by default:

    fraud.csv       the training rows, in the order of time, with the true answers in `is_fraud`
    fraud.skops     the fitted pipeline
    better.skops    another one, as a canary
    new.csv         rows to predict, their columns in another order
    amount.onnx     a plain ONNX model of two named columns
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import skops.io
from skl2onnx import to_onnx
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler

ROWS = 4000
A_DAY = 100
NUMBERS = ["amount", "hour"]
TEXTS = ["country", "channel"]


def payments(rows: int = ROWS) -> pd.DataFrame:
    """Payments as they might be: large ones at night from the web are fraud more often. Some countries are unknown.

    They are in the order of time, and the amounts of some days are larger than those of others.
    """
    draw = np.random.default_rng(0)
    days = -(-rows // A_DAY)
    of_day = np.repeat(draw.lognormal(0, 0.3, days), A_DAY)[:rows]
    frame = pd.DataFrame(
        {
            "amount": (draw.lognormal(4, 1, rows) * of_day).round(2),
            "hour": draw.integers(0, 24, rows).astype(float),
            "country": draw.choice(["NO", "SE", "DE", "US"], rows, p=[0.5, 0.2, 0.2, 0.1]).astype(object),
            "channel": draw.choice(["card", "web", "app"], rows, p=[0.5, 0.3, 0.2]).astype(object),
        }
    )
    is_night, is_web = frame["hour"] < 6, frame["channel"] == "web"
    score = frame["amount"] / 300 + 2 * is_night + 1.5 * is_web + 1.0 * (frame["country"] == "US") - 3.5
    frame["is_fraud"] = (draw.random(rows) < 1 / (1 + np.exp(-score))).astype(int)
    frame.loc[draw.random(rows) < 0.02, "country"] = None
    frame.loc[draw.random(rows) < 0.01, "amount"] = np.nan
    return frame


def simple_pipeline() -> Pipeline:
    """Numbers filled and scaled, categories as columns of their own, then a logistic regression."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = make_column_transformer((numbers, NUMBERS), (OneHotEncoder(handle_unknown="ignore"), TEXTS))
    return make_pipeline(columns, LogisticRegression())


def better_pipeline() -> Pipeline:
    """The same, but each number in bins, so that its effect need not be a straight line."""
    bins = KBinsDiscretizer(8, encode="onehot", quantile_method="averaged_inverted_cdf")
    numbers = make_pipeline(SimpleImputer(strategy="median"), bins)
    columns = make_column_transformer((numbers, NUMBERS), (OneHotEncoder(handle_unknown="ignore"), TEXTS))
    return make_pipeline(columns, LogisticRegression())


def main(folder: Path) -> None:
    """Writes the files."""
    frame = payments()
    rows, answers = frame[NUMBERS + TEXTS], frame["is_fraud"]
    frame.to_csv(folder / "fraud.csv", index=False)
    skops.io.dump(simple_pipeline().fit(rows, answers), folder / "fraud.skops")
    skops.io.dump(better_pipeline().fit(rows, answers), folder / "better.skops")
    rows.tail(3)[["country", "amount", "channel", "hour"]].to_csv(folder / "new.csv", index=False)
    known = frame.dropna()[NUMBERS].astype(np.float32)
    model = LogisticRegression().fit(known.to_numpy(), answers[known.index])
    graph = to_onnx(model, known.to_numpy()[:1], options={"zipmap": False})
    (folder / "amount.onnx").write_bytes(graph.SerializeToString())
    sys.stdout.write("made fraud.csv, fraud.skops, better.skops, new.csv and amount.onnx\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
