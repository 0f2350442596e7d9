"""Trains a model that predicts late flights with scikit-learn, and publishes it as the champion of "flights".

    python tools/examples/flights.py     # to the registry at $MLFLOW_TRACKING_URI, or one in a file of your own
    penstock serve                       # serves it on 127.0.0.1:8001

The pipeline is an ordinary one. `publish_pipeline` compiles its transformers, converts its estimator to ONNX, proves on the
sample that both answer as scikit-learn does, and registers them with the drift baseline of these rows.
"""

import sys

from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from penstock_tools import publish_pipeline
from penstock_tools.demo import flights

COLUMNS = list(flights.COLUMNS)


def unfitted_pipeline() -> Pipeline:
    """Categories by number, missing numbers filled with their median, then boosted trees."""
    columns = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), list(flights.STRINGS)),
        (SimpleImputer(strategy="median"), list(flights.NUMBERS)),
    )
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=60, min_samples_leaf=200))


def main() -> None:
    """Trains on January to March, judges on April to June, and publishes."""
    frame = flights.load()
    training, later = flights.by_months(frame, [1, 2, 3]), flights.by_months(frame, [4, 5, 6])
    pipeline = unfitted_pipeline().fit(training[COLUMNS], training["late"])
    auc = roc_auc_score(later["late"], pipeline.predict_proba(later[COLUMNS])[:, 1])

    published = publish_pipeline("flights", pipeline, training, alias="champion")

    sys.stdout.write(f"flights version {published.version} is champion; its AUC on April to June is {auc:.3f}\n")


if __name__ == "__main__":
    main()
