import numpy as np
import pytest
from scipy import sparse

from penstock_server.python.answers import answers
from penstock_server.python.description import Output


class Given:
    """A pipeline that gives what it is told, and counts how often it is asked."""

    def __init__(self, **given):
        self.given, self.asked = given, []

    def __getattr__(self, name):
        return lambda rows: self.asked.append(name) or self.given[name]


CASES = {
    "a number": (Output("p", "FP64", "predict", 1), [1.5, 2], np.array([[1.5], [2]])),
    "narrow": (Output("p", "FP32", "predict", 1), np.array([1, 2], np.float32), np.array([[1], [2]], np.float32)),
    "labels": (Output("l", "INT64", "predict"), np.array([True, False]), np.array([1, 0])),
    "whole floats as labels": (Output("l", "INT64", "predict"), np.array([1.0, 0.0]), np.array([1, 0])),
    "text": (Output("l", "BYTES", "predict"), np.array(["a", "ß"]), np.array(["a", "ß"], object)),
    "sparse": (Output("f", "FP64", "transform", 2), sparse.csr_matrix([[0, 1], [2, 0]]), np.array([[0.0, 1], [2, 0]])),
    "of one of several": (
        Output("p1", "FP64", "predict_proba", 1, 1), [np.zeros((2, 3)), np.ones((2, 1))], np.ones((2, 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("output", "given", "expected"), CASES.values(), ids=CASES)
def test_answers_have_the_published_type_and_shape(output, given, expected):
    (found,) = answers(Given(**{output.method: given}), [output], None, 2)
    assert (found.dtype, found.tolist()) == (expected.dtype, expected.tolist())


def test_each_method_is_asked_once():
    pipeline = Given(predict=[1, 2], predict_proba=[np.zeros((2, 2)), np.ones((2, 2))])
    outputs = [Output("l", "INT64", "predict"), *(Output(f"p{at}", "FP64", "predict_proba", 2, at) for at in (0, 1))]
    answers(pipeline, outputs, None, 2)
    assert pipeline.asked == ["predict", "predict_proba"]


@pytest.mark.parametrize(
    ("output", "given", "reason"),
    [
        (
            Output("p", "FP64", "predict", 1),
            [1.0],
            r"gave an array of shape \[1\], expected 1 values for each of 2 rows",
        ),
        (Output("p", "FP64", "predict", 2), [1.0, 2.0], "expected 2 values for each of 2 rows"),
        (Output("l", "INT64", "predict"), [1.0, 2.5], "gave 2.5, which INT64 cannot hold"),
    ],
)
def test_what_is_not_as_published_is_refused(output, given, reason):
    with pytest.raises(ValueError, match=reason):
        answers(Given(predict=given), [output], None, 2)
