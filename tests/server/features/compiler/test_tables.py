import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.features.compiler import layout
from penstock_server.features.compiler.tables import mixed_of, signed, size_words, slot_count, table_words, words_of

START = 100
STRINGS = st.lists(st.binary(max_size=20), unique=True, max_size=40)


def slots_of(words: list[int]) -> list[list[int]]:
    count = words[layout.TABLE_MASK] + 1
    first = layout.TABLE_WORDS
    return [words[first + at * layout.SLOT_WORDS :][: layout.SLOT_WORDS] for at in range(count)]


@given(STRINGS)
def test_a_search_from_the_hash_finds_every_string_before_a_free_slot(values: list[bytes]) -> None:
    words = table_words(values, START).tolist()
    slots = slots_of(words)
    for code, value in enumerate(values):
        mixed = mixed_of(words_of(value))
        at = mixed & words[layout.TABLE_MASK]
        while slots[at][layout.SLOT_CODE] != code:
            assert slots[at][layout.SLOT_CODE] >= 0, "a free slot ends the search"
            at = (at + 1) % len(slots)
        assert slots[at][layout.SLOT_HASH] == signed(mixed)
        length, text_at = slots[at][layout.SLOT_LENGTH_BYTES], slots[at][layout.SLOT_TEXT] - START
        text = np.array(words[text_at : text_at + len(words_of(value))], np.int64).tobytes()
        assert (text[:length], text[length:].strip(b"\0")) == (value, b"")


@given(STRINGS)
def test_a_table_is_at_most_a_quarter_full_and_as_large_as_was_announced(values: list[bytes]) -> None:
    words = table_words(values, START).tolist()
    slots = slots_of(words)
    assert len(words) == size_words(values)
    assert len(slots) == slot_count(len(values)) >= max(2, 4 * len(values))
    assert sum(slot[layout.SLOT_CODE] >= 0 for slot in slots) == len(values)
    assert words[layout.TABLE_LONGEST] == max(map(len, values), default=0)
    assert words[layout.TABLE_COUNT] == len(values)


@pytest.mark.parametrize(("word", "expected"), [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1)])
def test_a_signed_word_has_the_same_bits(word: int, expected: int) -> None:
    assert signed(word) == expected


@pytest.mark.parametrize(("values", "slots"), [(0, 2), (1, 4), (2, 8), (3, 16), (4, 16), (5, 32), (16, 64), (17, 128)])
def test_slots_are_a_power_of_two(values: int, slots: int) -> None:
    assert slot_count(values) == slots
