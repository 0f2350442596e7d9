import sys

import numpy as np
import pytest

from penstock_server.features.compiler import characters, layout
from penstock_server.features.compiler.characters import ASSIGNED
from penstock_server.features.spec.grams import Accents


@pytest.mark.long
def test_code_points_outside_the_table_are_nothing_to_python() -> None:
    outside = set(range(sys.maxunicode + 1)).difference(*ASSIGNED)
    for point in outside:
        character = chr(point)
        assert not character.isalnum()
        assert not character.isspace()
        assert character == character.lower() == character.upper() == character.casefold()


@pytest.mark.long
@pytest.mark.parametrize("case", ["keep", "lower", "upper", "casefold"])
@pytest.mark.parametrize("accents", ["keep", "unicode", "ascii"])
def test_ascii_characters_become_one_each(case: characters.Case, accents: Accents) -> None:
    texts = characters.mapping(case, accents).texts
    assert all(len(texts[point]) == 1 for point in range(layout.ASCII) if point in texts)


def test_equal_blocks_are_there_once() -> None:
    assert characters.class_words(None, 0).nbytes < 100_000
    assert characters.mapping_words(characters.mapping("lower", "unicode"), 0).nbytes < 1_000_000


def test_a_table_points_into_itself_wherever_it_is() -> None:
    mapping = characters.mapping("lower", "keep")
    at_zero, moved = characters.mapping_words(mapping, 0), characters.mapping_words(mapping, 1000)
    stage = slice(layout.MAPPING_WORDS + layout.ASCII, layout.MAPPING_WORDS + layout.ASCII + layout.POINTS // 128)
    np.testing.assert_array_equal(at_zero[stage] + 1000, moved[stage])
