import doctest

import pytest

from penstock_tools.demo import format as words
from penstock_tools.demo import plan
from penstock_tools.demo import results as tally


@pytest.mark.parametrize("module", [plan, tally, words])
def test_the_examples_hold(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
