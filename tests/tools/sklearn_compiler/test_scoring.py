import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import StandardScaler

from penstock_server.errors import InvalidInputError
from penstock_tools.sklearn_compiler.compiler import compile_pipeline
from penstock_tools.sklearn_compiler.scoring import scores

ROWS = np.random.default_rng(0).normal(size=(60, 2))
SIGN = (ROWS[:, 0] + 0.3 * ROWS[:, 1] > 0).astype(int)


def compiled(model, labels):
    return compile_pipeline(model.fit(ROWS, labels), ROWS)


def test_two_classes_have_an_auc_and_three_have_none():
    model = LogisticRegression()
    found = scores(compiled(model, SIGN), SIGN)
    assert found.keys() == {"accuracy", "log_loss", "auc"}
    assert found["accuracy"] == model.score(ROWS, SIGN)
    three = np.digitize(ROWS[:, 0], [-0.5, 0.5])
    assert scores(compiled(LogisticRegression(), three), three).keys() == {"accuracy", "log_loss"}


def test_labels_of_one_class_alone_have_no_auc():
    assert "auc" not in scores(compiled(LogisticRegression(), SIGN), np.zeros(60, int))


def test_a_classifier_without_probabilities_has_an_accuracy():
    assert scores(compiled(RidgeClassifier(), SIGN), SIGN).keys() == {"accuracy"}


def test_numbers():
    truth = ROWS @ [1.0, 2.0]
    found = scores(compiled(LinearRegression(), truth), truth + 0.5)
    assert found["mean_absolute_error"] == pytest.approx(0.5)
    assert found["root_mean_squared_error"] == pytest.approx(0.5)
    assert found["r2"] == pytest.approx(1 - 0.25 / np.var(truth))


def test_several_labels_have_an_accuracy_of_all_together():
    labels = np.c_[SIGN, 1 - SIGN]
    found = scores(compiled(MultiOutputClassifier(LogisticRegression()), labels), np.c_[SIGN, SIGN])
    assert found == {"accuracy": pytest.approx(0.0, abs=0.1)}
    with pytest.raises(InvalidInputError, match=r"labels of the shape \[60, 2\] for the sample, and \[60\] are given"):
        scores(compiled(MultiOutputClassifier(LogisticRegression()), labels), SIGN)


@pytest.mark.parametrize("model", [KMeans(2, n_init=1), StandardScaler()], ids=["clusters", "features"])
def test_what_has_no_truth_has_no_scores(model):
    assert scores(compiled(model, SIGN), SIGN) == {}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (SIGN[:-1], "there are 59 labels for 60 rows; expected as many"),
        (np.where(np.arange(60) == 7, np.nan, SIGN), "the label of row 7 is missing; expected one for each row"),
        (SIGN + 5, "the label [56] is none of the model's classes; expected 0, 1"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(InvalidInputError, match=message):
        scores(compiled(LogisticRegression(), SIGN), labels)
