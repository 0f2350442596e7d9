import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer

from penstock.tensors import join_bytes
from penstock_server.features.pipeline import TEXT_BYTES, Pipeline
from penstock_server.features.spec.grams import (
    Above,
    Buckets,
    CharacterGrams,
    Grams,
    Norm,
    Projection,
    Scale,
    Sublinear,
    Tokens,
    Vocabulary,
    Weigh,
    WordGrams,
    packed,
    packed_places,
)
from penstock_server.features.spec.spec import Block, FeatureSpec, Join, NumberColumn, StringColumn, Take, Text
from penstock_server.features.spec.steps import Linear, Select
from tests.server.features.texts import TEXTS

PATTERNS: Mapping[str, Tokens] = {
    r"(?u)\b\w\w+\b": Tokens((r"\w",), least=2),
    r"\S+": Tokens((r"\S",)),
    r"[a-zA-Z]+": Tokens(("a-z", "A-Z")),
    r"\b[a-z]{2,}\b": Tokens(("a-z",), least=2, whole=True),
    r"[^,\s]+": Tokens((",", r"\s"), negated=True),
    r"\d+": Tokens((r"\d",)),
}
STOP_WORDS = ("ab", "b", "aa")

SHARED = st.fixed_dictionaries(
    {
        "ngram_range": st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3), (3, 5)]),
        "analyzer": st.sampled_from(["word", "char", "char_wb"]),
        "lowercase": st.booleans(),
        "strip_accents": st.sampled_from([None, "ascii", "unicode"]),
        "token_pattern": st.sampled_from(sorted(PATTERNS)),
        "stop_words": st.none() | st.just(list(STOP_WORDS)),
        "binary": st.booleans(),
        "norm": st.sampled_from(["l1", "l2", None]),
    }
)


def grams_of(options: Mapping[str, Any]) -> WordGrams | CharacterGrams:
    shortest, longest = options["ngram_range"]
    lowercase, accents = options["lowercase"], options["strip_accents"] or "keep"
    if options["analyzer"] == "word":
        tokens, stop_words = PATTERNS[options["token_pattern"]], tuple(options["stop_words"] or ())
        return WordGrams(shortest, longest, lowercase, accents, tokens=tokens, stop_words=stop_words)
    return CharacterGrams(shortest, longest, lowercase, accents, options["analyzer"] == "char_wb")


def pipeline(*blocks: Block) -> Pipeline:
    return Pipeline(FeatureSpec((StringColumn("s"),), Join(blocks), "FP64"))


def check(encode: Grams, texts: list[str], expected: NDArray[np.float64]) -> None:
    """Dense outputs, registers and a projection, in one pass."""
    weights = np.random.default_rng(0).normal(size=(expected.shape[1], 3))
    some = np.flatnonzero(np.arange(expected.shape[1]) % 2)
    projections = [Projection(3, packed(weights)), Projection(3, packed(weights[some]), packed_places(some))]
    if not len(some):
        projections.pop()
    projected = [Text("s", Grams(encode.grams, encode.columns, encode.weigh, each)) for each in projections]
    made = pipeline(Text("s", encode), Text("s", encode, (Linear((2.0,)),)), *projected).transform({"s": texts})
    also = [expected @ weights, expected[:, some] @ weights[some]][: len(projections)]
    np.testing.assert_allclose(made, np.hstack([expected, 2 * expected, *also]), atol=1e-12, rtol=0)


