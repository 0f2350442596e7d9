"""Each transformer of feature_engine with its options, compiled, against the transformer itself."""

import numpy as np
import pandas as pd
import pytest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the next import work
from sklearn.feature_selection import SelectKBest
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, PolynomialFeatures, StandardScaler

from penstock_server.errors import InvalidInputError, UnsupportedError
from penstock_server.features.pipeline import Pipeline
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler.compiler import compile_pipeline
from penstock_tools.sklearn_compiler.sample import pipeline_sample

pytest.importorskip("feature_engine")
from feature_engine import (
    creation,
    discretisation,
    encoding,
    imputation,
    outliers,
    preprocessing,
    scaling,
    selection,
    transformation,
)
from feature_engine.datetime import DatetimeFeatures
from feature_engine.pipeline import Pipeline as EnginePipeline
from feature_engine.wrappers import SklearnTransformerWrapper

ROWS = 80
ANSWERS = pd.Series((np.arange(ROWS) % 3 > 0).astype(int))
NUMBERS = ["fare", "age", "share"]
TEXTS = ["city", "deck"]


def frame(missing="Z"):
    """Numbers, some with gaps, and text in two columns."""
    draw = np.random.default_rng(5)
    city = draw.choice(["Oslo", "Rome", "Łódź", "Bern"], ROWS, p=[0.5, 0.3, 0.15, 0.05]).astype(object)
    deck = draw.choice(["A", "B", "C"], ROWS).astype(object)
    deck[::7] = missing
    return pd.DataFrame(
        {
            "fare": draw.lognormal(size=ROWS),
            "city": city,
            "age": draw.normal(40, 10, ROWS).round(1),
            "class": draw.choice([1, 2, 3], ROWS),
            "deck": deck,
            "share": draw.uniform(0.01, 0.99, ROWS),
        }
    )


def gaps(rows):
    holed = rows[[*NUMBERS, "class"]].astype(float)
    for at, name in enumerate(holed):
        holed.loc[at :: 5 + at, name] = np.nan
    return holed


IMPUTERS = {
    "mean": imputation.MeanMedianImputer("mean"),
    "median of some": imputation.MeanMedianImputer("median", variables=["age", "class"]),
    "a number": imputation.ArbitraryNumberImputer(-7, variables=["fare"]),
    "numbers by name": imputation.ArbitraryNumberImputer(imputer_dict={"share": 0.5, "fare": 1}),
    "end of the tail": imputation.EndTailImputer(),
    "end of the left tail": imputation.EndTailImputer("iqr", tail="left", variables=["age"]),
    "largest": imputation.EndTailImputer("max"),
    "indicators": imputation.AddMissingIndicator(),
    "indicators of some": imputation.AddMissingIndicator(variables=["share", "fare"]),
    "filled with indicators": make_pipeline(imputation.AddMissingIndicator(), imputation.MeanMedianImputer()),
}


@pytest.mark.parametrize("imputer", IMPUTERS.values(), ids=IMPUTERS)
def test_imputers_of_numbers(imputer, assert_equal):
    rows = gaps(frame())
    fitted = imputer.fit(rows)
    assert_equal(fitted, rows)
    assert_equal(fitted, rows, pd.DataFrame([[np.nan] * 4, [1.5, np.nan, 0.0, 2.0]], columns=rows.columns))


