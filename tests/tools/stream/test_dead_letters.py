"""Dead letters are the messages as they came, with the reason."""

from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.stream.dead_letters import MOST_CHARACTERS, dead_letter
from penstock_tools.stream.message import Message

HEADERS = st.one_of(st.none(), st.lists(st.tuples(st.sampled_from(["id", "penstock.error", "trace"]), st.binary())))


@given(
    key=st.one_of(st.none(), st.binary()),
    value=st.one_of(st.none(), st.binary()),
    headers=HEADERS,
    reason=st.text(min_size=1),
)
def test_nothing_of_a_message_is_lost(key, value, headers, reason):
    message = Message(3, 41, key, value, 1_700_000_000_000, headers)
    letter = dead_letter(message, "unreadable", reason, topic="dead", source="rows", version=("fraud", "7"))
    assert (letter.topic, letter.key, letter.value) == ("dead", key, value)
    own = [each for each in headers or [] if not each[0].startswith("penstock.")]
    assert letter.headers[: len(own)] == own
    told = dict(letter.headers[len(own) :])
    assert told["penstock.error"].decode() == reason[:MOST_CHARACTERS]
    assert told["penstock.error.kind"] == b"unreadable"
    assert (told["penstock.topic"], told["penstock.partition"], told["penstock.offset"]) == (b"rows", b"3", b"41")
    assert (told["penstock.model"], told["penstock.version"]) == (b"fraud", b"7")
    assert told["penstock.timestamp_ms"] == b"1700000000000"


def test_a_dead_letter_that_dies_again_tells_of_the_second_time():
    first = dead_letter(Message(0, 1, None, b"x"), "unreadable", "first", topic="d", source="rows", version=("m", "1"))
    again = Message(0, 2, first.key, first.value, None, first.headers)
    second = dead_letter(again, "unanswered", "second", topic="d", source="again", version=("m", "2"))
    names = [name for name, _ in second.headers]
    assert len(names) == len(set(names))
    assert dict(second.headers)["penstock.error"] == b"second"
