"""Which version answers which message, and what goes out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.rollout.plan import Arm, TrafficPlan
from penstock_tools.stream.answering import Topics, answered, routed, routing_key
from penstock_tools.stream.message import Message
from tests.tools.stream.toy import Toy

TOPICS = Topics("rows", "answers", "dead")
SPLIT = TrafficPlan("1", (Arm("2", 0.5),))


def value(x, number=0):
    return json.dumps({"id": number, "x": x}).encode()


def outcome(messages, plan=SPLIT, most_bytes=1 << 20):
    versions = {"1": Toy("1"), "2": Toy("2")}
    return answered(messages, plan, versions, model="toy", topics=TOPICS, most_bytes=most_bytes), versions


KEYS = st.one_of(st.none(), st.sampled_from([b"a", b"b", b"c", b"d", b"\xff"]))
VALUES = st.one_of(st.none(), st.binary(max_size=3), st.floats(-5, 5).map(value))


@given(st.lists(st.tuples(KEYS, VALUES), max_size=30))
def test_each_message_gets_one_outcome_in_its_place(given_messages):
    messages = [Message(0, at, key, each) for at, (key, each) in enumerate(given_messages)]
    found, _ = outcome(messages)
    assert len(found.outgoing) == len(messages)
    for message, sent in zip(messages, found.outgoing, strict=True):
        assert sent.key == message.key
        if sent.topic == "answers":
            assert json.loads(sent.value)["double"] == 2 * json.loads(message.value)["x"]
        else:
            assert sent.value == message.value
            assert dict(sent.headers)["penstock.offset"] == str(message.offset).encode()
    dead = sum(sum(part.dead.values()) for part in found.parts)
    assert dead == sum(sent.topic == "dead" for sent in found.outgoing)
    assert dead + sum(part.answered for part in found.parts) == len(messages)


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=40), st.floats(0, 1))
def test_a_key_goes_where_a_server_sends_it(keys, weight):
    plan = TrafficPlan("1", (Arm("2", weight),))
    places = routed(plan, "churn", [Message(0, at, key, b"") for at, key in enumerate(keys)])
    for version, own in places.items():
        assert {plan.choose("churn", routing_key(keys[place]))[0] for place in own} <= {version}
    assert sorted(place for own in places.values() for place in own) == list(range(len(keys)))


def test_versions_answer_their_shares_in_one_batch_each():
    messages = [Message(0, at, b"%d" % at, value(at, at)) for at in range(200)]
    found, versions = outcome(messages)
    assert [len(each.batches) for each in versions.values()] == [1, 1]
    assert [json.loads(each.value)["id"] for each in found.outgoing] == list(range(200))
    shares = [json.loads(each.value)["model_version"] for each in found.outgoing]
    assert 60 < shares.count("2") < 140


def test_headers_go_with_the_answer():
    headers = [("traceparent", b"00-1"), ("empty", None)]
    found, _ = outcome([Message(0, 0, b"k", value(1), None, headers)])
    assert found.outgoing[0].headers == headers


@pytest.mark.parametrize("most_bytes", [10])
def test_an_answer_that_cannot_be_sent_is_a_dead_letter(most_bytes):
    found, _ = outcome([Message(0, 0, None, value(1))], most_bytes=most_bytes)
    (sent,) = found.outgoing
    assert sent.topic == "dead"
    assert b"a message may have 10" in dict(sent.headers)["penstock.error"]