EXACT = {
    "reciprocal": transformation.ReciprocalTransformer(variables=["age"]),
    "mean normalised": scaling.MeanNormalizationScaler(),
    "winsorised": outliers.Winsorizer(tail="both", fold=1, variables=["age", "fare"]),
    "winsorised with indicators": outliers.Winsorizer("iqr", tail="both", fold=0.5, add_indicators=True),
    "winsorised below, with indicators": outliers.Winsorizer("quantiles", tail="left", fold=0.1, add_indicators=True),
    "capped": outliers.ArbitraryOutlierCapper({"age": 45, "fare": 1.5}, {"age": 0, "share": 0.3}),
    "bins of equal width": discretisation.EqualWidthDiscretiser(bins=4),
    "bins of equal frequency": discretisation.EqualFrequencyDiscretiser(q=5, variables=["fare", "age"]),
    "bins as objects": discretisation.EqualFrequencyDiscretiser(q=3, return_object=True),
    "bins of geometric width": discretisation.GeometricWidthDiscretiser(bins=4),
    "bins given": discretisation.ArbitraryDiscretiser({"age": [20, 30, 40.0, 50], "share": [-np.inf, 0.5, 1]}),
    "bins of a tree": discretisation.DecisionTreeDiscretiser(regression=False, random_state=0),
    "bins of a tree, rounded": discretisation.DecisionTreeDiscretiser(regression=False, precision=2, variables=["age"]),
    "bins of a tree, numbered": discretisation.DecisionTreeDiscretiser(
        bin_output="bin_number", regression=False, precision=3
    ),
    "dropped": selection.DropFeatures(["age", "class"]),
    "constant dropped": selection.DropConstantFeatures(tol=0.4),
    "correlated dropped": selection.SmartCorrelatedSelection(threshold=0.01),
    "matched": preprocessing.MatchVariables(),
    "relative": creation.RelativeFeatures(["age", "fare"], ["share", "class"], ["add", "sub", "mul", "div", "truediv"]),
    "relative, dropped": creation.RelativeFeatures(["age"], ["class"], ["floordiv", "mod"], drop_original=True),
    "relative, zeros filled": creation.RelativeFeatures(["age"], ["fare"], ["div", "mod"], fill_value=-1),
    "smallest and largest": creation.MathFeatures(["age", "fare", "class"], func=["min", "max", "count"]),
    "trees of columns": creation.DecisionTreeFeatures(["age", "fare"], regression=False, random_state=0),
    "trees of columns, chosen": creation.DecisionTreeFeatures(
        features_to_combine=2, precision=2, regression=False, random_state=0, drop_original=True
    ),
    "wrapped scaler": SklearnTransformerWrapper(StandardScaler(), variables=["age", "share"]),
    "wrapped polynomial": SklearnTransformerWrapper(PolynomialFeatures(2), variables=["age", "fare"]),
    "wrapped selector": SklearnTransformerWrapper(SelectKBest(k=1), variables=["age", "fare"]),
    "wrapped bins": SklearnTransformerWrapper(KBinsDiscretizer(3, encode="ordinal")),
}
NEAR = {
    "log": (transformation.LogTransformer(), 4),
    "log10": (transformation.LogTransformer(base="10", variables=["fare"]), 4),
    "log of a sum": (transformation.LogCpTransformer(variables=["age", "fare"]), 4),
    "log of sums by name": (transformation.LogCpTransformer(C={"share": 1.0, "age": 2}, base="10"), 4),
    "log of a given sum": (transformation.LogCpTransformer(C=3.5), 4),
    "a fraction as exponent": (transformation.PowerTransformer(exp=0.3), 4),
    "cubed": (transformation.PowerTransformer(exp=3, variables=["age", "fare"]), 4),
    "square root": (transformation.PowerTransformer(variables=["fare"]), 4),
    "box-cox": (transformation.BoxCoxTransformer(), 1 << 8),
    "yeo-johnson": (transformation.YeoJohnsonTransformer(), 1 << 8),
    "arcsin": (transformation.ArcsinTransformer(variables=["share"]), 4),
    "arcsinh": (transformation.ArcSinhTransformer(loc=2, scale=3.5), 4),
    "sums and means": (creation.MathFeatures(NUMBERS, func=["sum", "mean", "std", "var", "prod"]), 8),
    "numpy's sums": (creation.MathFeatures(NUMBERS, func=[np.sum, np.std], new_variables_names=["a", "b"]), 8),
    "one sum, others dropped": (creation.MathFeatures(["age", "fare"], "sum", drop_original=True), 4),
    "relative power": (creation.RelativeFeatures(["fare"], ["share"], ["pow"]), 4),
    "great circle": (creation.GeoDistanceFeatures("fare", "age", "share", "class"), 1 << 8),
    "flat distance": (creation.GeoDistanceFeatures("fare", "age", "share", "class", "euclidean", "miles"), 8),
    "blocks": (creation.GeoDistanceFeatures("fare", "age", "share", "class", "manhattan", drop_original=True), 8),
    "cyclical": (creation.CyclicalFeatures(variables=["class", "age"]), 8),
    "cyclical, originals dropped": (creation.CyclicalFeatures(max_values={"class": 12}, drop_original=True), 8),
}


