import math

import numpy as np
import pytest

from penstock_tools.demo.evaluate import QualityError, Scores, hold_gate, plot, score

ANSWERS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([0.1, 0.6, 0.4, 0.8], np.float32)


def test_scores_by_hand():
    scores = score(ANSWERS, PROBABILITIES)
    assert scores.auc == 0.75  # three of the four pairs are in order
    assert scores.accuracy == 0.5
    assert scores.log_loss == pytest.approx(-sum(map(math.log, (0.9, 0.4, 0.4, 0.8))) / 4, rel=1e-6)
    assert scores.rows == 4


def test_metrics_carry_every_score():
    assert Scores(0.7, 0.6, 0.5, 9).as_metrics() == {"auc": 0.7, "accuracy": 0.6, "log_loss": 0.5, "rows": 9.0}


@pytest.mark.parametrize("auc", [0.65, 0.66, 1.0])
def test_the_gate_lets_good_ones_through(auc):
    hold_gate("model", Scores(auc, 0.8, 0.4, 100), 0.65)


@pytest.mark.parametrize("auc", [0.649, 0.5, math.nan])
def test_the_gate_refuses_the_others(auc):
    with pytest.raises(QualityError, match=r"the model was not registered.*100 rows.*0\.650 is asked for"):
        hold_gate("model", Scores(auc, 0.8, 0.4, 100), 0.65)


def test_the_plot_shows_the_curve_and_every_month(tmp_path):
    figure = plot("model", ANSWERS, PROBABILITIES, {4: 0.7, 5: 0.8})
    left, right = figure.axes
    assert left.lines[0].get_xdata()[[0, -1]].tolist() == [0, 1]
    assert [bar.get_height() for bar in right.patches] == [0.7, 0.8]
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
