"""The sentences with which publishing turns a pipeline or a sample away, word by word: each is read by somebody in a hurry.

A sentence names the step or the column, the reason, and what to do next. It is one line, and none is a library's own.
"""

from pathlib import Path

import category_encoders as ce
import numpy as np
import pandas as pd
import pytest
from feature_engine import creation, discretisation, imputation
from feature_engine import encoding as categories
from feature_engine.datetime import DatetimeFeatures
from lightgbm import LGBMRegressor
from sklearn.cluster import FeatureAgglomeration
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import NMF
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the next import work
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.manifold import Isomap
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
)
from sklearn.semi_supervised import LabelSpreading
from sklearn.tree import DecisionTreeClassifier

from penstock_server.errors import PenstockError
from penstock_tools.functions import cyclical
from penstock_tools.publish.pipeline import prepare, prepare_any
from penstock_tools.sklearn_compiler.compiler import compile_pipeline
from penstock_tools.sklearn_compiler.load import load_pipeline, read_sample, with_labels
from penstock_tools.sklearn_compiler.scoring import scores

FRAME = pd.DataFrame({"age": np.arange(40.0), "city": ["Oslo", "Rome"] * 20})
ANSWERS = np.arange(40) > 20


def fitted():
    columns = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["city"]))
    return make_pipeline(columns, LogisticRegression()).fit(FRAME, ANSWERS)


def on_arrays():
    return make_pipeline(SimpleImputer(), LogisticRegression()).fit(np.arange(80.0).reshape(40, 2), ANSWERS)


SENTENCES = {
    "not fitted": (
        lambda: compile_pipeline(make_pipeline(SimpleImputer(), LogisticRegression()), np.zeros((3, 2))),
        "the Pipeline is not fitted; call its fit before it is published",
    ),
    "labels left in": (
        lambda: compile_pipeline(on_arrays(), np.zeros((40, 3))),
        (
            "the sample has 3 columns, and the pipeline was fitted on 2; if one of them holds the labels, leave it out: "
            "--labels COLUMN does"
        ),
    ),
    "another name": (
        lambda: compile_pipeline(fitted(), FRAME.rename(columns={"city": "City"})),
        "the sample lacks column 'city'; did you mean 'City'?; the pipeline was fitted on age, city",
    ),
    "no rows": (
        lambda: compile_pipeline(fitted(), FRAME.head(0)),
        "the sample has no rows; expected one at least",
    ),
    "numbers among texts": (
        lambda: compile_pipeline(fitted(), FRAME.assign(city=pd.Series(["Oslo", 1.5] * 20, dtype=object))),
        "column 'city' holds 1.5 of float, expected numbers or text alone",
    ),
    "times out of range": (
        lambda: compile_pipeline(fitted(), FRAME.assign(age=np.full(40, np.datetime64("1500-01-01", "s")))),
        "column 'age' holds times before 1678 or after 2262, which nanoseconds cannot hold",
    ),
    "one axis": (
        lambda: compile_pipeline(on_arrays(), np.zeros(3)),
        "the sample has the shape [3], expected rows and columns",
    ),
    "no such label": (
        lambda: with_labels(FRAME, "truth"),
        "the sample has no column 'truth'; it has age, city",
    ),
    "no such file": (
        lambda: load_pipeline(Path("p.skops"), lambda _: False),
        "there is no file p.skops; expected a pipeline saved with skops or joblib",
    ),
    "another file": (
        lambda: load_pipeline(Path("p.txt"), lambda _: False),
        "p.txt is no pipeline; expected one of .joblib, .pickle, .pkl, .skops",
    ),
    "another sample": (
        lambda: read_sample(Path("rows.xlsx")),
        "rows.xlsx is no sample; expected .csv or .parquet",
    ),
}


