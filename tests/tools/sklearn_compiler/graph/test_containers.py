"""Estimators that hold others answer as scikit-learn's do: whole pipelines in them, and they behind a preprocessor."""

import numpy as np
import pandas as pd
import pytest
from imblearn.ensemble import BalancedBaggingClassifier, RUSBoostClassifier
from imblearn.pipeline import make_pipeline as imblearn_pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import RFE
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RANSACRegressor, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from penstock_server.errors import InvalidInputError
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler.compiler import compile_pipeline

NUMBERS, TEXTS = ["size", "price", "rank"], ["kind"]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": rng.normal(size=150),
            "price": rng.exponential(size=150),
            "rank": rng.integers(0, 5, 150).astype(float),
            "kind": rng.choice(["x", "y", "z"], 150),
            "not read": rng.normal(size=150),
        }
    )


@pytest.fixture(scope="module")
def truth(rows):
    value = rows["size"] + rows["price"] * (rows["kind"] == "x") - 0.4
    value += np.random.default_rng(1).normal(0, 0.3, len(rows))
    three = np.where(value < -0.5, "low", np.where(value < 0.6, "middle", "high"))
    two, other = (value > 0).to_numpy(), (rows["size"] > 0).to_numpy()
    return {
        "two": two.astype(int),
        "texts": np.where(two, "yes", "no"),
        "three": three,
        "number": np.exp(value / 3).to_numpy(),
        "numbers": np.c_[np.exp(value / 3), value],
        "labels": np.c_[two, other].astype(int),
        "mixed": np.c_[three, np.where(other, "a", "b")],
    }


def linear(model):
    return make_pipeline(make_column_transformer((StandardScaler(), NUMBERS), (OneHotEncoder(), TEXTS)), model)


def ranked(model):
    return make_pipeline(make_column_transformer((PCA(2), NUMBERS), (OrdinalEncoder(), TEXTS)), model)


def forest():
    return RandomForestClassifier(5, max_depth=4, random_state=0)


def tree():
    return DecisionTreeClassifier(max_depth=3, random_state=0)


def pair(first=linear, second=ranked):
    return [("a", first(LogisticRegression())), ("b", second(forest())), ("gone", "drop")]


class OwnSearch(GridSearchCV):
    """Another name."""


class OwnStack(StackingRegressor):
    def fit(self, rows, truth):
        return super().fit(rows.copy(), truth)


