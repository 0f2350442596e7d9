"""Each vectorizer and what follows it, compiled, against scikit-learn's own."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, VarianceThreshold, chi2
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import Binarizer, MaxAbsScaler, Normalizer, OneHotEncoder, StandardScaler

from penstock_server.errors import UnsupportedError
from penstock_server.features.spec.grams import Tokens
from penstock_tools.sklearn_compiler.compiler import compile_pipeline
from penstock_tools.sklearn_compiler.refusals import Refused
from penstock_tools.sklearn_compiler.rules_words import tokens_of
from penstock_tools.sklearn_compiler.sample import Missing

BODIES = [
    "The quick brown fox jumps over the lazy dog.",
    "Der schnelle Fuchs, ein Fuchs; ÜBER den Hund!",
    "A fox? The FOX: 3 foxes and 12 dogs",
    "",
    "Ο ΣΊΣΥΦΟΣ και η ΟΔΟΣ",
    "naïve café, naive cafe",
    "don't stop - it's the e-mail of a.b@c.de",
]
LABELS = [0, 1, 0, 1, 1, 0, 1]
FRAME = pd.DataFrame({"body": BODIES, "title": BODIES[::-1], "n": np.arange(7.0), "kind": list("aabbabb")})
SEEN_LATER = pd.DataFrame(
    {
        "body": ["fox fox unheard", "x", "İ dog\u2003DOG"],
        "title": ["", "the", "ς"],
        "n": [1.0, -2.0, 0.5],
        "kind": list("abz"),
    }
)

VECTORIZERS = {
    "counts": CountVectorizer(),
    "counts, a vocabulary": CountVectorizer(vocabulary=["fox", "the", "dog"]),
    "counts, binary, pairs": CountVectorizer(binary=True, ngram_range=(1, 2), stop_words="english"),
    "counts, stop words": CountVectorizer(stop_words=["the", "fox", "of the"]),
    "tfidf": TfidfVectorizer(),
    "tfidf, no idf, l1, sublinear": TfidfVectorizer(use_idf=False, norm="l1", sublinear_tf=True),
    "tfidf, accents": TfidfVectorizer(strip_accents="unicode", lowercase=False, norm=None),
    "tfidf, ASCII": TfidfVectorizer(strip_accents="ascii", token_pattern=r"\w+", smooth_idf=False),
    "characters": TfidfVectorizer(analyzer="char", ngram_range=(1, 3)),
    "characters of words": CountVectorizer(analyzer="char_wb", ngram_range=(3, 5), max_features=40),
    "hashes": HashingVectorizer(n_features=64),
    "hashes, counted": HashingVectorizer(n_features=16, alternate_sign=False, norm=None, ngram_range=(1, 2)),
    "hashes, binary": HashingVectorizer(n_features=8, binary=True, analyzer="char"),
    "counts, then tfidf": make_pipeline(CountVectorizer(), TfidfTransformer(sublinear_tf=True)),
    "hashes, then tfidf": make_pipeline(HashingVectorizer(n_features=32, norm=None), TfidfTransformer()),
    "largest, then a norm": make_pipeline(CountVectorizer(), MaxAbsScaler(), Normalizer("max")),
    "deviations": make_pipeline(TfidfVectorizer(), StandardScaler(with_mean=False)),
    "above 1": make_pipeline(CountVectorizer(), Binarizer(threshold=1)),
    "the best, then tfidf": make_pipeline(CountVectorizer(), SelectKBest(chi2, k=9), TfidfTransformer()),
    "the best of tfidf": make_pipeline(TfidfVectorizer(), SelectKBest(chi2, k=9), MaxAbsScaler()),
    "the varied": make_pipeline(TfidfVectorizer(), VarianceThreshold(0.005)),
    "decomposed": make_pipeline(TfidfVectorizer(), TruncatedSVD(4, random_state=0), Normalizer()),
    "two kinds": FeatureUnion(
        [("words", TfidfVectorizer()), ("letters", CountVectorizer(analyzer="char"))],
        transformer_weights={"words": 0.5},
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", VECTORIZERS)
@pytest.mark.filterwarnings("ignore:Your stop_words may be inconsistent")
def test_a_vectorizer(name, assert_equal):
    fitted = ColumnTransformer([("text", VECTORIZERS[name], "body"), ("number", StandardScaler(), ["n"])]).fit(
        FRAME, LABELS
    )
    assert_equal(fitted, FRAME, ulps=16)
    assert_equal(fitted, FRAME, SEEN_LATER, ulps=16)


@pytest.mark.long
def test_words_beside_numbers_are_scaled_together(assert_equal):
    columns = ColumnTransformer(
        [
            ("body", TfidfVectorizer(), "body"),
            ("title", CountVectorizer(), "title"),
            ("number", StandardScaler(), ["n"]),
            ("kind", OneHotEncoder(handle_unknown="ignore"), ["kind"]),
        ]
    )
    for scaler in (MaxAbsScaler(), StandardScaler(with_mean=False), SelectKBest(chi2, k=12), Normalizer()):
        features = FRAME.assign(n=FRAME["n"] + 3)
        fitted = make_pipeline(columns.set_params(number="passthrough"), scaler).fit(features, LABELS)
        assert_equal(fitted, features, SEEN_LATER.assign(n=2.0), ulps=16)


def test_a_series_of_texts_is_one_column():
    fitted = TfidfVectorizer().fit(pd.Series(BODIES, name="body"))
    compiled = compile_pipeline(fitted, pd.Series(BODIES[:3], name="body"))
    assert [(column.name, column.missing) for column in compiled.sample.columns] == [("body", {Missing.EMPTY})]


@pytest.mark.parametrize(
    ("pattern", "tokens"),
    [
        (r"(?u)\b\w\w+\b", Tokens((r"\w",), least=2)),
        (r"(?u)\b\w+\b", Tokens((r"\w",))),
        (r"\w+", Tokens((r"\w",))),
        (r"\w{3,}", Tokens((r"\w",), least=3)),
        (r"\b(\w\w\w+)\b", Tokens((r"\w",), least=3)),
        (r"\S+", Tokens((r"\S",))),
        (r"[^\s]+", Tokens((r"\s",), negated=True)),
        (r"[^,]+", Tokens((",",), negated=True)),
        (r"[a-zA-Z]+", Tokens(("A-Z", "a-z"))),
        (r"\b[a-zA-Z]{2,}\b", Tokens(("A-Z", "a-z"), least=2, whole=True)),
        (r"\b[^\d\W]+\b", Tokens((r"\W", r"\d"), negated=True, whole=True)),
        (r"[\w'#@-]+", Tokens(("#", "'", "-", "@", r"\w"))),
    ],
)
def test_a_token_pattern_is_a_run_of_characters(pattern, tokens):
    assert tokens_of(pattern) == tokens


@pytest.mark.parametrize(
    "pattern",
    [r"\w+@\w+", r"\w*", r"\w{2,5}", r"\w+|\d+", r"(?i)[a-z]+", r"\b\S+\b", r"\w+\b", r"^\w+", r"(\w)+", r"\w+?"],
)
def test_other_token_patterns_are_refused(pattern):
    with pytest.raises(Refused, match="more than a run of characters of one class; patterns such as"):
        tokens_of(pattern)


@pytest.mark.parametrize(
    ("vectorizer", "message"),
    [
        (
            TfidfVectorizer(tokenizer=str.split, token_pattern=None),
            "its tokenizer is the function str.split; a token_pattern",
        ),
        (
            CountVectorizer(analyzer=str.split),
            "its analyzer is the function str.split; analyzer='word', 'char' or 'char_wb'",
        ),
        (
            CountVectorizer(preprocessor=str.lower),
            "its preprocessor is the function str.lower; lowercase and strip_accents",
        ),
        (
            CountVectorizer(strip_accents=str.upper),
            "strip_accents is the function str.upper; 'unicode' and 'ascii' work",
        ),
        (CountVectorizer(token_pattern=r"\w+@\w+|\w+"), "its token_pattern '.*' is more than a run"),
    ],
)
def test_a_function_of_a_persons_own_is_refused_with_what_works(vectorizer, message):
    fitted = ColumnTransformer([("text", vectorizer, "body")]).fit(FRAME)
    with pytest.raises(UnsupportedError, match=f"text .* cannot be published: {message}"):
        compile_pipeline(fitted, FRAME)


def test_a_vocabulary_that_is_too_large_for_columns_says_what_takes_it():
    fitted = make_pipeline(HashingVectorizer()).fit(FRAME["body"])
    with pytest.raises(
        UnsupportedError, match=r"1,048,576 columns, expected 65,536 at most: max_features .* linear models"
    ):
        compile_pipeline(fitted, FRAME["body"])
