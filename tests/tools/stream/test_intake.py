"""How many messages are taken at once."""

from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.stream.intake import Intake

SIZES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 10**9)), max_size=20)


@given(most=st.integers(1, 10_000), most_bytes=st.integers(1, 10**8), seen=SIZES)
def test_asks_for_a_message_at_least_and_for_no_more_than_fit(most, most_bytes, seen):
    intake = Intake(most, most_bytes, 0.02)
    for messages, size in seen:
        intake = intake.seen(messages, size)
        assert 1 <= intake.ask_for <= most
        assert intake.ask_for == 1 or intake.ask_for * intake.message_bytes <= most_bytes * (1 + 1e-9)


def test_one_batch_of_large_messages_is_enough_to_ask_for_fewer():
    small = Intake(1000, 1_000_000, 0.02).seen(1000, 100_000)
    assert small.ask_for == 1000
    large = small.seen(1000, 100_000_000)
    assert large.ask_for == 10
    for _ in range(60):
        large = large.seen(10, 1000)
    assert large.ask_for == 1000


def test_no_messages_change_nothing():
    intake = Intake(10, 10, 0.0, 5.0)
    assert intake.seen(0, 0) == intake
