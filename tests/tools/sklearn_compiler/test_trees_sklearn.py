"""The trees of scikit-learn, read and asked: rows on thresholds and beside them reach the same leaves."""

import numpy as np
import pytest
from sklearn import ensemble, tree

from penstock_tools.sklearn_compiler.trees import read_trees
from tests.tools.sklearn_compiler import tree_meaning
from tests.tools.sklearn_compiler.tree_rows import ANSWERS, CLASSES, ROWS, around_thresholds

ESTIMATORS = {
    "tree": (tree.DecisionTreeRegressor(max_depth=6), ANSWERS),
    "tree of classes": (tree.DecisionTreeClassifier(max_depth=4), CLASSES),
    "random tree": (tree.ExtraTreeRegressor(max_depth=6), ANSWERS),
    "random tree of classes": (tree.ExtraTreeClassifier(), CLASSES),
    "forest": (ensemble.RandomForestRegressor(7), ANSWERS),
    "forest of targets": (ensemble.RandomForestRegressor(5), np.stack([ANSWERS, -ANSWERS], axis=1)),
    "forest of classes": (ensemble.RandomForestClassifier(8), CLASSES),
    "forest of random trees": (ensemble.ExtraTreesRegressor(6, max_depth=5), ANSWERS),
    "forest of random trees of classes": (ensemble.ExtraTreesClassifier(6), CLASSES),
}


@pytest.mark.parametrize(("estimator", "answers"), ESTIMATORS.values(), ids=ESTIMATORS)
def test_trees_answer_as_scikit_learn_does(estimator, answers):
    fitted = estimator.set_params(random_state=0).fit(ROWS, answers)
    read = read_trees(fitted)
    rows = around_thresholds(read, ROWS)
    expected = fitted.predict_proba(rows) if hasattr(fitted, "predict_proba") else fitted.predict(rows)
    got = tree_meaning.answers(read, rows)
    np.testing.assert_allclose(got, expected.reshape(got.shape), rtol=1e-12, atol=1e-12)


def test_a_classifier_of_several_targets_is_not_one_ensemble():
    fitted = ensemble.RandomForestClassifier(2).fit(ROWS, np.stack([CLASSES, CLASSES], axis=1))
    assert read_trees(fitted) is None


def test_what_has_no_trees_is_not_read():
    assert read_trees(object()) is None
