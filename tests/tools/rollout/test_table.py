import pytest
from rich.console import Console

from penstock_tools.rollout.fetch import Served
from penstock_tools.rollout.table import drawn
from tests.tools.rollout.served import BOTH, MISMATCHED, NAME


@pytest.mark.parametrize(
    ("served", "words"),
    [
        (BOTH, ("version 4: running", "now at 25 %", "proven worse", "3 champion", "5 canary", "ratio", "Intervals hold")),
        (Served(NAME, None, MISMATCHED), ("were not shared by the weights",)),
    ],
)  # fmt: skip
def test_it_is_shown_in_words(served, words):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(drawn(served))
    shown = capture.get()
    for each in words:
        assert each in shown
