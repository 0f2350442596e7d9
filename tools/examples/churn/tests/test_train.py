from pathlib import Path

import evaluate
import pytest
import yaml
from customers import COLUMNS, LABEL, month
from train import unfitted

PARAMS = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())


@pytest.mark.parametrize("model", ["boosted_trees", "logistic_regression"])
def test_each_model_ranks_the_next_month(model):
    early, later = month(1), month(2)
    pipeline = unfitted({**PARAMS["train"], "model": model}).fit(early[COLUMNS], early[LABEL])
    scores = evaluate.scores(later[LABEL].to_numpy(), pipeline.predict_proba(later[COLUMNS])[:, 1])
    assert scores["auc"] > PARAMS["evaluate"]["threshold"]
    assert scores["rows"] == len(later)


def test_a_model_that_is_none():
    with pytest.raises(ValueError, match=r"train\.model is 'svm', expected boosted_trees or logistic_regression"):
        unfitted({"model": "svm"})


def test_the_curve_begins_at_nothing_and_ends_at_all():
    roc = evaluate.curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    assert len(roc) == evaluate.POINTS
    assert roc["true_positive_rate"].iloc[-1] == 1.0
    assert roc["true_positive_rate"].is_monotonic_increasing
