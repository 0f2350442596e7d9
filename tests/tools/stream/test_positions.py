"""Which messages are taken, and what the group remembers, whatever comes and goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.stream.message import Message
from penstock_tools.stream.positions import UNKNOWN, Positions


def messages(*places):
    return [Message(partition, offset, None, b"") for partition, offset in places]


def offsets(batch):
    return [(message.partition, message.offset) for message in batch.messages]


@pytest.mark.parametrize(
    ("held", "came", "taken", "after"),
    [
        ({0: 5}, [(0, 5), (0, 6)], [(0, 5), (0, 6)], {0: 7}),
        ({0: 5}, [(0, 3), (0, 4), (0, 5)], [(0, 5)], {0: 6}),
        ({0: 5}, [(0, 5), (0, 5), (0, 6), (0, 5)], [(0, 5), (0, 6)], {0: 7}),
        ({0: 5}, [(1, 0)], [], {}),
        ({0: UNKNOWN, 1: 2}, [(1, 2), (0, 40), (1, 9)], [(1, 2), (0, 40), (1, 9)], {0: 41, 1: 10}),
        ({}, [(0, 0)], [], {}),
        ({0: 0}, [], [], {}),
    ],
    ids=["next", "old", "twice", "not held", "unknown start and gaps", "nothing held", "nothing came"],
)
def test_takes_what_is_held_and_new(held, came, taken, after):
    batch = Positions(held).batch(messages(*came))
    assert offsets(batch) == taken
    assert batch.after == after
    assert batch.before == {partition: min(at for each, at in taken if each == partition) for partition in after}


def test_an_aborted_batch_is_taken_again():
    held = Positions({0: 5, 1: 0})
    batch = held.batch(messages((0, 5), (1, 3)))
    assert held.rewound(batch) == {0: 5, 1: 3}
    assert held.batch(batch.messages) == batch


def test_a_batch_says_nothing_of_partitions_that_are_gone():
    held = Positions({0: 5, 1: 0})
    batch = held.batch(messages((0, 5), (1, 3)))
    left = held.without([1])
    assert left.rewound(batch) == {0: 5}
    assert left.past(batch).next == {0: 6}


STEP = st.one_of(
    st.tuples(st.just("give"), st.integers(0, 2)),
    st.tuples(st.just("take"), st.integers(0, 2)),
    st.tuples(st.just("commit"), st.integers(0, 3)),
    st.tuples(st.just("abort"), st.integers(0, 3)),
    st.tuples(st.just("stale"), st.integers(0, 9)),
)


@given(steps=st.lists(STEP, max_size=60))
def test_two_members_answer_each_message_once_whatever_comes_and_goes(steps):
    """Partition 0 goes between two members; `committed` is what the group remembers, and answers are counted at commits."""
    committed, answered, members, holder = 0, [], [Positions(), Positions()], None
    for what, number in steps:
        if what == "give":
            # The group gives a partition only once its former holder has given it up.
            if holder is not None:
                members[holder] = members[holder].without([0])
            holder = number % 2
            members[holder] = members[holder].given({0: committed or UNKNOWN})
        elif what == "take" and holder is not None:
            members[holder] = members[holder].without([0])
            holder = None
        elif what in {"commit", "abort"} and holder is not None:
            # What the client hands out may begin before the position, and may hold a message twice.
            came = [(0, at) for at in (*range(max(0, committed - number), committed + number), committed)]
            batch = members[holder].batch(messages(*came))
            if what == "commit" and batch.messages:
                answered += [message.offset for message in batch.messages]
                committed = batch.after[0]
                members[holder] = members[holder].past(batch)
        elif what == "stale":
            idle = members[1 - holder] if holder is not None else members[0]
            assert not idle.batch(messages((0, number))).messages
    if answered:
        # Each offset once, in order, from the first that came to a group that remembered nothing.
        assert answered == list(range(answered[0], committed))