def transformed(vectorizer: Any, texts: list[str]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that another analyzer would use
        found: NDArray[np.float64] = vectorizer.transform(texts).toarray()
    return found


@pytest.mark.long
@given(SHARED, st.booleans(), st.booleans(), st.lists(TEXTS, min_size=1, max_size=4), st.lists(TEXTS, max_size=4))
def test_tfidf_vectorizer(
    options: dict[str, Any], sublinear: bool, idf: bool, training: list[str], other: list[str]
) -> None:
    vectorizer = TfidfVectorizer(sublinear_tf=sublinear, use_idf=idf, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vectorizer.fit([*training, "abba babba cabba 123 456 789"])
    weigh: list[Weigh] = [Sublinear()] if sublinear else []
    weigh += [Scale(packed(vectorizer.idf_))] if idf else []
    weigh += [Norm(options["norm"])] if options["norm"] else []
    terms = Vocabulary(tuple(vectorizer.get_feature_names_out().tolist()), options["binary"])
    texts = [*training, *other, ""]
    check(Grams(grams_of(options), terms, tuple(weigh)), texts, transformed(vectorizer, texts))


@given(SHARED, st.booleans(), st.sampled_from([1, 7, 64]), st.lists(TEXTS, min_size=1, max_size=6))
def test_hashing_vectorizer(options: dict[str, Any], signed: bool, width: int, texts: list[str]) -> None:
    vectorizer = HashingVectorizer(n_features=width, alternate_sign=signed, **options)
    weigh = (Norm(options["norm"]),) if options["norm"] else ()
    encode = Grams(grams_of(options), Buckets(width, signed, options["binary"]), weigh)
    check(encode, texts, transformed(vectorizer, texts))


WORDS = WordGrams(tokens=PATTERNS[r"(?u)\b\w\w+\b"])


def test_counts_above_a_threshold_are_ones_and_a_norm_may_be_the_largest() -> None:
    counts = Text("s", Grams(WORDS, Vocabulary(("aa", "bb")), (Above(1.0),)))
    largest = Text("s", Grams(WORDS, Vocabulary(("aa", "bb")), (Norm("max"),)))
    made = pipeline(counts, largest).transform({"s": ["aa aa aa aa bb", "", "bb"]})
    assert made.tolist() == [[1, 0, 1, 0.25], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_terms_are_picked_and_stand_beside_numbers_in_any_order() -> None:
    picked = Text("s", Grams(WORDS, Vocabulary(("aa", "bb", "cc"))), (Select((2, 0, 2)),))
    features = Join((picked, Take(("n",)), picked))
    spec = FeatureSpec((NumberColumn("n"), StringColumn("s")), features)
    made = Pipeline(spec).transform({"n": [5.0, 6.0], "s": ["cc aa cc", "bb"]})
    assert made.tolist() == [[2, 1, 2, 5, 2, 1, 2], [0, 0, 0, 6, 0, 0, 0]]


def test_many_terms_are_each_found() -> None:
    terms = tuple(f"word{at}" for at in range(50_000))
    numbered = Projection(1, packed(np.arange(len(terms), dtype=np.float64)))
    made = pipeline(Text("s", Grams(WORDS, Vocabulary(terms), (), numbered))).transform({"s": [*terms, "word50000"]})
    assert made[:, 0].tolist() == [*range(50_000), 0]


def test_encoders_of_other_sizes_leave_each_others_counts_alone() -> None:
    few = Text("s", Grams(WORDS, Vocabulary(("aa", "bb")), (Norm("l1"),), Projection(3, packed(np.ones((2, 3))))))
    many = Text("s", Grams(CharacterGrams(1, 2), Vocabulary(tuple("abcdefgh"))))
    alone = [pipeline(each).transform({"s": ["aa bb cc", "h"] * 3}) for each in (few, many)]
    both = pipeline(few, many, few)
    for _ in range(2):
        made = both.transform({"s": ["aa bb cc", "h"] * 3})
        np.testing.assert_array_equal(made, np.hstack([alone[0], alone[1], alone[0]]))


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (b"aa bb " * (3 * TEXT_BYTES), [3 * TEXT_BYTES, 3 * TEXT_BYTES, 3 * TEXT_BYTES]),
        (b"a" * (9 * TEXT_BYTES), [0, 0, 0]),
        (b"\xff" * (9 * TEXT_BYTES) + b"aa", [1, 0, 0]),
        ("ﷺ".encode() * (3 * TEXT_BYTES) + b" bb", [0, 1, 0]),
    ],
    ids=["words", "one word", "no UTF-8", "ligatures"],
)
def test_a_text_larger_than_scratch_is_read_to_its_end(text: bytes, counts: list[int]) -> None:
    words = WordGrams(1, 2, accents="unicode", tokens=WORDS.tokens)
    made = pipeline(Text("s", Grams(words, Vocabulary(("aa", "bb", "aa bb")))))
    out = np.empty((3, 3))
    made.run(b"", [join_bytes([b"aa", text, b"bb aa"])], 3, out, None)
    assert out.tolist() == [[1, 0, 0], counts, [1, 1, 0]]
