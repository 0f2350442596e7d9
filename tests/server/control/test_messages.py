from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.control import messages
from penstock_server.control.messages import command, event, framed
from penstock_server.errors import InvalidInputError
from penstock_server.frames import HEAD
from penstock_server.rollout.plan import Arm, ModelRoutes, ShadowArm, TrafficPlan, VersionStatus

TEXT = st.text(max_size=20)
ARMS = st.lists(st.builds(Arm, TEXT, st.floats(0, 0.5), TEXT), max_size=2).map(tuple)
SHADOWS = st.lists(st.builds(ShadowArm, TEXT, st.floats(0, 1), TEXT), max_size=2).map(tuple)
PLANS = st.builds(TrafficPlan, TEXT, ARMS, SHADOWS)
STATES = st.sampled_from(["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"])
ROUTES = st.builds(
    ModelRoutes, PLANS | st.none(), st.dictionaries(TEXT, st.builds(VersionStatus, STATES, TEXT), max_size=3)
)
COUNTS = st.integers(0, 2**40)
TIMES = st.floats(0, 1e9)
COMMANDS = st.one_of(
    st.builds(messages.Load, TEXT, TEXT, TEXT, TEXT, COUNTS, COUNTS),
    st.builds(
        messages.Serve,
        COUNTS,
        st.dictionaries(TEXT, ROUTES, max_size=3),
        st.booleans(),
        st.lists(TEXT, max_size=3).map(tuple),
    ),
    st.builds(messages.Unload, TEXT, TEXT),
    st.builds(messages.Listen, TEXT),
    st.builds(messages.Drain, TIMES),
    st.builds(messages.ControlReply, COUNTS, st.binary(max_size=20)),
    st.builds(messages.ControlError, COUNTS, TEXT, TEXT),
)
EVENTS = st.one_of(
    st.builds(messages.Loaded, TEXT, TEXT, TIMES, st.booleans(), TIMES, TIMES),
    st.builds(messages.LoadFailed, TEXT, TEXT, TEXT),
    st.builds(messages.ProcessEnded, TEXT, TEXT, TEXT),
    st.builds(messages.Served, COUNTS),
    st.builds(messages.Unloaded, TEXT, TEXT),
    st.builds(messages.Listening, TEXT),
    st.builds(messages.ListenFailed, TEXT),
    st.builds(messages.ControlRequest, COUNTS, TEXT, st.binary(max_size=20)),
)


def body_of(frame: bytes) -> bytes:
    (size,) = HEAD.unpack_from(frame)
    assert len(frame) == HEAD.size + size
    return frame[HEAD.size :]


@given(message=COMMANDS)
def test_commands_arrive_as_they_were_sent(message: Any) -> None:
    assert command(body_of(framed(message))) == message


@given(message=EVENTS)
def test_events_arrive_as_they_were_sent(message: Any) -> None:
    assert event(body_of(framed(message))) == message


def test_an_event_is_no_command() -> None:
    with pytest.raises(msgspec.ValidationError):
        command(body_of(framed(messages.Served(1))))


def test_a_plan_is_checked_when_it_arrives() -> None:
    plan = {"champion": "1", "canaries": [{"version": "2", "weight": 7.0}]}
    serve = {"type": "Serve", "generation": 1, "models": {"m": {"plan": plan, "statuses": {}}}, "is_settled": True}
    with pytest.raises(InvalidInputError, match="a canary's weight is 700 percent, expected 0 to 100 percent"):
        command(msgspec.msgpack.encode(serve))