MORE = pd.DataFrame(
    {
        **FRAME,
        "fare": np.arange(40.0)[::-1] ** 2,
        "deck": ["A", "B", "C", "D"] * 10,
        "at": pd.date_range("2024-01-01", periods=40),
        "body": ["a cat", "a dog runs"] * 20,
        "twins": pd.Series(["", None, "a", "b"] * 10, dtype=object),
        "hollow": pd.Series([None, 1.5] * 20, dtype=object),
        "long": "x" * 2000,
    }
)
NUMBERS = MORE[["age", "fare"]]
GAPS = pd.DataFrame(
    {
        "named": pd.Series(["Oslo", None] * 20, dtype=object),
        "both": pd.Series([1.0, None, np.nan, 2.0] * 10, dtype=object),
    }
)


def of(transformer, *columns):
    """Fits a pipeline of one transformer of these columns when it is called, and gives rows for it."""
    return lambda: (make_column_transformer((transformer, list(columns))).fit(MORE, ANSWERS), MORE)


def behind(change, transformer, column="body"):
    steps = make_pipeline(FunctionTransformer(change), transformer)
    return lambda: (make_column_transformer((steps, column)).fit(MORE), MORE)


def encoding(transformer, *columns):
    rows = MORE[list(columns)]
    return lambda: (transformer.fit(rows, ANSWERS), rows)


def words(vectorizer):
    return lambda: (make_column_transformer((vectorizer, "body")).fit(MORE), MORE)


def in_a_graph(estimator, target=ANSWERS):
    return lambda: (estimator.fit(NUMBERS, target), NUMBERS)


def a_target(**options):
    return in_a_graph(TransformedTargetRegressor(LinearRegression(), check_inverse=False, **options), np.arange(40.0))