CONTAINERS = {
    "soft votes of pipelines": (VotingClassifier(pair(), voting="soft", weights=[1, 2, 9]), "three"),
    "hard votes of pipelines": (VotingClassifier([*pair(), ("c", linear(tree()))], weights=[1, 2, 9, 1.5]), "texts"),
    "votes behind": (linear(VotingClassifier([("a", LogisticRegression()), ("b", tree())], voting="soft")), "two"),
    "mean of pipelines": (VotingRegressor([("a", linear(Ridge())), ("b", ranked(Ridge()))]), "number"),
    "stack of pipelines": (StackingClassifier([*pair(), ("s", linear(LinearSVC()))], cv=2), "three"),
    "stack with the rows": (
        linear(StackingClassifier([("a", tree())], make_pipeline(StandardScaler(), forest()), passthrough=True)),
        "texts",
    ),
    "stack of labels": (linear(StackingClassifier([("a", tree())], tree(), stack_method="predict")), "three"),
    "stack of stacks": (
        StackingClassifier([("s", StackingClassifier(pair(), LogisticRegression(), cv=2)), *pair()[:1]], cv=2),
        "two",
    ),
    "stack of regressors": (
        StackingRegressor(
            [("a", linear(Ridge())), ("b", ranked(GradientBoostingRegressor(n_estimators=5)))], Ridge(), cv=2
        ),
        "number",
    ),
    "sigmoids around": (CalibratedClassifierCV(linear(GradientBoostingClassifier(n_estimators=5)), cv=2), "texts"),
    "isotonic around": (CalibratedClassifierCV(linear(forest()), method="isotonic", cv=2), "three"),
    "isotonic, one for all folds": (
        linear(CalibratedClassifierCV(LogisticRegression(), method="isotonic", ensemble=False, cv=2)),
        "two",
    ),
    "sigmoids of scores": (linear(CalibratedClassifierCV(LinearSVC(), cv=2)), "two"),
    "temperature of scores": (linear(CalibratedClassifierCV(LinearSVC(), method="temperature", cv=2)), "three"),
    "temperature of shares": (linear(CalibratedClassifierCV(forest(), method="temperature", cv=2)), "two"),
    "tuned threshold": (TunedThresholdClassifierCV(linear(LogisticRegression()), cv=2), "two"),
    "threshold of the first class": (
        FixedThresholdClassifier(linear(forest()), threshold=0.3, pos_label="no"),
        "texts",
    ),
    "threshold of a score": (linear(FixedThresholdClassifier(LinearSVC(), threshold=0.2)), "two"),
    "labels of pipelines": (MultiOutputClassifier(linear(LogisticRegression())), "labels"),
    "labels of several kinds": (linear(MultiOutputClassifier(LogisticRegression())), "mixed"),
    "targets": (linear(MultiOutputRegressor(SVR())), "numbers"),
    "several outputs of a forest": (linear(RandomForestClassifier(3, random_state=0)), "labels"),
    "chain of labels": (linear(ClassifierChain(LogisticRegression(), order=[1, 0])), "labels"),
    "chain of targets": (linear(RegressorChain(Ridge(), order=[1, 0])), "numbers"),
    "one against the rest": (OneVsRestClassifier(linear(LogisticRegression())), "three"),
    "one against the rest, of two": (linear(OneVsRestClassifier(tree())), "texts"),
    "one against the rest, many labels": (linear(OneVsRestClassifier(LogisticRegression())), "labels"),
    "one against one": (linear(OneVsOneClassifier(LinearSVC())), "three"),
    "one against one, of two": (linear(OneVsOneClassifier(LogisticRegression())), "two"),
    "output codes": (linear(OutputCodeClassifier(LogisticRegression(), random_state=0)), "three"),
    "bags of columns": (linear(BaggingClassifier(tree(), 4, max_features=0.6, random_state=0)), "three"),
    "bags without probabilities": (linear(BaggingClassifier(LinearSVC(), 3, random_state=0)), "texts"),
    "bags of regressors": (linear(BaggingRegressor(n_estimators=3, random_state=0)), "number"),
    "boosted votes": (linear(AdaBoostClassifier(tree(), n_estimators=4)), "three"),
    "boosted votes, of two": (linear(AdaBoostClassifier(n_estimators=4)), "texts"),
    "boosted median": (linear(AdaBoostRegressor(n_estimators=6)), "number"),
    "target around": (TransformedTargetRegressor(linear(Ridge()), func=np.log1p, inverse_func=np.expm1), "number"),
    "search as the last step": (linear(GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2)), "three"),
    "chosen columns": (linear(RFE(LogisticRegression(), n_features_to_select=3)), "three"),
    "self-trained": (linear(SelfTrainingClassifier(LogisticRegression())), "two"),
    "of what agrees": (linear(RANSACRegressor(random_state=0)), "number"),
    "a search of one's own": (OwnSearch(linear(LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2), "two"),
    "a stack of one's own": (OwnStack([("a", linear(Ridge())), ("b", ranked(Ridge()))], cv=2), "number"),
    "samplers": (imblearn_pipeline(linear(None)[0], RandomUnderSampler(), LogisticRegression()), "texts"),
    "balanced bags": (linear(BalancedBaggingClassifier(n_estimators=3, random_state=0)), "two"),
    "undersampled boosting": (linear(RUSBoostClassifier(n_estimators=3, random_state=0)), "two"),
    "clusters": (linear(KMeans(3, n_init=1, random_state=0)), "two"),
}


AGAIN = {
    "votes behind",
    "stack with the rows",
    "stack of labels",
    "stack of stacks",
    "isotonic, one for all folds",
    "sigmoids of scores",
    "temperature of scores",
    "tuned threshold",
    "threshold of a score",
    "labels of several kinds",
    "one against the rest, of two",
    "one against the rest, many labels",
    "one against one, of two",
    "bags without probabilities",
    "boosted votes, of two",
    "balanced bags",
    "undersampled boosting",
    "a search of one's own",
    "a stack of one's own",
}
"""Other forms of containers that are there already: each trains several models again."""


@pytest.mark.parametrize(
    ("model", "answers"),
    [
        pytest.param(*each, id=name, marks=pytest.mark.long if name in AGAIN else ())
        for name, each in CONTAINERS.items()
    ],
)
def test_a_container_answers_as_scikit_learns(rows, truth, model, answers):
    prepared = prepare(model.fit(rows, truth[answers]), rows)
    assert prepared.features.datatype == "FP32"
    assert prepared.difference <= 1e-5


def test_what_is_frozen_stays_as_it_is(rows, truth):
    frozen = FrozenEstimator(linear(LogisticRegression()).fit(rows, truth["two"]))
    prepared = prepare(StackingClassifier([("a", frozen)], cv=2).fit(rows, truth["two"]), rows)
    assert prepared.difference <= 1e-5


def test_members_share_equal_columns(rows, truth):
    model = VotingClassifier([("a", linear(LogisticRegression())), ("b", linear(tree())), ("c", ranked(tree()))])
    compiled = compile_pipeline(model.fit(rows, truth["two"]), rows)
    # Three scaled numbers and three categories once, the raw numbers for PCA and the rank of the category.
    assert compiled.block.width == 3 + 3 + 3 + 1
    assert len(compiled.stages) == 6
    assert compiled.unused == ("not read",)


def test_text_that_passes_through_is_refused(rows, truth):
    vote = VotingClassifier([("a", make_pipeline(StandardScaler(), tree()))]).fit(rows[NUMBERS], truth["two"])
    with pytest.raises(InvalidInputError, match="column 'price' reaches the model as text"):
        compile_pipeline(vote.estimators_[0][-1:], rows[NUMBERS].assign(price=rows["kind"]))
