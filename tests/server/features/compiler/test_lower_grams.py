import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.features.compiler import layout, tables
from penstock_server.features.compiler.lower_grams import term_words


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=30, unique=True), st.integers(0, 1000))
def test_a_table_of_terms_holds_each_where_its_hash_begins(terms: list[bytes], start: int) -> None:
    slots = 1 << (2 * len(terms) - 1).bit_length()
    words = term_words({term: 7 * at for at, term in enumerate(terms)}, slots, start)
    assert words[layout.TERMS_MASK] == slots - 1
    assert words[layout.TERMS_LONGEST] == max(map(len, terms))
    table = words[layout.TERMS_WORDS : layout.TERMS_WORDS + slots].view(np.uint64).tolist()
    for at, term in enumerate(terms):
        text = tables.words_of(term)
        mixed = tables.mixed_of(text)
        slot = mixed % slots
        found = []
        while table[slot]:
            if table[slot] >> 32 == mixed >> 32:
                place = (table[slot] & 0xFFFFFFFF) - start
                found.append(words[place : place + 1 + len(text)].view(np.uint64).tolist())
            slot = (slot + 1) % slots
        assert [7 * at << layout.CODE_AT | len(term), *text] in found
