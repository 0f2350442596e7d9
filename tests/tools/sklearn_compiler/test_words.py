"""The model of few columns answers as the model of a text's many columns does."""

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import LinearSVC

from penstock_server.errors import UnsupportedError
from penstock_server.features.pipeline import Pipeline
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler.compiler import compile_pipeline

ROWS = 90
TOPICS = (("ball", "goal", "team"), ("bank", "money", "share"), ("star", "moon", "Über"))


def frame():
    random = np.random.default_rng(0)
    topic = np.arange(ROWS) % 3
    words = [random.choice([*TOPICS[each], "the", "of", f"w{at % 7}"], 8) for at, each in enumerate(topic)]
    body = [" ".join(each) for each in words]
    return pd.DataFrame({"body": body, "title": [text[:9] for text in body], "n": random.random(ROWS)}), topic


FRAME, TOPIC = frame()
NAMES = np.array(["sport", "money", "space"])[TOPIC]
IS_SPORT = (TOPIC == 0).astype(int)
BOTH = np.column_stack([IS_SPORT, TOPIC == 1]).astype(int)
REAL = TOPIC + FRAME["n"].to_numpy()

ESTIMATORS = {
    "logistic, two classes": (LogisticRegression(), IS_SPORT),
    "logistic": (LogisticRegression(), NAMES),
    "logistic, sparse coefficients": (LogisticRegression(C=0.1).fit([[0], [1]], [0, 1]), NAMES),
    "descent": (SGDClassifier(loss="modified_huber", random_state=0), NAMES),
    "ridge classifier": (RidgeClassifier(), NAMES),
    "support vectors": (LinearSVC(), NAMES),
    "multinomial": (MultinomialNB(), NAMES),
    "multinomial, two classes": (MultinomialNB(), IS_SPORT),
    "complement": (ComplementNB(norm=True), NAMES),
    "bernoulli": (BernoulliNB(), NAMES),
    "bernoulli, above a half, two classes": (BernoulliNB(binarize=0.5), IS_SPORT),
    "network": (MLPClassifier((4, 3), max_iter=5, random_state=0), NAMES),
    "ridge": (Ridge(), REAL),
    "lasso": (Lasso(0.01), REAL),
    "elastic net, two targets": (ElasticNet(0.01), np.column_stack([REAL, TOPIC])),
    "poisson": (PoissonRegressor(), REAL),
}
CONTAINERS = {
    "calibrated": (CalibratedClassifierCV(LinearSVC(), cv=3), NAMES),
    "one against the rest": (OneVsRestClassifier(LogisticRegression()), BOTH),
    "one against one": (OneVsOneClassifier(LinearSVC()), NAMES),
    "voting": (VotingClassifier([("a", LogisticRegression()), ("b", MultinomialNB())], voting="soft"), NAMES),
    "stacking": (StackingClassifier([("a", LinearSVC()), ("b", ComplementNB())], cv=2), NAMES),
    "bagging": (BaggingClassifier(LogisticRegression(), 3, random_state=0), NAMES),
    "threshold": (FixedThresholdClassifier(LogisticRegression(), threshold=0.3), IS_SPORT),
    "search": (GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2), NAMES),
    "several targets": (MultiOutputRegressor(Ridge()), np.column_stack([REAL, TOPIC])),
    "target": (TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1), REAL),
}
METHODS = ("predict", "predict_proba", "decision_function")


def columns():
    return ColumnTransformer(
        [
            ("body", TfidfVectorizer(), "body"),
            ("number", MinMaxScaler(), ["n"]),
            ("title", CountVectorizer(analyzer="char_wb", ngram_range=(1, 2)), "title"),
        ]
    )


@pytest.mark.long
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore")  # of networks that have not converged, of matrices without names
def test_a_model_of_few_columns_answers_alike(name):
    estimator, target = ESTIMATORS[name]
    fitted = make_pipeline(columns(), estimator).fit(FRAME, target)
    if "sparse" in name:
        fitted[-1].sparsify()
    before = fitted[-1]
    compiled = compile_pipeline(fitted, FRAME)
    assert compiled.features().width < 60
    assert fitted[-1] is before
    assert before.n_features_in_ > 100
    features = Pipeline(compiled.features("FP64")).transform(compiled.sample.on_the_wire())
    assert compiled.estimator.n_features_in_ == features.shape[1]
    for method in METHODS:
        if hasattr(before, method) and hasattr(compiled.estimator, method):
            expected, got = getattr(fitted, method)(FRAME), getattr(compiled.estimator, method)(features)
            if np.asarray(expected).dtype.kind == "U":
                assert got.tolist() == expected.tolist()
            elif ("multinomial" not in name and "bernoulli" not in name) or method != "decision_function":
                np.testing.assert_allclose(got, expected, atol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.filterwarnings("ignore")
def test_the_members_of_a_container_read_sums(name):
    estimator, target = CONTAINERS[name]
    fitted = make_pipeline(columns(), estimator).fit(FRAME, target)
    prepared = prepare(fitted, FRAME)
    assert prepared.features.width < 40
    assert fitted[-1].n_features_in_ > 100
    assert prepared.compiled.estimator_name == ("LogisticRegression" if name == "search" else type(estimator).__name__)


def test_a_million_buckets_become_one_column():
    fitted = make_pipeline(HashingVectorizer(), SGDClassifier(random_state=0)).fit(FRAME["body"], IS_SPORT)
    compiled = compile_pipeline(fitted, FRAME["body"])
    features = Pipeline(compiled.features("FP64")).transform(compiled.sample.on_the_wire())
    np.testing.assert_allclose(
        compiled.estimator.decision_function(features), fitted.decision_function(FRAME["body"]), atol=1e-12
    )
    assert features.shape == (ROWS, 1)


def test_a_forest_gets_the_columns_themselves():
    fitted = make_pipeline(TfidfVectorizer(), RandomForestClassifier(3, random_state=0)).fit(FRAME["body"], NAMES)
    compiled = compile_pipeline(fitted, FRAME["body"])
    features = Pipeline(compiled.features("FP64")).transform(compiled.sample.on_the_wire())
    np.testing.assert_allclose(features, fitted[0].transform(FRAME["body"]).toarray(), atol=1e-12)
    assert compiled.estimator is fitted[-1]


def test_xgboost_takes_what_a_sparse_matrix_does_not_hold_for_missing():
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=2, max_depth=2)
    fitted = make_pipeline(CountVectorizer(), model).fit(FRAME["body"], TOPIC)
    compiled = compile_pipeline(fitted, FRAME["body"])
    features = Pipeline(compiled.features("FP64")).transform(compiled.sample.on_the_wire())
    counts = fitted[0].transform(FRAME["body"]).toarray()
    np.testing.assert_array_equal(features, np.where(counts == 0, np.nan, counts))


def test_what_needs_more_columns_than_there_may_be_is_refused():
    fitted = make_pipeline(HashingVectorizer(), RandomForestClassifier(2, max_depth=1)).fit(FRAME["body"], NAMES)
    with pytest.raises(
        UnsupportedError, match=r"RandomForestClassifier cannot be published: the text 'body' has 1,048,576 columns"
    ):
        compile_pipeline(fitted, FRAME["body"])
