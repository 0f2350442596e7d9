from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.tensors import join_bytes
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.blocks import Prepare
from penstock_server.features.spec.grams import CharacterGrams, Grams, Vocabulary
from penstock_server.features.spec.spec import Categories, FeatureSpec, Hash, Join, StringColumn, Text
from tests.server.features.texts import TEXTS

METHODS: dict[Prepare, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "casefold": str.casefold,
    "strip": str.strip,
    "lstrip": str.lstrip,
    "rstrip": str.rstrip,
}

SIDES: tuple[Prepare | None, ...] = ("strip", "lstrip", "rstrip", None)


def found(texts: list[str], *blocks: Text) -> NDArray[np.float64]:
    values: NDArray[np.float64] = Pipeline(FeatureSpec((StringColumn("s"),), Join(blocks), "FP64")).transform(
        {"s": texts}
    )
    return values


@pytest.mark.long
@pytest.mark.parametrize("case", ["lower", "upper", "casefold", None])
@given(sides=st.sampled_from(SIDES), texts=st.lists(TEXTS, min_size=1, max_size=6))
def test_a_text_is_prepared_as_python_does_it(case: Prepare | None, sides: Prepare | None, texts: list[str]) -> None:
    prepare = tuple(each for each in (case, sides) if each is not None)
    expected = texts
    for each in prepare:
        expected = [METHODS[each](text) for text in expected]
    known = tuple(dict.fromkeys(text for text in expected if text))
    as_category = Text("s", Categories(known), prepare=prepare)
    codes = found(texts, as_category, Text("s", Hash(16, missing="zeros"), prepare=prepare))
    assert codes[:, 0].tolist() == [known.index(text) if text else len(known) for text in expected]
    hashes = found(expected, Text("s", Hash(16)))
    is_missing = np.array([not text for text in texts])
    np.testing.assert_array_equal(codes[:, 1:], np.where(is_missing[:, None], 0.0, hashes))


def test_a_text_that_becomes_empty_is_no_missing_one() -> None:
    texts = ["", "  ", "a"]
    as_missing = Text("s", Categories(("a", "b"), missing=1), prepare=("strip",))
    as_category = Text("s", Categories(("a", "")), prepare=("strip",))
    assert found(texts, as_missing, as_category).tolist() == [[1, 1], [2, 1], [0, 0]]


@pytest.mark.parametrize(
    ("data", "points"),
    [
        (b"\xff", 1),  # begins nothing
        (b"\x80\x80", 2),  # continues nothing
        (b"\xc1\x81", 2),  # too long for what it says
        (b"\xe0\x80\x80", 3),
        (b"\xed\xa0\x80", 3),  # a surrogate
        (b"\xf4\x90\x80\x80", 4),  # beyond Unicode
        (b"\xe2\x82", 2),  # torn
        (b"\xc3\xa9", 0),
        (b"\xef\xbf\xbd", 1),
    ],
)
def test_bytes_that_are_no_utf8_are_replaced_each(data: bytes, points: int) -> None:
    counts = Grams(CharacterGrams(), Vocabulary(("\ufffd", "b")))
    pipeline = Pipeline(FeatureSpec((StringColumn("s"),), Text("s", counts), "FP64"))
    out = np.empty((1, 2))
    pipeline.run(b"", [join_bytes([b"B" + data])], 1, out, None)
    assert out.tolist() == [[points, 1]]