@pytest.mark.long
@pytest.mark.parametrize("transformer", EXACT.values(), ids=EXACT)
def test_numbers_are_equal_to_the_last_bit(transformer, assert_equal):
    rows = frame()[[*NUMBERS, "class"]].astype(float)
    fitted = transformer.fit(rows, ANSWERS)
    assert_equal(fitted, rows)
    assert_equal(fitted, rows, rows.iloc[[3]])
    assert_equal(fitted, rows, rows * 3 + 1e-9)
    assert_equal(fitted, rows, pd.DataFrame(np.repeat(_edges(fitted)[:, None], 4, 1), columns=rows.columns))


def _edges(transformer):
    """Numbers where pieces meet, and their neighbours, or some numbers."""
    given = getattr(transformer, "binner_dict_", {}).values()
    found = [x for each in given for x in (each if isinstance(each, list) else each.best_estimator_.tree_.threshold)]
    edges = np.array([x for x in found if np.isfinite(x) and x > 0] or [0.5, 1.0, 30.0])
    near = edges.astype(np.float32).astype(float)
    middles = (near + np.nextafter(edges.astype(np.float32), np.float32(np.inf)).astype(float)) / 2
    around = [
        edges,
        near,
        middles,
        *(np.nextafter(each, side) for each in (edges, near, middles) for side in (0, np.inf)),
    ]
    return np.concatenate(around)


@pytest.mark.long
@pytest.mark.parametrize(("transformer", "ulps"), NEAR.values(), ids=NEAR)
def test_curves_are_equal_to_some_last_places(transformer, ulps, assert_equal):
    rows = frame()[[*NUMBERS, "class"]].astype(float)
    fitted = transformer.fit(rows)
    assert_equal(fitted, rows, ulps=ulps)
    assert_equal(fitted, rows, rows.iloc[[3]], ulps=ulps)


DOMAINS = {
    "log of 0": (transformation.LogTransformer(), 0.0),
    "log of a sum below 0": (transformation.LogCpTransformer(C=1), -1.5),
    "reciprocal of 0": (transformation.ReciprocalTransformer(), 0.0),
    "box-cox of 0": (transformation.BoxCoxTransformer(), 0.0),
    "arcsin of 2": (transformation.ArcsinTransformer(), 2.0),
    "missing": (scaling.MeanNormalizationScaler(), np.nan),
    "infinite": (discretisation.EqualWidthDiscretiser(), np.inf),
    "in no bin": (discretisation.ArbitraryDiscretiser({"share": [0, 0.5, 1], "age": [0, 1]}, errors="raise"), 1.5),
    "missing in a sum": (creation.MathFeatures(["share", "age"], "sum"), np.nan),
    "division by 0": (creation.RelativeFeatures(["age"], ["share"], ["div"]), 0.0),
}


@pytest.mark.parametrize(("transformer", "value"), DOMAINS.values(), ids=DOMAINS)
def test_what_it_refuses_is_refused(transformer, value):
    rows = frame()[["share"]].assign(age=0.5 + frame()["share"] / 4)
    fitted = transformer.fit(rows)
    asked = rows.head(3).copy()
    asked.iloc[1, 0] = value
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        fitted.transform(asked)
    compiled = Pipeline(compile_pipeline(fitted, rows).features("FP64"))
    with pytest.raises(InvalidInputError):
        compiled.transform({name: asked[name].to_numpy() for name in asked})


