import re
from typing import Any

import numpy as np
import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec import limits, spec
from penstock_server.features.spec.grams import (
    Above,
    Buckets,
    CharacterGrams,
    Grams,
    Norm,
    Projection,
    Scale,
    Tokens,
    Vocabulary,
    WordGrams,
    packed,
    packed_places,
)
from penstock_server.features.spec.spec import Categories, FeatureSpec, StringColumn, Text

WORDS = WordGrams(tokens=Tokens((r"\w", "a-z", "."), least=2), stop_words=("the",))
TWO = Vocabulary(("a", "b"))


def test_an_encoder_of_grams_is_read_back_as_it_was_written() -> None:
    project = Projection(2, packed(np.array([[0.1, -2.0]])), packed_places(np.array([1])))
    encode = Grams(WORDS, TWO, (Scale(packed(np.array([0.5, 1 / 3]))), Norm("l2")), project)
    made = FeatureSpec((StringColumn("s"),), Text("s", encode))
    assert spec.decode(spec.encode(made)) == spec.decode_yaml(spec.encode_yaml(made)) == made
    assert (made.width, made.output_names) == (2, ("s_0", "s_1"))
    assert project.rows.tolist() == [[0.1, -2.0]]


def test_terms_name_their_columns() -> None:
    made = FeatureSpec((StringColumn("s"),), Text("s", Grams(CharacterGrams(1, 3), Vocabulary(("a\nb", "c")))))
    assert made.output_names == ("s_a b", "s_c")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tokens((r"\b",)), r"characters holds '\\b', expected \w or the like, a character, or a range"),
        (lambda: Tokens(("z-a",)), "characters holds 'z-a'"),
        (lambda: Tokens(("a",), least=0), "least is 0, expected 1 to"),
        (lambda: CharacterGrams(2, 1), "longest is 1, expected 2 to 32"),
        (lambda: CharacterGrams(1, 33), "longest is 33, expected 1 to 32"),
        (lambda: Vocabulary(()), "terms is empty"),
        (lambda: Vocabulary(("a", "a")), "term 'a' appears twice"),
        (lambda: Vocabulary(("\ud800",)), "cannot be written as UTF-8"),
        (lambda: Buckets(limits.MAX_TERMS + 1), "width is 1048577"),
        (lambda: Above(-1.0), "threshold is -1.0, expected at least 0"),
        (lambda: Grams(WORDS, TWO, (Scale(b"12345678"),)), "weights takes 8 bytes, expected 8 for each of 2"),
        (lambda: Grams(WORDS, TWO, (Scale(packed(np.array([1, np.nan]))),)), "weights has a number that is not finite"),
        (lambda: Grams(WORDS, TWO, (), Projection(1, packed(np.ones(3)))), "the projection has 3 rows, expected 2"),
        (lambda: Grams(WORDS, TWO, (), Projection(2, packed(np.ones(3)))), "3 numbers, expected 2 for each row"),
        (
            lambda: Grams(WORDS, TWO, (), Projection(1, packed(np.ones(1)), packed_places(np.array([2])))),
            "columns must increase from 0 to at most 1",
        ),
        (lambda: Text("s", Grams(WORDS, TWO), prepare=("lower",)), "prepare is given with an encoder of grams"),
        (lambda: Text("s", Categories(("a",)), prepare=("lower", "upper")), "expected one of casefold, lower, upper"),
        (lambda: Text("s", Categories(("a",)), prepare=("strip", "strip")), "prepare 'strip' appears twice"),
        (lambda: Text("s", Grams(WORDS, Buckets(1 << 20))), "1048576 columns, expected at most 65536"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_a_file_with_torn_weights_is_refused() -> None:
    made = FeatureSpec((StringColumn("s"),), Text("s", Grams(WORDS, TWO, (Scale(packed(np.ones(2))),))))
    torn = spec.encode(made).replace(b'"weights":"AAAA', b'"weights":"')
    with pytest.raises(InvalidInputError, match="the feature specification is refused"):
        spec.decode(torn)
