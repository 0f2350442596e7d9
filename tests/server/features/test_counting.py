import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift.baseline import StringBaseline
from penstock_server.features import counting as layout
from penstock_server.features.cells import NumberCells
from penstock_server.features.counting import number_words, place_in_guide, string_words

LARGEST = np.finfo(np.float64).max


ODD = [0.0, -0.0, 1.0, 1.0000001, -1.0, 1e308, -1e308, LARGEST, 5e-324, -5e-324, np.inf, -np.inf, np.nan]


REALS = st.floats() | st.sampled_from(ODD) | st.floats(-2, 2, width=16)


FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-2, 2, width=16)


KNOWN = ("b", "a", "z", "only here, and long enough")


WORDS = StringBaseline("s", KNOWN, (5, 4, 3))


@given(st.lists(FINITE, unique_by=lambda value: value + 0.0, min_size=1, max_size=60).map(sorted), st.lists(REALS))
def test_a_guide_leads_to_the_first_edge_that_may_be_larger(edges: list[float], values: list[float]) -> None:
    words = number_words(NumberCells(tuple(edges)))
    low, scale, top = np.array(words[layout.LOW : layout.TOP + 1], np.int64).view(np.float64).tolist()
    size = words[layout.EDGES_AT] - layout.GUIDE
    guide = np.array(words[layout.GUIDE : words[layout.EDGES_AT]])
    finite = np.array([value for value in values if np.isfinite(value)], np.float64)
    places = place_in_guide(finite, low, scale, int(top))
    assert ((places >= 0) & (places < size)).all()
    exact = np.searchsorted(np.array(edges), finite, side="right")
    assert ((guide[places] <= exact) & (exact <= guide[places] + words[layout.REACH])).all()


def test_words_of_strings_name_a_cell_for_every_code() -> None:
    found = string_words(WORDS.cells, ["", "z", "?", "a", "only here, and long enough"], 7)
    assert found == [7, 2, 9, 1, 3, 9]
