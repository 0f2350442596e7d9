from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from penstock_server.prediction.outputs import TOLERANCE, agreement


def by_scores(left: Any, right: Any, rows: int) -> tuple[list[bool], list[float]]:
    agree, distance = agreement([left], [right], classes=(None, None), scores=(0, 0), rows=rows)
    return agree.tolist(), distance.tolist()


@pytest.mark.parametrize(
    ("left", "right", "agrees", "distance"),
    [
        (1.0, 1.0, True, 0.0),
        (1.0, 1.0 + TOLERANCE / 2, True, TOLERANCE / 2),
        (1.0, 1.5, False, 0.5),
        (nan, nan, True, 0.0),
        (nan, 1.0, False, inf),
        (1.0, nan, False, inf),
        (inf, inf, True, 0.0),
        (inf, -inf, False, inf),
        (inf, 1.0, False, inf),
    ],
)
def test_scores_agree_within_the_tolerance(left: float, right: float, agrees: bool, distance: float) -> None:
    agree, distances = by_scores(np.array([[left]]), np.array([right]), 1)
    assert agree == [agrees]
    assert distances == pytest.approx([distance])


def test_a_row_is_as_far_as_its_farthest_score() -> None:
    left, right = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[0.25, 1.0], [0.0, 0.5]], np.float32)
    assert by_scores(left, right, 2)[1] == [0.25, 0.5]


def test_scores_of_another_shape_are_infinitely_far() -> None:
    assert by_scores(np.zeros((2, 3)), np.zeros((2, 2)), 2) == ([False, False], [inf, inf])


@pytest.mark.parametrize("scores", [(None, 0), (0, None), (None, None)])
def test_without_scores_there_is_no_distance(scores: tuple[int | None, int | None]) -> None:
    agree, distance = agreement([np.ones(2)], [np.zeros(2)], classes=(None, None), scores=scores, rows=2)
    assert (agree.tolist(), distance.tolist()) == ([True, True], [0.0, 0.0])


def test_classes_decide_where_both_have_them() -> None:
    champion, shadow = [np.array([1, 2, 3]), np.zeros(3)], [np.array([1, 0, 3]), np.full(3, 0.5)]

    def labels(outputs: Any) -> Any:
        return outputs[0]

    agree, distance = agreement(champion, shadow, classes=(labels, labels), scores=(1, 1), rows=3)
    assert agree.tolist() == [True, False, True]
    assert distance.tolist() == [0.5, 0.5, 0.5]
    agree, _ = agreement(champion, shadow, classes=(labels, None), scores=(1, 1), rows=3)
    assert agree.tolist() == [False, False, False]


ROWS = npst.arrays(np.float64, (4, 3), elements=st.floats(width=32))


@given(left=ROWS, right=ROWS)
def test_distance_is_symmetric_and_zero_to_itself(left: Any, right: Any) -> None:
    assert by_scores(left, left, 4) == ([True] * 4, [0.0] * 4)
    assert by_scores(left, right, 4) == by_scores(right, left, 4)
    assert not any(np.isnan(by_scores(left, right, 4)[1]))
