"""Functions as people write them: what is traced gives what the function gives, and what is not says why."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from penstock_server.errors import UnsupportedError
from penstock_tools.publish.pipeline import prepare

RANDOM = np.random.default_rng(0)
ROWS = 80


def _frame() -> pd.DataFrame:
    start = pd.Timestamp("2019-12-20T22:10:05").value
    when = pd.Series(pd.to_datetime(start + RANDOM.integers(0, 10**17, ROWS)))
    frame = pd.DataFrame({
        "age": RANDOM.uniform(0, 90, ROWS).round(1),
        "fare": RANDOM.lognormal(2, 1, ROWS),
        "sibs": RANDOM.integers(0, 6, ROWS),
        "parch": RANDOM.integers(0, 4, ROWS),
        "sex": RANDOM.choice(["male", "female"], ROWS).astype(object),
        "port": RANDOM.choice(["S", "C", "Q"], ROWS).astype(object),
        "member": RANDOM.random(ROWS) < 0.5,
        "when": when,
        "until": when + pd.to_timedelta(RANDOM.integers(-(10**15), 10**15, ROWS)),
    })  # fmt: skip
    frame.loc[::7, "age"] = np.nan
    frame.loc[::11, "port"] = None
    frame.loc[::13, "until"] = pd.NaT
    return frame


FRAME = _frame()
NUMBERS = FRAME[["age", "fare", "sibs", "parch"]]


def family(frame: pd.DataFrame) -> pd.DataFrame:
    out = frame.copy()
    out["size"] = out["sibs"] + out["parch"] + 1
    out["alone"] = (out["size"] == 1).astype(int)
    out.loc[out["fare"] > 20, "fare"] = 20
    return out[["size", "alone", "fare"]]


def interactions(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(
        ratio=frame.fare / (frame.sibs + 1),
        both=lambda d: d["ratio"] * d["age"],
        log=np.log1p(frame["fare"]),
        capped=frame["fare"].clip(upper=30),
    ).drop(columns=["sex", "port", "when", "until", "member"])


def bucket(age: float) -> int:
    if age < 12:
        return 0
    if age < 18:
        return 1
    return 2 if age < 65 else 3


def haversine(x: np.ndarray) -> np.ndarray:
    x = np.radians(np.asarray(x, float))
    a = np.sin((x[:, 2] - x[:, 0]) / 2) ** 2 + np.cos(x[:, 0]) * np.cos(x[:, 2]) * np.sin((x[:, 3] - x[:, 1]) / 2) ** 2
    return (2 * 6371 * np.arcsin(np.sqrt(np.clip(a, 0, 1)))).reshape(-1, 1)


def unpacked(x: np.ndarray) -> np.ndarray:
    a, b, c, d = np.asarray(x).T
    return np.column_stack([a + b, np.hypot(c, d), np.arctan2(a, b)])


def in_place(x: np.ndarray) -> np.ndarray:
    x = x.to_numpy().copy() if hasattr(x, "to_numpy") else x.copy()
    x[:, 1] = np.log(x[:, 1])
    x[x[:, 2] > 3, 2] = 3
    return x[:, [1, 2]]


def parts_of_time(frame: pd.DataFrame) -> pd.DataFrame:
    when = frame["when"].dt
    return pd.DataFrame(
        {
            "hour": when.hour,
            "weekend": (when.dayofweek >= 5).astype(int),
            "sin": np.sin(2 * np.pi * when.hour / 24),
            "end": when.is_month_end,
            "week": when.isocalendar().week.astype(int),
            "late": frame["when"] > pd.Timestamp("2021-01-01"),
        },
        index=frame.index,
    )


def durations(frame: pd.DataFrame) -> pd.DataFrame:
    gap = frame["until"] - frame["when"]
    return pd.DataFrame(
        {
            "days": gap.dt.days,
            "seconds": gap.dt.seconds,
            "hours": gap.dt.total_seconds() / 3600,
            "age": (pd.Timestamp("2030-01-01") - frame["when"]).dt.days,
            "weeks": gap / pd.Timedelta(days=7),
        }
    )


def folded(frame: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame()
    out["sum"] = frame[["age", "fare"]].sum(axis=1)
    out["mean"] = frame[["age", "fare", "sibs"]].mean(axis=1)
    out["max"] = frame[["age", "fare"]].max(axis=1)
    out["missing"] = frame[["age", "fare"]].isna().sum(axis=1)
    out["std"] = frame[["age", "fare", "sibs"]].std(axis=1)
    out["any"] = frame[["sibs", "parch"]].any(axis=1)
    return out


def of_rows(row: pd.Series) -> float:
    return row["fare"] * 2 if row["sibs"] > 2 else row["age"]


TRACED: dict[str, Any] = {
    "family": (family, FRAME),
    "interactions": (interactions, FRAME),
    "haversine": (haversine, NUMBERS),
    "unpacked": (unpacked, NUMBERS),
    "in place": (in_place, NUMBERS),
    "in place of an array": (in_place, NUMBERS.to_numpy()),
    "parts of time": (parts_of_time, FRAME),
    "durations": (durations, FRAME),
    "over columns": (folded, FRAME),
    "values": (lambda f: f[["age", "sibs"]].values, FRAME),
    "iloc": (lambda f: f.iloc[:, [0, 2]], FRAME),
    "loc": (lambda f: f.loc[:, "age":"sibs"], FRAME),
    "numbers alone": (lambda f: f.select_dtypes("number"), FRAME),
    "each column": (lambda f: f.apply(lambda c: np.log1p(c.abs())), NUMBERS),
    "each column by numpy": (lambda f: f.apply(np.sqrt), NUMBERS),
    "flags": (lambda f: (f > 1).astype(int), NUMBERS),
    "missing flags": (lambda f: f[["age", "port"]].isna().astype(int), FRAME),
    "dictionary of texts": (lambda f: f["sex"].map({"male": 0, "female": 1}).to_frame(), FRAME),
    "dictionary of some texts": (lambda f: f[["port"]].assign(port=f["port"].map({"S": 1.5}).fillna(-1)), FRAME),
    "dictionary of numbers": (lambda f: f["sibs"].map({0: 10, 1: 20}).to_frame(), FRAME),
    "is a text": (lambda f: pd.DataFrame({"a": (f.sex == "male").astype(float), "b": f["port"].isin(["S", "Q"])}), FRAME),
    "filled": (lambda f: f.fillna({"age": 30.0}), NUMBERS),
    "filled with training's": (lambda f: f.fillna(pd.Series({"age": 30.0, "fare": 1.0})), NUMBERS),
    "infinities": (lambda f: f.replace([np.inf, -np.inf], np.nan).fillna(0), NUMBERS),
    "where": (lambda f: np.where(f["age"] > 18, f["fare"], -1).reshape(-1, 1), NUMBERS),
    "select": (
        lambda f: np.select([f["age"] < 10, f["age"] < 60], [0, 1], default=2).reshape(-1, 1),
        NUMBERS,
    ),
    "series where": (lambda f: f["fare"].where(f["age"] > 20, 0).to_frame(), NUMBERS),
    "digitize": (lambda f: np.digitize(f[["age"]], [10, 20, 60]), NUMBERS),
    "cut": (lambda f: pd.cut(f["age"], [0, 12, 18, 100], labels=False).to_frame(), NUMBERS),
    "cut with open ends": (
        lambda f: pd.cut(f["age"], [-np.inf, 12, 18, np.inf], labels=[1, 2, 3]).astype(float).to_frame(),
        NUMBERS,
    ),
    "apply with conditions": (lambda f: f["age"].apply(bucket).to_frame(), NUMBERS),
    "apply a lambda": (lambda f: f[["sibs"]].assign(sibs=f["sibs"].apply(lambda v: 1 if v > 2 else 0)), NUMBERS),
    "each row": (lambda f: f.apply(of_rows, axis=1).to_frame(), NUMBERS),
    "vectorize": (lambda x: np.vectorize(bucket)(x[:, [0]]), NUMBERS.to_numpy()),
    "c_": (lambda x: np.c_[x, x[:, 1] / x[:, 0], np.ones(len(x))], NUMBERS.to_numpy()),
    "hstack": (lambda x: np.hstack([x[:, :2], np.square(x[:, 2:])]), NUMBERS.to_numpy()),
    "sums": (lambda x: np.stack([x.sum(axis=1), np.mean(x, axis=1), x.max(axis=1)], axis=1), NUMBERS.to_numpy()),
    "spread": (lambda x: x[:, 1:].std(axis=1).reshape(-1, 1), NUMBERS.to_numpy()),
    "norms": (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True), NUMBERS.to_numpy()),
    "nan": (lambda x: np.nan_to_num(x, nan=-1.0), NUMBERS.to_numpy()),
    "nanmean": (lambda x: np.nanmean(x, axis=1).reshape(-1, 1), NUMBERS.to_numpy()),
    "weights": (lambda x: x[:, 1:] @ np.array([[1.0, 0.5], [2.0, -1.0], [0.0, 3.0]]), NUMBERS.to_numpy()),
    "interp": (lambda x: np.interp(x[:, [1]], [0, 5, 20], [0, 1, 3]), NUMBERS.to_numpy()),
    "float32": (lambda x: (x.astype(np.float32) * np.float32(1.1)) + 1, NUMBERS.to_numpy()),
    "whole numbers": (lambda x: x[:, 1:].astype(int) // 2 + x[:, 1:].astype(int) % 3, NUMBERS.to_numpy()),
    "rounded": (lambda f: f.round(1), NUMBERS),
    "powers": (lambda f: np.c_[f["fare"] ** 2, f["fare"] ** 0.5, f["fare"] ** -1, f["fare"] ** 3], NUMBERS),
    "logistic": (lambda x: special.expit(x[:, 1:]), NUMBERS.to_numpy()),
    "concat": (lambda f: pd.concat([f[["age"]], np.log(f["fare"]).rename("log")], axis=1), NUMBERS),
    "frame of an array": (lambda f: pd.DataFrame(np.asarray(f) * 2, columns=f.columns).rename(columns=str.upper), NUMBERS),
    "checks first": (lambda f: f * 2 if not f["fare"].isnull().any() else f, NUMBERS),
    "booleans": (lambda f: (f["member"] & (f["sibs"] > 1)).astype(int).to_frame(), FRAME),
    "dense": (lambda x: x.toarray() if hasattr(x, "toarray") else x, NUMBERS.to_numpy()),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("function", "rows"), TRACED.values(), ids=TRACED)
def test_a_function_is_traced(assert_equal, function, rows):
    assert_equal(FunctionTransformer(function), rows, ulps=8)


ENDED: dict[str, tuple[Any, str]] = {
    "mean over rows": (lambda f: f - f.mean(), r"in line \d+ of <lambda>.*\.mean\(\) depends on the other rows"),
    "rank": (lambda f: f.rank(), r"\.rank\(\) depends on the other rows"),
    "mean of an array": (lambda f: f.to_numpy() / f.to_numpy().max(axis=0), "numpy.max over all rows depends on"),
    "if": (lambda f: f if f["age"] > 3 else -f, "asks one question of a whole column"),
    "rows": (lambda f: f[f["age"] > 3], "it picks rows"),
    "iteration": (lambda f: np.array([[v] for v in f["age"]]), "goes through the rows one by one"),
    "another column": (lambda f: f[["height"]], "reads the column 'height', which does not reach it"),
    "quantile bins": (lambda f: pd.qcut(f["age"], 3, labels=False).to_frame(), "pandas.qcut depends on the other rows"),
    "a number of rows": (lambda f: f / len(f), "gives a row alone something else than among others"),
    "position of the row": (lambda f: f + np.arange(len(f))[:, None], "another number in each row|not what was followed"),
    "unknown function": (lambda f: special.gamma(f.to_numpy()), "gamma is not among the functions"),
    "raises": (lambda f: f["age"].to_json(), r"\.to_json of a column, which Penstock does not follow"),
    "a constant": (lambda _: 3, "its function gives int, expected a frame or an array"),
    "text": (lambda f: f.astype(str), "whose text depends on how the frame holds them"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "message"), ENDED.values(), ids=ENDED)
def test_what_is_not_traced_says_which_line_does_what(function, message):
    model = make_pipeline(FunctionTransformer(function), LinearRegression())
    model.steps[-1] = ("lr", LinearRegression().fit(NUMBERS.fillna(0), RANDOM.random(ROWS)))
    with pytest.raises(UnsupportedError, match=message):
        prepare(model, NUMBERS)


def test_hours_of_a_zone_are_not_taken_for_those_of_utc():
    times = pd.Series(pd.date_range("2024-01-01", periods=ROWS, freq="h", tz="Europe/Oslo"))
    rows = pd.DataFrame({"at": times, "value": RANDOM.random(ROWS)})
    hours = FunctionTransformer(lambda f: pd.DataFrame({"hour": f["at"].dt.hour.astype(float), "value": f["value"]}))
    with pytest.raises(
        UnsupportedError, match=r"its function is not what was followed: column 'hour' is 0.0 and not 23.0"
    ):
        prepare(make_pipeline(hours, LinearRegression()).fit(rows, rows["value"]), rows)


CHOSEN: dict[str, Any] = {
    "cut": lambda f: pd.cut(f["age"], [0, 12, 60, 100], labels=["child", "adult", "old"]).astype(object).to_frame(),
    "where": lambda f: pd.DataFrame({"x": np.where(f["fare"] > 10, "dear", "cheap")}),
    "apply": lambda f: f["age"].apply(lambda v: "young" if v < 30 else "old").to_frame(),
    "grouped": lambda f: f["port"].map({"S": "far", "C": "near"}).to_frame(),
    "filled": lambda f: f[["port"]].fillna("S"),
    "replaced": lambda f: f[["port"]].replace({"Q": "other", "C": "other"}),
}


@pytest.mark.long
@pytest.mark.parametrize("function", CHOSEN.values(), ids=CHOSEN)
@pytest.mark.parametrize(
    "encoder", [OneHotEncoder(handle_unknown="ignore", sparse_output=False), OrdinalEncoder()], ids=["hot", "ordinal"]
)
def test_texts_that_a_function_chooses_are_encoded(assert_equal, function, encoder):
    assert_equal(make_pipeline(FunctionTransformer(function), encoder).fit(FRAME), FRAME)


class Selector(BaseEstimator, TransformerMixin):
    def __init__(self, names):
        self.names = names

    def fit(self, X, y=None):  # noqa: N803 - scikit-learn's name
        return self

    def transform(self, X):  # noqa: N803 - scikit-learn's name
        return X[self.names].values


class Capped(BaseEstimator, TransformerMixin):
    """Cuts each column at a share of training."""

    def fit(self, X, y=None):  # noqa: N803 - scikit-learn's name
        self.most_ = X.quantile(0.9)
        self.least_ = np.asarray(X.min())
        return self

    def transform(self, X):  # noqa: N803 - scikit-learn's name
        out = X.copy()
        for name in out.columns:
            out[name] = np.minimum(out[name], self.most_[name])
        return out - self.least_


def test_own_classes_are_traced_with_what_they_were_fitted_with(assert_equal):
    union = FeatureUnion([
        ("names", Selector(["fare", "sibs"])),
        ("capped", make_pipeline(FunctionTransformer(lambda f: f[["age", "fare"]]), Capped(), StandardScaler())),
    ])  # fmt: skip
    assert_equal(make_pipeline(union, StandardScaler()).fit(FRAME), FRAME, ulps=4)


def test_functions_behind_the_graph_and_around_the_target_are_written_into_it():
    from sklearn.compose import TransformedTargetRegressor

    rows = NUMBERS.fillna(1.0)
    own = FunctionTransformer(lambda z: np.c_[z, z[:, 0] * z[:, 1], np.where(z[:, 1] > 0, 1, np.abs(z[:, 0]))])
    inner = make_pipeline(StandardScaler(), PCA(2), own, LinearRegression())
    model = TransformedTargetRegressor(
        inner, func=np.arcsinh, inverse_func=lambda y: np.sinh(y) + 0 * y, check_inverse=False
    )
    prepared = prepare(model.fit(rows, rows["fare"] * 3 + rows["age"]), rows)
    assert prepared.difference < 1e-5
    assert any("FunctionTransformer" in place for place in prepared.compiled.in_graph)


def test_columns_by_one_name_reach_a_function_as_a_series(assert_equal):
    columns = make_column_transformer((FunctionTransformer(lambda s: np.log1p(s).to_frame()), "fare"))
    assert_equal(columns.fit(FRAME), FRAME, ulps=4)


PREPARED = {
    "lower": lambda f: f.apply(lambda c: c.str.lower()),
    "strip and upper": lambda f: f[["port"]].apply(lambda c: c.str.strip().str.upper()),
    "lower and dictionary": lambda f: f[["sex"]].assign(sex=f["sex"].str.upper().map({"MALE": "m", "FEMALE": "f"})),
}


@pytest.mark.parametrize("function", PREPARED.values(), ids=PREPARED)
def test_texts_are_prepared_before_an_encoder(assert_equal, function):
    rows = FRAME[["sex", "port"]].assign(sex=FRAME["sex"].where(FRAME.index % 2 == 0, FRAME["sex"].str.title()))
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    assert_equal(make_pipeline(FunctionTransformer(function), encoder).fit(rows), rows)


NAMES = pd.DataFrame(
    {"name": ["Mrs. J. Ö. Bradley", "Mr. Owen", "", "mr.", "Mr", "M r.", "Master  Mr.  J", "Dr. é", "x" * 99] * 6}
)
NAMES["name"] = NAMES["name"].mask(np.arange(len(NAMES)) % 9 == 2)

SEARCHES = {
    "a text": lambda f: f["name"].str.contains("Mr.", regex=False, na=False).astype(int).to_frame(),
    "several": lambda f: f["name"].str.contains("Mrs|Dr|é", na=False).astype(float).to_frame(),
    "what is missing counts": lambda f: f.assign(name=f["name"].str.contains("Owen", na=True)),
    "what is missing is filled": lambda f: f[["name"]].fillna("Mr").apply(lambda c: c.str.contains("Mr")),
    "lowered": lambda f: f["name"].str.lower().str.contains("mr", na=False).to_frame(),
    "a choice": lambda f: pd.DataFrame({"old": np.where(f["name"].str.contains("x" * 32, na=False), 2.5, 1.0)}),
}


@pytest.mark.long
@pytest.mark.parametrize("function", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("dtype", [object, "str"])
def test_texts_are_searched(assert_equal, function, dtype):
    rows = NAMES.astype({"name": dtype})
    assert_equal(FunctionTransformer(function).fit(rows), rows)


def test_a_missing_text_is_refused_where_the_function_refuses_it():
    """pandas makes NaN of it in a column of objects, which is no whole number; an empty text is searched like others."""
    found = FunctionTransformer(lambda f: f["name"].str.contains("Mr").astype(int).to_frame())
    rows = NAMES.dropna().astype({"name": object})
    model = make_pipeline(found, LinearRegression()).fit(rows, np.arange(len(rows)))
    assert [column.missing for column in prepare(model, rows).features.columns] == ["text"]


NOT_SEARCHED = {
    "any character": (lambda f: f["name"].str.contains("M.s", na=False).to_frame(), r"texts of up to 32 characters"),
    "white space": (
        lambda f: f["name"].str.contains("Mr. O", na=False, regex=False).to_frame(),
        r"without white space",
    ),
    "any case": (
        lambda f: f["name"].str.contains("mr", case=False, na=False).to_frame(),
        r"\.str\.lower\(\) before it compiles",
    ),
    "stripped": (lambda f: f["name"].str.strip().str.contains("Mr", na=False).to_frame(), r"after \.str\.strip"),
}


@pytest.mark.parametrize(("function", "reason"), NOT_SEARCHED.values(), ids=NOT_SEARCHED)
def test_other_searches_are_refused_with_what_works(function, reason):
    with pytest.raises(UnsupportedError, match=reason):
        prepare(FunctionTransformer(function).fit(NAMES), NAMES)
