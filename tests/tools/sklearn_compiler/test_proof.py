import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from penstock_server.errors import ModelFailedError
from penstock_tools.publish import onnx_graph, to_onnx
from penstock_tools.sklearn_compiler.proof import check_probabilities, difference

MATRICES = arrays(np.float64, (4, 3), elements=st.floats(allow_nan=True, allow_infinity=True))


@given(MATRICES)
def test_a_matrix_is_equal_to_itself(matrix):
    assert difference(matrix, matrix.copy()).share == 0.0


@given(
    arrays(np.float64, (4, 3), elements=st.floats(-1e3, 1e3, width=32)),
    st.integers(0, 3),
    st.integers(0, 2),
    st.floats(0.5, 10) | st.just(np.nan) | st.just(np.inf),
)
def test_the_one_value_that_is_off_is_found(matrix, row, column, by):
    other = matrix.copy()
    other[row, column] += by
    found = difference(other, matrix)
    assert (found.row, found.column) == (row, column)
    scale = np.abs(matrix[:, column]).max()
    if np.isfinite(by) and scale > 1e-6:
        assert found.share == pytest.approx(by / scale, rel=1e-3)
    else:
        # Against a column of zeros any difference is as large as can be.
        assert found.share > 1e5


CASES = {
    "another number of columns": (np.zeros((2, 3)), np.zeros((2, 2)), True, np.inf),
    "no rows": (np.zeros((0, 3)), np.zeros((0, 3)), True, 0.0),
    "a share of the largest of the column": (np.array([[1.0, 5.0]]), np.array([[1.0, 4.0]]), True, 0.25),
    "as it is": (np.array([[1.0, 5.0]]), np.array([[1.0, 4.0]]), False, 1.0),
    "the other infinity": (np.array([[np.inf]]), np.array([[-np.inf]]), True, np.inf),
}


@pytest.mark.parametrize(("got", "expected", "is_share", "share"), CASES.values(), ids=CASES)
def test_differences(got, expected, is_share, share):
    assert difference(got, expected, is_share=is_share).share == share


ROWS = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
ANSWERS = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(np.int64)


@pytest.fixture(params=[LogisticRegression(), HistGradientBoostingClassifier(max_iter=20)], ids=["linear", "trees"])
def fitted(request):
    return request.param.fit(ROWS, ANSWERS)


def opened(classifier):
    return onnx_graph.read(to_onnx.to_onnx(classifier, 4)).runtime


def test_both_answer_alike(fitted):
    assert check_probabilities(fitted, opened(fitted), ROWS) < 1e-6


def test_another_model_does_not_pass(fitted):
    other = LogisticRegression().fit(ROWS, 1 - ANSWERS)
    with pytest.raises(ModelFailedError, match="differs from scikit-learn's by"):
        check_probabilities(fitted, opened(other), ROWS)


def test_an_answer_that_is_no_number_does_not_pass(fitted, monkeypatch):
    monkeypatch.setattr(fitted, "predict_proba", lambda rows: np.full((len(rows), 2), np.nan))
    with pytest.raises(ModelFailedError, match="by inf in a probability"):
        check_probabilities(fitted, opened(fitted), ROWS)
