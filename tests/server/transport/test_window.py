import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.transport.window import (
    FIRST_REPLY_BYTES,
    UNSENT_MESSAGES,
    WINDOW_BYTES,
    WINDOW_MESSAGES,
    StreamWindow,
)


def filled(window: StreamWindow, size: int) -> int:
    """How many messages of this size it lets in."""
    messages = 0
    while window.is_open:
        window.received(size)
        messages += 1
        assert messages <= WINDOW_MESSAGES
    return messages


def answer(window: StreamWindow, size: int) -> None:
    window.received(100)
    window.replied(size)
    window.sent()


def test_a_new_stream_starts_with_few_messages() -> None:
    assert filled(StreamWindow(), 10) == WINDOW_BYTES // FIRST_REPLY_BYTES - 1


def test_small_answers_open_the_window_to_its_number_of_messages() -> None:
    window = StreamWindow()
    for _ in range(10):
        answer(window, 100)
    assert filled(window, 100) == WINDOW_MESSAGES


@pytest.mark.parametrize(("reply", "expected"), [(WINDOW_BYTES // 10, 9), (WINDOW_BYTES, 1), (10 * WINDOW_BYTES, 1)])
def test_large_answers_close_it_and_one_message_is_always_let_in(reply: int, expected: int) -> None:
    window = StreamWindow()
    answer(window, reply)
    assert filled(window, 10) == expected


@pytest.mark.parametrize(("message", "expected"), [(WINDOW_BYTES, 1), (WINDOW_BYTES // 4, 4)])
def test_large_messages_close_it(message: int, expected: int) -> None:
    window = StreamWindow()
    for _ in range(20):
        answer(window, 1)
    assert filled(window, message) == expected


def test_answers_that_are_not_read_keep_it_closed() -> None:
    window = StreamWindow()
    for _ in range(10):
        answer(window, 100)
    messages = filled(window, 100)
    for _ in range(messages):
        window.replied(100)
    assert not window.is_open
    window.sent()
    assert window.is_open
    for _ in range(messages - 1):
        window.sent()
    assert window.is_quiet


def test_it_is_quiet_when_everything_is_answered_and_sent() -> None:
    window = StreamWindow()
    assert window.is_quiet
    window.received(1)
    assert not window.is_quiet
    window.replied(1)
    assert not window.is_quiet
    window.sent()
    assert window.is_quiet


def test_messages_that_nobody_asked_for_overrun_it() -> None:
    window = StreamWindow()
    for _ in range(UNSENT_MESSAGES):
        window.replied(1)
    assert not window.is_overrun
    window.replied(1)
    assert window.is_overrun


@given(
    st.lists(st.tuples(st.sampled_from(["receive", "reply", "send"]), st.integers(0, 2 * WINDOW_BYTES)), max_size=200)
)
def test_what_it_lets_in_is_bounded(steps: list[tuple[str, int]]) -> None:
    window = StreamWindow()
    received = replied = sent = 0
    for step, size in steps:
        if step == "receive" and window.is_open:
            window.received(size)
            received += 1
        elif step == "reply" and replied < received:
            window.replied(size)
            replied += 1
        elif step == "send" and sent < replied:
            window.sent()
            sent += 1
        assert received - sent <= WINDOW_MESSAGES
        assert window.is_quiet == (received == sent)
        if window.is_quiet:
            assert window.is_open


def test_bytes_are_let_in_to_the_last_one() -> None:
    window = StreamWindow()
    for _ in range(FIRST_REPLY_BYTES.bit_length()):
        answer(window, 0)  # then no answer is expected to take anything
    window.received(WINDOW_BYTES)
    assert window.is_open
    window.received(1)
    assert not window.is_open


def test_one_large_answer_that_is_not_read_closes_it() -> None:
    window = StreamWindow()
    window.received(1)
    window.replied(WINDOW_BYTES)
    assert not window.is_open


def test_a_large_message_takes_nothing_once_it_is_answered() -> None:
    window = StreamWindow()
    for _ in range(20):
        answer(window, 1)
    window.received(WINDOW_BYTES)
    window.replied(1)
    window.sent()
    assert filled(window, 100) == WINDOW_MESSAGES


def test_after_a_large_answer_half_as_much_is_expected() -> None:
    window = StreamWindow()
    answer(window, WINDOW_BYTES // 4)
    answer(window, 1)
    assert filled(window, 1) == 7
