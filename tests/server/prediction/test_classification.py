from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from penstock_server.prediction.classification import TopClasses, output_of

SCORES = np.array([[0.25, 0.5, 0.125], [0.5, 0.25, 0.5]], np.float32)
LABELS = ("cat", "dog")


@pytest.mark.parametrize(
    ("array", "count", "labels", "found"),
    [
        (SCORES, 2, (), [["0.500000:1", "0.250000:0"], ["0.500000:0", "0.500000:2"]]),
        (SCORES, 1, LABELS, [["0.500000:1:dog"], ["0.500000:0:cat"]]),
        (SCORES, 9, LABELS, [
            ["0.500000:1:dog", "0.250000:0:cat", "0.125000:2"], ["0.500000:0:cat", "0.500000:2", "0.250000:1:dog"],
        ]),
        (np.array([[3, 200]], np.uint8), 2, (), [["200:1", "3:0"]]),
        (np.array([[-3, 2**62 + 1]]), 1, (), [["4611686018427387905:1"]]),
        (np.array([[np.nan, 1.0, np.inf]]), 3, (), [["nan:0", "inf:2", "1.000000:1"]]),
        (np.array([0.5, 0.25]), 3, LABELS, [["0.500000:0:cat"], ["0.250000:0:cat"]]),
        (np.zeros((0, 3)), 2, (), []),
        (np.array([[[1, 2], [4, 3]]]), 2, (), [["4:2", "3:3"]]),
        (np.array([[0.1, 0.2]], np.float16), 1, (), [["0.199951:1"]]),
    ],
)  # fmt: skip
def test_the_largest_of_each_row(array: NDArray[Any], count: int, labels: tuple[str, ...], found: list[Any]) -> None:
    asked = TopClasses(0, count, is_by_row=True)
    texts = asked.texts(array, labels)
    assert texts.tolist() == found
    assert texts.shape == asked.shape(array.shape)


def test_an_output_without_rows_is_one() -> None:
    asked = TopClasses(0, 2, is_by_row=False)
    assert asked.texts(np.array([1, 3, 2]), LABELS).tolist() == ["3:1:dog", "2:2"]
    assert asked.shape((3,)) == (2,)


@given(
    array=arrays(
        np.float32, st.tuples(st.integers(0, 5), st.integers(1, 6)), elements=st.sampled_from([0, 0.5, 1, -2])
    ),
    count=st.integers(1, 8),
)
def test_no_value_that_is_left_out_is_larger(array: NDArray[Any], count: int) -> None:
    texts = TopClasses(0, count, is_by_row=True).texts(array, ())
    for row, found in zip(array.tolist(), texts.tolist(), strict=True):
        places = [int(text.split(":")[1]) for text in found]
        assert len({*places}) == len(places) == min(count, len(row))
        assert places == sorted(range(len(row)), key=lambda at: (-row[at], at))[:count]
        assert [float(text.split(":")[0]) for text in found] == [row[at] for at in places]


def test_which_output_is_asked_for() -> None:
    assert (output_of(3), output_of(TopClasses(2, 1, is_by_row=True))) == (3, 2)