def test_what_is_missing_is_left_out_of_sums(assert_equal):
    rows = gaps(frame())
    functions = ["sum", "mean", "min", "max", "prod", "std", "var", "count"]
    fitted = creation.MathFeatures(NUMBERS, func=functions, missing_values="ignore").fit(rows)
    assert_equal(fitted, rows, ulps=8)
    assert_equal(fitted, rows, pd.DataFrame([[np.nan] * 4, [1.5, np.nan, np.nan, 2.0]], columns=rows.columns), ulps=8)


def test_a_power_of_zero_and_of_negative_numbers(assert_equal):
    rows = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    asked = pd.DataFrame({"a": [0.0, -1.0, 5.0], "b": [-0.0, 1e9, 2.0]})
    with np.errstate(all="ignore"):
        for exponent in (0.3, -0.3, 0.5, -1):
            fitted = transformation.PowerTransformer(exp=exponent).fit(rows)
            assert_equal(fitted, rows, asked if exponent > 0 else asked.abs() + 0.5, ulps=16)


ENCODERS = {
    "one-hot": encoding.OneHotEncoder(),
    "one-hot, last dropped": encoding.OneHotEncoder(drop_last=True),
    "one-hot, last of two dropped": encoding.OneHotEncoder(drop_last_binary=True),
    "one-hot, top": encoding.OneHotEncoder(top_categories=2),
    "one-hot, numbers too": encoding.OneHotEncoder(variables=[*TEXTS, "class"], ignore_format=True),
    "ordinal": encoding.OrdinalEncoder(),
    "ordinal, arbitrary": encoding.OrdinalEncoder("arbitrary", unseen="encode"),
    "ordinal, missing ignored": encoding.OrdinalEncoder(missing_values="ignore"),
    "ordinal, missing encoded": encoding.OrdinalEncoder(missing_values="ignore", unseen="encode"),
    "ordinal, refusing": encoding.OrdinalEncoder(unseen="raise"),
    "count": encoding.CountFrequencyEncoder(unseen="encode"),
    "frequency": encoding.CountFrequencyEncoder("frequency", missing_values="ignore"),
    "mean": encoding.MeanEncoder(),
    "mean, smooth": encoding.MeanEncoder(smoothing="auto", unseen="encode", missing_values="ignore"),
    "weight of evidence": encoding.WoEEncoder(fill_value=0.01),
    "tree": encoding.DecisionTreeEncoder(regression=False, random_state=0),
    "tree, rounded": encoding.DecisionTreeEncoder(
        "ordered", regression=False, precision=1, unseen="encode", fill_value=-1
    ),
    "rare, one-hot": make_pipeline(encoding.RareLabelEncoder(0.1, 2), encoding.OneHotEncoder()),
    "rare, ordinal of scikit-learn": make_pipeline(
        encoding.RareLabelEncoder(0.1, 2, replace_with="rest", variables=TEXTS),
        SklearnTransformerWrapper(OrdinalEncoder(), variables=TEXTS),
    ),
    "rare, missing stays": make_pipeline(
        encoding.RareLabelEncoder(0.1, 2, missing_values="ignore"),
        encoding.OrdinalEncoder("arbitrary", missing_values="ignore", unseen="encode"),
    ),
    "rare, one-hot of scikit-learn": make_pipeline(
        encoding.RareLabelEncoder(0.1, 2, max_n_categories=1, missing_values="ignore"),
        SklearnTransformerWrapper(OneHotEncoder(sparse_output=False, handle_unknown="ignore"), variables=TEXTS),
    ),
    "rare, indicators": make_pipeline(
        encoding.RareLabelEncoder(0.1, 2, missing_values="ignore"),
        imputation.AddMissingIndicator(missing_only=False),
        encoding.CountFrequencyEncoder(missing_values="ignore", unseen="encode"),
    ),
    "matched": make_pipeline(
        preprocessing.MatchCategories(missing_values="ignore"),
        encoding.OrdinalEncoder("arbitrary", missing_values="ignore", unseen="encode"),
    ),
    "matched, then filled": make_pipeline(
        preprocessing.MatchCategories(missing_values="ignore"),
        imputation.CategoricalImputer(),
        encoding.OneHotEncoder(),
    ),
    "filled": make_pipeline(imputation.CategoricalImputer(), encoding.OneHotEncoder()),
    "filled with the most frequent": make_pipeline(
        imputation.CategoricalImputer("frequent", variables=["deck"]), encoding.OrdinalEncoder(unseen="encode")
    ),
    "filled, rare, counted": make_pipeline(
        imputation.CategoricalImputer(fill_value="none"),
        encoding.RareLabelEncoder(0.2, 1),
        encoding.CountFrequencyEncoder(),
        StandardScaler(),
    ),
    "filled by scikit-learn": make_pipeline(
        SklearnTransformerWrapper(SimpleImputer(strategy="constant", fill_value="none"), variables=TEXTS),
        encoding.MeanEncoder(unseen="encode"),
    ),
}
QUESTIONS = {
    "seen": {"city": "Rome", "deck": "B"},
    "seen and rare": {"city": "Bern", "deck": "C"},
    "unseen": {"city": "Paris", "deck": "A"},
    "missing": {"city": "Oslo", "deck": np.nan},
    "missing where none was": {"city": np.nan, "deck": "C"},
    "unseen and missing": {"city": "~", "deck": np.nan},
}


