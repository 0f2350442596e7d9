import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.preprocessing import StandardScaler

from penstock_tools.sklearn_compiler.kinds import lookup


class Named(StandardScaler):
    """Another name."""


class FittedOtherwise(StandardScaler):
    def fit(self, rows, y=None, sample_weight=None):
        return super().fit(rows[:10], y, sample_weight)


class MoreToAsk(PCA):
    limit = 3

    def loadings(self):
        return self.components_


class AnswersOtherwise(StandardScaler):
    def transform(self, rows):
        return super().transform(rows) ** 2


class ScoresOtherwise(LogisticRegression):
    def decision_function(self, rows):
        return super().decision_function(rows) + 1.0


class Grandchild(AnswersOtherwise):
    """What it inherits is not scikit-learn's."""


TABLE = {StandardScaler: "scaler", PCA: "pca", LogisticRegression: "linear"}
OBJECTS = {
    "itself": (StandardScaler(), "scaler"),
    "another name": (Named(), "scaler"),
    "another fit": (FittedOtherwise(), "scaler"),
    "methods of its own": (MoreToAsk(), "pca"),
    "scikit-learn's own subclass": (LogisticRegressionCV(), "linear"),
    "another transform": (AnswersOtherwise(), None),
    "another score": (ScoresOtherwise(), None),
    "of one that answers otherwise": (Grandchild(), None),
    "no relation": (SGDClassifier(), None),
}


@pytest.mark.parametrize(("fitted", "entry"), OBJECTS.values(), ids=OBJECTS)
def test_the_entry_of_the_nearest_parent_that_answers_alike(fitted, entry):
    assert lookup(TABLE, fitted) == entry
