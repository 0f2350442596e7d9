import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from penstock import penstock_pb2 as pb
from penstock_server.access.audit import Audited
from penstock_server.access.settings import ANYBODY
from penstock_server.call import Call
from penstock_server.control.port import reserve
from penstock_server.errors import DeniedError, InvalidInputError, NotFoundError
from penstock_server.parse import SMALL_BYTES
from penstock_server.services.penstock import penstock_methods
from penstock_server.transport.aio import AioTransport
from penstock_server.transport.completion_queue import CompletionQueueTransport
from penstock_server.transport.settings import TransportSettings

PATH = "/penstock.v1.Penstock/DriftState"
COMMAND = "/penstock.v1.Penstock/RolloutCommand"
TIMEOUT_S = 10.0


class Idle:
    """A scheduler without work."""

    is_due = False

    def step(self) -> float:
        return 0.01


def forward(name: str, message: bytes, call: Call) -> None:
    """Answers later, from another thread's point of view, with what was asked."""
    request = pb.DriftStateRequest.FromString(message)
    if request.model == "unknown":
        raise NotFoundError("no model 'unknown'")
    version = pb.VersionDrift(model=request.model, version=request.version, rows=len(name))
    reply = pb.DriftStateResponse(versions=[version]).SerializeToString()
    threading.Thread(target=call.finish, args=(reply,)).start()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\xff", r"the message is not a DriftStateRequest of penstock\.v1\.Penstock"),
        (b"\n\x01\xff", "the message is not a DriftStateRequest"),
        (
            b"\n" + bytes(SMALL_BYTES),
            f"takes {SMALL_BYTES + 1} bytes, expected at most {SMALL_BYTES}",
        ),
    ],
)
def test_bad_messages_go_nowhere(message: bytes, said: str, fake_call: Any) -> None:
    asked: list[str] = []
    methods = penstock_methods(lambda name, _message, _call: asked.append(name), allows_control=True)
    with pytest.raises(InvalidInputError, match=said):
        methods.unary[PATH](message, fake_call())
    assert asked == []


def test_a_message_goes_on_as_it_came(fake_call: Any) -> None:
    asked: list[tuple[str, bytes, Call]] = []
    call = fake_call()
    # An unknown field, of a later version of the contract, is not lost on its way.
    message = pb.DriftStateRequest(model="m").SerializeToString() + b"\xf8\x07\x01"
    penstock_methods(lambda *question: asked.append(question), allows_control=False).unary[PATH](message, call)
    assert asked == [("DriftState", message, call)]


@pytest.mark.parametrize(
    ("who", "said", "by"),
    [(None, "ann", "ann"), (ANYBODY, "ann", "ann"), ("token:ops", "ann", "token:ops"), ("token:ops", "", "token:ops")],
)
def test_a_command_goes_on_with_the_name_that_is_known(who: str | None, said: str, by: str, fake_call: Any) -> None:
    asked: list[tuple[str, bytes, Call]] = []
    call = fake_call() if who is None else Audited(fake_call(), who=who, action="RolloutCommand", model="m")
    methods = penstock_methods(lambda *question: asked.append(question), allows_control=True)
    message = pb.RolloutCommandRequest(model="m", command="pause", by=said)
    methods.unary[COMMAND](message.SerializeToString(), call)
    ((name, body, asking),) = asked
    assert (name, asking) == ("RolloutCommand", call)
    assert pb.RolloutCommandRequest.FromString(body) == pb.RolloutCommandRequest(model="m", command="pause", by=by)


def test_rollouts_are_commanded_only_where_control_is_allowed(fake_call: Any) -> None:
    asked: list[str] = []
    methods = penstock_methods(lambda name, _message, _call: asked.append(name), allows_control=False)
    with pytest.raises(DeniedError, match=r"grpc\.allow_control allows it"):
        methods.unary[COMMAND](pb.RolloutCommandRequest(model="m").SerializeToString(), fake_call())
    assert asked == []


@pytest.fixture(params=[CompletionQueueTransport, AioTransport])
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    transport = request.param(penstock_methods(forward, allows_control=False), Idle(), TransportSettings())
    thread = threading.Thread(target=transport.run)
    thread.start()
    with reserve("127.0.0.1", 0) as reserved:
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        transport.listen(address)
        with contextlib.closing(grpc.insecure_channel(address)) as opened:
            yield opened
        transport.drain(0)
        thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def call_of(channel: grpc.Channel) -> Any:
    return channel.unary_unary(
        PATH,
        request_serializer=pb.DriftStateRequest.SerializeToString,
        response_deserializer=pb.DriftStateResponse.FromString,
    )


def test_both_transports_serve_it(channel: grpc.Channel) -> None:
    drift_state = call_of(channel)
    reply = drift_state(pb.DriftStateRequest(model="m", version="@champion"), timeout=TIMEOUT_S, wait_for_ready=True)
    assert reply.versions == [pb.VersionDrift(model="m", version="@champion", rows=len("DriftState"))]
    with pytest.raises(grpc.RpcError) as refused:
        drift_state(pb.DriftStateRequest(model="unknown"), timeout=TIMEOUT_S)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.NOT_FOUND, "no model 'unknown'")