def wire_of(columns, rows):
    return {
        column.name: ["" if pd.isna(value) else value for value in rows[column.name]]
        if column.is_text
        else rows[column.name].to_numpy(float)
        for column in columns
    }


@pytest.mark.long
@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_encoders_answer_as_they_do(encoder):
    rows = frame()
    rows["deck"] = rows["deck"].where(rows["deck"] != "Z", np.nan)
    try:
        fitted = encoder.fit(rows, ANSWERS)
    except ValueError:
        # It takes no missing values.
        rows = frame()
        fitted = encoder.fit(rows, ANSWERS)
    columns = pipeline_sample(fitted, rows).columns
    compiled = Pipeline(compile_pipeline(fitted, rows).features("FP64"))
    np.testing.assert_array_equal(compiled.transform(wire_of(columns, rows)), np.asarray(fitted.transform(rows), float))
    for name, question in QUESTIONS.items():
        row = rows.head(1).astype(object).assign(**question).astype({**dict.fromkeys(NUMBERS, float), "class": int})
        row = row.astype(dict.fromkeys(TEXTS, object))
        try:
            expected = np.asarray(fitted.transform(row), float)
        except ValueError:
            if name == "unseen":
                with pytest.raises(InvalidInputError):
                    compiled.transform(wire_of(columns, row))
            continue
        np.testing.assert_array_equal(compiled.transform(wire_of(columns, row)), expected, err_msg=name)


@pytest.mark.filterwarnings("ignore")
def test_its_own_pipeline_and_what_the_graph_computes_in_its_wrapper():
    rows = gaps(frame()).assign(city=frame()["city"])
    pipeline = EnginePipeline(
        [
            ("fill", SklearnTransformerWrapper(IterativeImputer(max_iter=3), variables=["age", "share"])),
            ("others", imputation.MeanMedianImputer(variables=["fare", "class"])),
            ("city", encoding.OneHotEncoder()),
            ("model", Ridge()),
        ]
    ).fit(rows, ANSWERS)
    assert prepare(pipeline, rows).difference < 1e-5


