"""How good answers are, compared with other implementations and with values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from penstock_server.labels.quality import (
    area_under_curve,
    calibration_error,
    mean,
    quality_of_classes,
    quality_of_numbers,
    share,
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_the_area_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([score / 5 for score, _ in rows]), np.array([each for _, each in rows])
    found = area_under_curve(scores, positive)
    if positive.all() or not positive.any():
        assert found is None
        return
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(positive, scores))
    assert found.low <= found.value <= found.high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    held = {"share": 0, "auc": 0, "mean": 0}
    for _ in range(1000):
        positive = generator.random(300) < 0.3
        scores = generator.normal(positive * 1.0)
        area = area_under_curve(scores, positive)
        assert area is not None
        held["auc"] += area.low <= 0.7602499 <= area.high  # of two normal distributions one deviation apart
        rate = share(int((generator.random(100) < 0.9).sum()), 100)
        held["share"] += rate.low <= 0.9 <= rate.high
        average = mean(generator.exponential(2.0, 500))
        assert average is not None
        held["mean"] += average.low <= 2.0 <= average.high
    # Wilson's covers 93.6 % of such samples.
    assert all(915 <= count <= 970 for count in held.values()), held


def test_two_classes_are_calibrated_by_the_score_of_the_second() -> None:
    answers = np.array([1.0, 1.0, 0.0, 0.0])
    truths = np.array([1.0, 0.0, 0.0, 0.0])
    scores = np.array([0.9, 0.6, 0.3, 0.1])
    quality = quality_of_classes(answers, truths, scores, 2, 7)
    assert (quality.rows, quality.since_ns) == (4, 7)
    assert quality.accuracy is not None
    assert quality.accuracy.value == 0.75
    assert quality.auc is not None
    assert quality.auc.value == 1.0
    # Each confidence has a bin of its own but 0.9, which two have: |1.8 - 2| + |0.6 - 0| + |0.7 - 1|, of four.
    assert quality.calibration_error == pytest.approx((0.2 + 0.6 + 0.3) / 4)


def test_of_more_classes_the_score_is_the_confidence() -> None:
    quality = quality_of_classes(np.array([0.0, 1, 2]), np.array([0.0, 1, 1]), np.array([0.9, 0.5, np.nan]), 3)
    assert quality.auc is None
    assert quality.calibration_error == pytest.approx((0.1 + 0.5) / 2)


def test_unnamed_classes_are_those_that_are_seen() -> None:
    answers, truths, scores = np.array([3.0, 7.0]), np.array([3.0, 7.0]), np.array([0.2, 0.8])
    quality = quality_of_classes(answers, truths, scores, 0)
    assert quality.auc is not None
    assert quality.auc.value == 1.0
    assert quality.calibration_error == pytest.approx(0.2)


def test_a_single_class_has_no_area() -> None:
    quality = quality_of_classes(np.zeros(3), np.zeros(3), np.full(3, 0.1), 2)
    assert quality.auc is None
    assert quality.accuracy is not None
    assert quality.accuracy.high == 1.0
    assert quality.accuracy.low == pytest.approx(0.4385, abs=1e-3)


def test_errors_of_numbers() -> None:
    quality = quality_of_numbers(np.array([1.0, 2.0, 5.0]), np.array([1.0, 3.0, 3.0]))
    assert quality.mean_absolute_error is not None
    assert quality.mean_absolute_error.value == 1.0
    assert quality.root_mean_squared_error == pytest.approx(np.sqrt(5 / 3))
    assert quality.mean_error == pytest.approx(1 / 3)


def test_without_rows_nothing_is_known() -> None:
    nothing = np.zeros(0)
    assert quality_of_classes(nothing, nothing, nothing, 2).accuracy is None
    assert quality_of_numbers(nothing, nothing).mean_error is None
    assert calibration_error(nothing, nothing.astype(bool)) is None
    assert share(0, 1).low == 0.0
    assert mean(np.array([1.0])) is None


@pytest.mark.parametrize("answer", [np.nan, np.inf, 1e300])
def test_an_answer_that_is_no_number_does_not_hide_the_others(answer: float) -> None:
    quality = quality_of_numbers(np.array([1.0, 2.0, answer]), np.array([0.0, 0.0, 0.0]))
    assert (quality.rows, quality.mean_error) == (2, 1.5)
    assert quality_of_numbers(np.array([answer]), np.array([0.0])).rows == 0
    scored = quality_of_classes(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([0.5, min(answer, 1.0)]), 3)
    assert scored.calibration_error is not None
