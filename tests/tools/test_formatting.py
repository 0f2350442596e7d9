import doctest

from hypothesis import given
from hypothesis import strategies as st

from penstock_tools import formatting


def test_examples():
    found = doctest.testmod(formatting)
    assert found.attempted > 0
    assert found.failed == 0


@given(text=st.text(max_size=60))
def test_names_cannot_steer_a_terminal(text):
    shown = formatting.safe(text)
    assert shown.isprintable()
    assert len(shown) <= formatting.LONGEST_NAME