REFUSED = {
    "drops rows": (imputation.DropMissingData(), "it drops rows"),
    "trims rows": (outliers.OutlierTrimmer(), "it drops rows"),
    "draws": (imputation.RandomSampleImputer(), "drawn by chance"),
    "compares": (encoding.StringSimilarityEncoder(), "letter by letter"),
    "ranges as text": (discretisation.EqualWidthDiscretiser(return_boundaries=True), "texts of ranges"),
    "ranges of a tree as text": (
        discretisation.DecisionTreeDiscretiser(bin_output="boundaries", precision=2, regression=False),
        "texts of ranges",
    ),
    "a function of its own": (
        creation.MathFeatures(["age", "fare"], func=["sum", "skew"]),
        "the function skew is not one",
    ),
    "numbers become text": (
        encoding.RareLabelEncoder(0.4, 1, variables=["class"], ignore_format=True),
        "text of numbers",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(("transformer", "message"), REFUSED.values(), ids=REFUSED)
def test_what_neither_side_can_compute_is_refused(transformer, message):
    rows = frame() if isinstance(transformer, encoding.StringSimilarityEncoder) else frame()[[*NUMBERS, "class"]]
    with pytest.raises(UnsupportedError, match=message):
        compile_pipeline(transformer.fit(rows, ANSWERS), rows)


def test_categories_that_matching_makes_missing_are_refused():
    rows = frame().astype({"city": "category"})
    fitted = make_pipeline(preprocessing.MatchVariables(match_dtypes=True), encoding.OneHotEncoder()).fit(rows)
    with pytest.raises(UnsupportedError, match="MatchCategories works"):
        compile_pipeline(fitted, rows)


def times():
    """Times around ends of months, quarters and years, and numbers."""
    draw = np.random.default_rng(2)
    seconds = draw.integers(0, 3_000_000_000, 200)
    ends = pd.to_datetime(
        ["2000-02-29 23:59:59", "1999-12-31", "2024-01-01 00:00:01", "2023-03-31 12:00", "1970-01-04"], format="ISO8601"
    )
    moments = pd.Series([*pd.to_datetime(seconds, unit="s"), *ends])
    return pd.DataFrame({"fare": draw.normal(size=len(moments)), "when": moments, "since": moments[::-1].to_numpy()})


CALENDARS = {
    "as it comes": DatetimeFeatures(),
    "everything": DatetimeFeatures(features_to_extract="all"),
    "some of one": DatetimeFeatures("when", ["hour", "weekend"], drop_original=False),
    "missing ignored": DatetimeFeatures(features_to_extract=["month", "semester", "year_end"], missing_values="ignore"),
}


@pytest.mark.parametrize("features", CALENDARS.values(), ids=CALENDARS)
def test_times_become_parts_of_the_calendar(features):
    rows = times() if features.drop_original else times().drop(columns="since")
    model = make_pipeline(features, selection.DropFeatures(["when"])) if not features.drop_original else features
    fitted = model.fit(rows)
    compiled = Pipeline(compile_pipeline(fitted, rows).features("FP64"))
    wire = pipeline_sample(fitted, rows).on_the_wire()
    np.testing.assert_array_equal(compiled.transform(wire), np.asarray(fitted.transform(rows), float))


@pytest.mark.parametrize("missing", ["raise", "ignore"])
def test_a_missing_time_is_what_it_is_there(missing):
    rows = times()[["fare", "when"]]
    fitted = DatetimeFeatures(features_to_extract=["year", "weekend", "leap_year"], missing_values=missing).fit(rows)
    compiled = Pipeline(compile_pipeline(fitted, rows).features("FP64"))
    holed = rows.head(3).assign(when=[rows["when"][0], pd.NaT, rows["when"][2]])
    wire = pipeline_sample(fitted, holed).on_the_wire()
    if missing == "ignore":
        np.testing.assert_array_equal(compiled.transform(wire), np.asarray(fitted.transform(holed), float))
    else:
        with pytest.raises(InvalidInputError):
            compiled.transform(wire)
