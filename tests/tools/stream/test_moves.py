"""What follows an error in a transaction."""

import pytest

from penstock_tools.stream.moves import Fault, move_after, reason


@pytest.mark.parametrize(
    ("flags", "move"),
    [
        ({}, "end"),
        ({"is_passing": True}, "again"),
        ({"aborts": True}, "abort"),
        ({"aborts": True, "is_passing": True}, "abort"),
        ({"is_fatal": True}, "end"),
        ({"is_fatal": True, "aborts": True, "is_passing": True}, "end"),
    ],
)
def test_a_move_for_each_kind_of_error(flags, move):
    assert move_after(Fault("_X", "why", **flags)) == move


def test_says_who_took_its_place():
    fenced = Fault("_FENCED", "Local: fenced", is_fatal=True)
    assert "another process with --instance pod-0" in reason(fenced, "pod-0")
    assert "the broker has ended" in reason(fenced, "")
    assert reason(Fault("X", "no such thing"), "") == "Kafka refuses: no such thing"
