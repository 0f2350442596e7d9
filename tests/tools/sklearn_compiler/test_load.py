"""Pipelines and samples from files: what loads, what is asked first, and what is refused."""

from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - names the imputer below
from sklearn.feature_selection import SelectKBest, chi2, f_classif, mutual_info_classif
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LogisticRegression, TweedieRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, SplineTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from penstock_server.errors import InvalidInputError, UnsupportedError
from penstock_tools.functions import cyclical
from penstock_tools.sklearn_compiler.load import load_pipeline, read_sample, with_labels


@pytest.fixture(scope="module")
def pipeline():
    rows = np.random.default_rng(0).normal(size=(60, 2))
    around = FunctionTransformer(cyclical, kw_args={"period": 24.0})
    return make_pipeline(StandardScaler(), SplineTransformer(), around, LogisticRegression()).fit(rows, rows[:, 0] > 0)


def never(warning):
    raise AssertionError(warning)


def test_a_skops_file_of_known_types_asks_nothing(pipeline, tmp_path):
    skops.io.dump(pipeline, tmp_path / "p.skops")
    rows = np.random.default_rng(1).normal(size=(9, 2))
    np.testing.assert_array_equal(load_pipeline(tmp_path / "p.skops", never).predict(rows), pipeline.predict(rows))


@pytest.mark.parametrize("score", [f_classif, chi2, mutual_info_classif])
def test_scores_of_selectors_and_losses_are_harmless(score, tmp_path):
    rows = np.abs(np.random.default_rng(0).normal(size=(60, 3)))
    fitted = make_pipeline(IterativeImputer(), SelectKBest(score, k=2), TweedieRegressor()).fit(rows, rows[:, 0] > 1)
    skops.io.dump(fitted, tmp_path / "p.skops")
    np.testing.assert_array_equal(load_pipeline(tmp_path / "p.skops", never).predict(rows), fitted.predict(rows))


class Own(StandardScaler):
    """A class that nobody knows to be harmless."""


def test_unknown_types_in_a_skops_file_are_named_and_asked_for(tmp_path):
    asked = []
    fitted = make_pipeline(Own(), DecisionTreeClassifier()).fit([[0.0], [1.0]], [0, 1])
    skops.io.dump(fitted, tmp_path / "p.skops")
    loaded = load_pipeline(tmp_path / "p.skops", lambda text: not asked.append(text))
    assert loaded.predict([[1.0]]) == [1]
    named = f"sklearn.tree._tree.Tree, {Own.__module__}.Own"
    assert asked[0].endswith(f"holds types that are not known to be harmless: {named}.")
    with pytest.raises(InvalidInputError, match=f"was not loaded: it holds {named}; --trust loads it all the same"):
        load_pipeline(tmp_path / "p.skops", lambda _: False)


def test_functions_with_arguments_are_harmless_where_the_function_is(tmp_path):
    fitted = FunctionTransformer(partial(np.clip, a_min=0, a_max=2)).fit([[3.0]])
    skops.io.dump(fitted, tmp_path / "p.skops")
    assert load_pipeline(tmp_path / "p.skops", never).transform([[3.0]]) == [[2.0]]
    skops.io.dump(FunctionTransformer(partial(np.save, "harm.npy")).fit([[3.0]]), tmp_path / "p.skops")
    with pytest.raises(InvalidInputError, match=r"it holds numpy\.save; --trust"):
        load_pipeline(tmp_path / "p.skops", lambda _: False)


@pytest.mark.parametrize("suffix", [".joblib", ".pkl"])
def test_a_pickle_is_asked_for_before_it_is_opened(pipeline, tmp_path, suffix):
    class Harm:
        def __reduce__(self):
            return (np.save, (str(tmp_path / "harm.npy"), 1))

    joblib.dump(Harm(), tmp_path / f"p{suffix}")
    with pytest.raises(InvalidInputError, match="was not loaded: that would run its code"):
        load_pipeline(tmp_path / f"p{suffix}", lambda _: False)
    assert not (tmp_path / "harm.npy").exists()
    joblib.dump(pipeline, tmp_path / f"p{suffix}")
    asked = []
    load_pipeline(tmp_path / f"p{suffix}", lambda text: not asked.append(text))
    assert "runs any code that the file holds" in asked[0]


def test_files_that_are_no_pipelines(tmp_path):
    (tmp_path / "p.skops").write_bytes(b"nonsense")
    (tmp_path / "p.joblib").write_bytes(b"nonsense")
    joblib.dump({"a": 1}, tmp_path / "dict.joblib")
    for name, message in {
        "p.skops": "is no skops file",
        "p.joblib": "p.joblib does not load: ",
        "dict.joblib": "holds a dict, expected a fitted scikit-learn pipeline",
        "p.txt": r"is no pipeline; expected one of \.joblib, \.pickle, \.pkl, \.skops",
        "none.skops": "there is no file",
    }.items():
        with pytest.raises(InvalidInputError, match=message):
            load_pipeline(tmp_path / name, lambda _: True)


def test_a_module_that_is_not_installed_is_named(tmp_path):
    (tmp_path / "p.pkl").write_bytes(b"cnot_a_module\nThing\n.")
    with pytest.raises(UnsupportedError, match="needs the module not_a_module"):
        load_pipeline(tmp_path / "p.pkl", lambda _: True)


def test_samples_are_read_by_their_suffix(tmp_path):
    frame = pd.DataFrame({"a": [1.5, np.nan], "s": ["x", None], "truth": [0, 1]})
    frame.to_csv(tmp_path / "s.csv", index=False)
    frame.to_parquet(tmp_path / "s.parquet")
    for suffix in ("csv", "parquet"):
        rows, labels = with_labels(read_sample(tmp_path / f"s.{suffix}"), "truth")
        assert list(rows.columns) == ["a", "s"]
        assert rows["s"].isna().tolist() == [False, True]
        assert labels.tolist() == [0, 1]


def test_samples_that_are_none(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("a,b\n")
    (tmp_path / "bytes.parquet").write_bytes(b"nonsense")
    for name, message in {
        "empty.csv": "does not read as csv",
        "head.csv": "holds no rows",
        "bytes.parquet": "does not read as parquet",
        "s.txt": "expected .csv or .parquet",
        "none.csv": "there is no file",
    }.items():
        with pytest.raises(InvalidInputError, match=message):
            read_sample(tmp_path / name)
    with pytest.raises(InvalidInputError, match="has no column 'truth'; it has a"):
        with_labels(pd.DataFrame({"a": [1]}), "truth")