COMPILED = {
    "text before the model": (
        of("passthrough", "city"),
        "column 'city' reaches the model as text; encode it in the pipeline",
    ),
    "times before the model": (
        of("passthrough", "at"),
        "column 'at' reaches the model as times; make numbers of them in the pipeline",
    ),
    "a chosen text before the model": (
        lambda: (
            FunctionTransformer(lambda rows: pd.DataFrame({"k": np.where(rows["age"] > 3, "old", "young")})).fit(MORE),
            MORE,
        ),
        "a text that a function chose reaches the model; encode it in the pipeline",
    ),
    "nothing before the model": (of("drop", "city"), "no columns reach the model; expected one at least"),
    "no rule and no converter": (
        of(Isomap(n_neighbors=3), "age", "fare"),
        (
            "Isomap cannot be published: Penstock has no rule for Isomap; "
            "take a transformer that Penstock compiles or skl2onnx converts"
        ),
    ),
    "another transformer for one": (
        lambda: (make_pipeline(NMF(1)).fit(NUMBERS), NUMBERS),
        "NMF cannot be published: Penstock has no rule for NMF; PCA, TruncatedSVD and FactorAnalysis work",
    ),
    "by chance": (
        of(IterativeImputer(max_iter=1, sample_posterior=True), "age", "fare"),
        "IterativeImputer cannot be published: it draws its values by chance; sample_posterior=False works",
    ),
    "hashed together": (
        of(make_pipeline(FunctionTransformer(np.asarray), FeatureHasher(4, input_type="string")), "city", "deck"),
        (
            "pipeline → FeatureHasher cannot be published: it hashes several columns, or numbers, into one; "
            "give each text column a FeatureHasher"
        ),
    ),
    "hashed when filled": (
        of(
            make_pipeline(SimpleImputer(strategy="constant", fill_value="x"), FeatureHasher(4, input_type="string")),
            "city",
        ),
        "pipeline → FeatureHasher cannot be published: column 'city' was filled before; hash it as it is",
    ),
    "text into numbers": (
        of(SimpleImputer(strategy="constant", fill_value="x"), "hollow"),
        (
            "SimpleImputer cannot be published: it fills 'x' into numbers; "
            "fill a number, or give a sample with text in the column"
        ),
    ),
    "a number into text": (
        lambda: (
            make_column_transformer((SimpleImputer(strategy="constant", fill_value=7), ["named"])).fit(GAPS),
            GAPS,
        ),
        "SimpleImputer cannot be published: it fills 7 into column 'named', which is text; fill a text",
    ),
    "None and NaN among numbers": (
        lambda: (OneHotEncoder().fit(GAPS[["both"]]), GAPS[["both"]]),
        (
            "transform (OneHotEncoder) cannot be published: column 'both' has both None and NaN as categories, which "
            "requests cannot tell apart; make them one before the pipeline is fitted"
        ),
    ),
    "a cycle without a period": (
        of(FunctionTransformer(cyclical), "age"),
        "FunctionTransformer cannot be published: cyclical takes a period; give kw_args={'period': ...}",
    ),
    "a crooked spline": (
        of(SplineTransformer(degree=1, extrapolation="linear"), "age", "fare"),
        (
            "SplineTransformer cannot be published: extrapolation='linear' of degree 0 or 1 compiles for one column; "
            "degree 2 and above for any"
        ),
    ),
    "two kinds of nothing": (
        of(OneHotEncoder(), "twins"),
        (
            "OneHotEncoder cannot be published: column 'twins' has the categories '' and None, which requests cannot tell "
            "apart, as a missing text is ''; make them one before the pipeline is fitted"
        ),
    ),
    "times to an encoder": (
        of(OrdinalEncoder(), "at"),
        (
            "OrdinalEncoder cannot be published: column 'at' holds times when it gets there; "
            "take their parts first, such as .dt.hour"
        ),
    ),
    "a long category": (
        of(OneHotEncoder(), "long"),
        (
            f"OneHotEncoder does not fit a feature specification: value {'x' * 40!r}... takes 2000 bytes, "
            "expected at most 1024"
        ),
    ),
    "many factors": (
        of(PolynomialFeatures(20), "age"),
        "PolynomialFeatures does not fit a feature specification: 17 factors in terms[17], expected at most 16",
    ),
    "text that is missing in the sample": (
        lambda: (OneHotEncoder().fit(MORE[["city"]]), MORE[["city"]].assign(city=np.nan)),
        (
            "transform (OneHotEncoder) cannot be published: column 'city' holds numbers or nothing in the sample, but it "
            "knows the category 'Oslo'; give a sample with text in the column (.csv cannot say that digits are text, "
            ".parquet can)"
        ),
    ),
    "text for numbers": (
        lambda: (OneHotEncoder().fit(MORE[["age"]]), MORE[["age"]].astype(str)),
        (
            "transform (OneHotEncoder) cannot be published: column 'age' is text, but it knows the category 0.0; "
            "give a sample with numbers in it"
        ),
    ),
    "a function that gives a list": (
        lambda: (FunctionTransformer(lambda rows: [1] * len(rows)).fit(MORE), MORE),
        (
            "transform (FunctionTransformer) cannot be published: its function gives list, expected a frame or an array of "
            "as many rows as it got; functions of whole columns by numpy and pandas compile"
        ),
    ),
    "text of two columns": (
        lambda: (
            make_pipeline(FunctionTransformer(lambda rows: rows[["body", "city"]]), TfidfVectorizer()).fit(MORE),
            MORE,
        ),
        (
            "TfidfVectorizer cannot be published: TfidfVectorizer takes one column of text, and 2 columns get there; "
            "give it one by its name"
        ),
    ),
    "text that was filled": (
        behind(lambda texts: texts.fillna("none"), TfidfVectorizer()),
        (
            "pipeline → TfidfVectorizer cannot be published: column 'body' was filled before, and TfidfVectorizer reads it "
            "as it is; fill it with ''"
        ),
    ),
    "text in capitals": (
        behind(lambda texts: texts.str.upper(), TfidfVectorizer()),
        (
            "pipeline → TfidfVectorizer cannot be published: the text is changed by .str.upper before, which compiles before "
            "encoders of categories; lowercase and strip_accents of the vectorizer work"
        ),
    ),
    "an own tokenizer": (
        words(TfidfVectorizer(tokenizer=str.split, token_pattern=None)),
        (
            "TfidfVectorizer cannot be published: its tokenizer is the function str.split; "
            "a token_pattern such as r'\\S+' works"
        ),
    ),
    "an own analyzer": (
        words(CountVectorizer(analyzer=str.split)),
        (
            "CountVectorizer cannot be published: its analyzer is the function str.split; "
            "analyzer='word', 'char' or 'char_wb' works"
        ),
    ),
    "an own preprocessor": (
        words(CountVectorizer(preprocessor=str.lower)),
        (
            "CountVectorizer cannot be published: its preprocessor is the function str.lower; "
            "lowercase and strip_accents work"
        ),
    ),
    "own accents": (
        words(CountVectorizer(strip_accents=str.upper)),
        "CountVectorizer cannot be published: strip_accents is the function str.upper; 'unicode' and 'ascii' work",
    ),
    "files for texts": (
        lambda: (
            make_column_transformer((CountVectorizer(input="filename"), "body")).fit(MORE.assign(body=__file__)),
            MORE,
        ),
        (
            "CountVectorizer cannot be published: it reads files (input='filename'), which requests do not have; "
            "input='content' works"
        ),
    ),
    "a pattern of several": (
        words(CountVectorizer(token_pattern=r"\w+@\w+|\w+")),
        (
            "CountVectorizer cannot be published: its token_pattern '\\\\w+@\\\\w+|\\\\w+' is more than a run of characters "
            "of one class; patterns such as r'(?u)\\b\\w\\w+\\b', r'\\S+' and r'[a-z]{2,}' work"
        ),
    ),
    "a million columns": (
        lambda: (HashingVectorizer().fit(MORE["body"]), MORE["body"]),
        (
            "the columns that reach the model are too many: the text 'body' has 1,048,576 columns, expected 65,536 at most: "
            "max_features or n_features of the vectorizer makes them fewer; "
            "linear models, naive Bayes and TruncatedSVD take them all"
        ),
    ),
    "a million columns for a tree": (
        lambda: (make_pipeline(HashingVectorizer(), DecisionTreeClassifier()).fit(MORE["body"], ANSWERS), MORE["body"]),
        (
            "DecisionTreeClassifier cannot be published: the text 'body' has 1,048,576 columns, expected 65,536 at most: "
            "max_features or n_features of the vectorizer makes them fewer; "
            "linear models, naive Bayes and TruncatedSVD take them all"
        ),
    ),
    "one class": (
        lambda: (make_pipeline(CountVectorizer(), MultinomialNB()).fit(MORE["body"], np.zeros(40)), MORE["body"]),
        "MultinomialNB cannot be published: it knows one class alone; expected training data of two at least",
    ),
    "several columns encoded as one": (
        encoding(ce.TargetEncoder(cols=["city", "deck"], composite_cols=[("city", "deck")]), "city", "deck"),
        (
            "transform (TargetEncoder) cannot be published: it makes 'city|deck' of several columns; "
            "encode each column alone"
        ),
    ),
    "hashed by category_encoders": (
        encoding(ce.HashingEncoder(max_process=1), "city", "deck"),
        (
            "transform (HashingEncoder) cannot be published: it hashes all columns into the same ones; "
            "sklearn's FeatureHasher for each column works"
        ),
    ),
    "texts taken apart": (
        encoding(ce.MultiHotEncoder(), "city", "deck"),
        (
            "transform (MultiHotEncoder) cannot be published: it takes texts apart; "
            "MultiHotEncoder before the pipeline, or OneHotEncoder, works"
        ),
    ),
    "dropped rows": (
        encoding(imputation.DropMissingData(), "age", "fare"),
        (
            "transform (DropMissingData) cannot be published: it drops rows, also of those that are to be predicted; "
            "drop them before the pipeline is fitted"
        ),
    ),
    "values drawn": (
        encoding(imputation.RandomSampleImputer(), "age", "fare"),
        (
            "transform (RandomSampleImputer) cannot be published: it fills values drawn by chance; "
            "MeanMedianImputer and CategoricalImputer work"
        ),
    ),
    "texts compared": (
        encoding(categories.StringSimilarityEncoder(), "city", "deck"),
        (
            "transform (StringSimilarityEncoder) cannot be published: it compares each text with others letter by letter; "
            "OneHotEncoder, MeanEncoder and others work"
        ),
    ),
    "ranges": (
        encoding(discretisation.EqualWidthDiscretiser(return_boundaries=True), "age", "fare"),
        "transform (EqualWidthDiscretiser) cannot be published: it makes texts of ranges; return_boundaries=False works",
    ),
    "ranges of a tree": (
        encoding(
            discretisation.DecisionTreeDiscretiser(bin_output="boundaries", precision=2, regression=False),
            "age",
            "fare",
        ),
        (
            "transform (DecisionTreeDiscretiser) cannot be published: it makes texts of ranges; "
            "bin_output='prediction' or 'bin_number' works"
        ),
    ),
    "a function of several columns": (
        encoding(creation.MathFeatures(["age", "fare"], func=["sum", "skew"]), "age", "fare"),
        (
            "transform (MathFeatures) cannot be published: the function skew is not one that Penstock knows; "
            "sum, mean, min, max, prod, product, count, var, std work"
        ),
    ),
    "text of numbers": (
        encoding(categories.RareLabelEncoder(0.4, 1, variables=["age"], ignore_format=True), "age"),
        (
            "transform (RareLabelEncoder) cannot be published: it makes text of numbers; "
            "make text of them before the pipeline"
        ),
    ),
    "times of the index": (
        lambda: (DatetimeFeatures(variables="index").fit(MORE[["age", "at"]].set_index("at")), MORE[["age"]]),
        (
            "transform (DatetimeFeatures) cannot be published: it reads the frame's index, which a request has none of; "
            "give it a column"
        ),
    ),
    "a column twice": (
        lambda: (StandardScaler().fit(np.zeros((3, 2))), pd.DataFrame(np.zeros((3, 2)), columns=["a", "a"])),
        "the sample has column 'a' twice; expected each name once",
    ),
    "complex numbers": (
        lambda: (fitted(), FRAME.assign(age=np.arange(40) * 1j)),
        "column 'age' holds complex128, expected numbers, text or times; make numbers of it before the pipeline",
    ),
    "labels left in a frame": (
        lambda: (on_arrays(), NUMBERS.assign(truth=1.0)),
        (
            "the sample has 3 columns (age, fare, truth), and the pipeline was fitted on 2; if one of them holds the labels, "
            "leave it out: --labels COLUMN does"
        ),
    ),
    "fewer columns in a list": (
        lambda: (StandardScaler().fit(NUMBERS), [[1.0]]),
        "the sample has 1 columns, expected 2: age, fare",
    ),
    "many columns": (
        lambda: (on_arrays(), np.zeros((40, 5))),
        "the sample has 5 columns, and the pipeline was fitted on 2; give these alone",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(("given", "sentence"), COMPILED.values(), ids=COMPILED)
def test_what_is_not_compiled_is_told_in_this_sentence(given, sentence):
    with pytest.raises(PenstockError) as error:
        compile_pipeline(*given())
    assert str(error.value) == sentence


CONVERTED = {
    "no converter": (
        lambda: (LabelSpreading().fit(MORE[["age"]], ANSWERS), MORE[["age"]]),
        "LabelSpreading does not become ONNX: skl2onnx has no converter for it; take another model",
    ),
    "an own kernel": (
        in_a_graph(make_pipeline(Nystroem(np.dot, n_components=3), LogisticRegression())),
        (
            "the kernel dot is not one that the graph can compute; "
            "linear, poly, polynomial, rbf, sigmoid, laplacian, cosine work"
        ),
    ),
    "own pooling": (
        in_a_graph(make_pipeline(FeatureAgglomeration(2, pooling_func=np.median), LogisticRegression())),
        "FeatureAgglomeration pools by a function of its own; pooling_func=numpy.mean works",
    ),
    "a classifier that imputes": (
        in_a_graph(
            make_pipeline(IterativeImputer(LogisticRegression(), max_iter=1), LogisticRegression()),
        ),
        "LogisticRegression in IterativeImputer is no regressor; expected one",
    ),
    "a transformed target": (
        a_target(transformer=KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf")),
        (
            "the target was transformed by KBinsDiscretizer, which the graph cannot undo; expected one of "
            "FunctionTransformer, MaxAbsScaler, MinMaxScaler, Pipeline, PowerTransformer, QuantileTransformer, RobustScaler, "
            "StandardScaler"
        ),
    ),
    "a target undone by numpy": (
        a_target(func=np.log1p, inverse_func=lambda y: np.interp(y, [0, 1], [2, 3])),
        (
            "the target was transformed, and <lambda> undoes it, which the graph cannot: its function calls numpy.interp, "
            "which the graph cannot; numpy's functions of single values and arithmetic work"
        ),
    ),
    "a target undone by a loop": (
        a_target(func=np.log1p, inverse_func=lambda y: np.array([each + 1 for each in y.ravel()])),
        (
            "the target was transformed, and <lambda> undoes it, which the graph cannot: its function does something else "
            "with its values than to compute with them; numpy's functions of single values and arithmetic work"
        ),
    ),
    "a category that the encoder refuses": (
        lambda: (
            make_pipeline(make_column_transformer((OrdinalEncoder(), ["city"])), LogisticRegression()).fit(
                MORE, ANSWERS
            ),
            MORE.assign(city="Bern"),
        ),
        (
            "columntransformer → OrdinalEncoder itself refuses the sample: Found unknown categories ['Bern'] in column 0 "
            "during transform; give rows that it takes"
        ),
    ),
    "a gap that a step refuses": (
        lambda: (
            make_pipeline(PolynomialFeatures(), LogisticRegression()).fit(NUMBERS, ANSWERS),
            NUMBERS.assign(age=np.nan),
        ),
        ("PolynomialFeatures itself refuses the sample: Input X contains NaN; give rows that it takes"),
    ),
    "linear leaves": (
        in_a_graph(LGBMRegressor(n_estimators=2, linear_tree=True, min_child_samples=2, verbose=-1, n_jobs=1)),
        "the leaves of LightGBM's trees are linear models; linear_tree=False gives leaves of one value each",
    ),
}


@pytest.mark.parametrize(("given", "sentence"), CONVERTED.values(), ids=CONVERTED)
def test_a_model_that_does_not_become_a_graph_is_told_in_this_sentence(given, sentence):
    with pytest.raises(PenstockError) as error:
        prepare(*given())
    assert str(error.value) == sentence


def test_what_python_would_serve_says_so():
    with pytest.raises(PenstockError) as error:
        prepare_any(*of(Isomap(n_neighbors=3), "age", "fare")())
    assert str(error.value).endswith(
        "; --allow-python keeps the whole pipeline, which answers in milliseconds instead of microseconds"
    )


LABELS = {
    "few": (ANSWERS[:3], "there are 3 labels for 40 rows; expected as many"),
    "missing": (np.where(ANSWERS, 1.0, np.nan), "the label of row 0 is missing; expected one for each row"),
    "in two columns": (
        np.c_[ANSWERS, ANSWERS],
        "the model gives labels of the shape [40] for the sample, and [40, 2] are given",
    ),
    "of another class": (
        np.where(ANSWERS, 2, 0),
        "the label 2 is none of the model's classes; expected False, True",
    ),
}


@pytest.mark.parametrize(("labels", "sentence"), LABELS.values(), ids=LABELS)
def test_labels_that_do_not_fit_are_told_in_this_sentence(labels, sentence):
    compiled = compile_pipeline(make_pipeline(StandardScaler(), LogisticRegression()).fit(NUMBERS, ANSWERS), NUMBERS)
    with pytest.raises(PenstockError) as error:
        scores(compiled, labels)
    assert str(error.value) == sentence


@pytest.mark.parametrize(("refused", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_a_refusal_is_this_sentence(refused, sentence):
    with pytest.raises(PenstockError) as error:
        refused()
    assert str(error.value) == sentence
