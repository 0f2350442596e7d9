"""The methods of `penstock.v1.Penstock`, which the supervisor answers."""

from penstock import penstock_pb2 as pb
from penstock.names import CONTROL_SERVICE, DRIFT_STATE_METHOD, ROLLOUT_COMMAND_METHOD, ROLLOUT_STATE_METHOD
from penstock_server.access.audit import Audited
from penstock_server.access.settings import ANYBODY
from penstock_server.call import Call
from penstock_server.errors import DeniedError
from penstock_server.parse import parse_small
from penstock_server.services.forwarded import Forward, forwarded
from penstock_server.transport.interface import Methods


def penstock_methods(forward: Forward, *, allows_control: bool) -> Methods:
    """The methods.

    Args:
        forward: asks the supervisor, which knows all workers and the registry.
        allows_control: whether callers may command rollouts.
    """
    requests = {DRIFT_STATE_METHOD: pb.DriftStateRequest, ROLLOUT_STATE_METHOD: pb.RolloutStateRequest}

    def command(message: bytes, call: Call) -> None:
        if not allows_control:
            raise DeniedError("rollouts are not commanded by calls here; the setting grpc.allow_control allows it")
        request = parse_small(pb.RolloutCommandRequest, message, CONTROL_SERVICE)
        if isinstance(call, Audited) and call.who != ANYBODY:
            request.by = call.who  # who it says it is does not matter where that is known
        forward(ROLLOUT_COMMAND_METHOD, request.SerializeToString(), call)

    return Methods(
        {
            **forwarded(CONTROL_SERVICE, requests, forward, protocol=CONTROL_SERVICE),
            f"/{CONTROL_SERVICE}/{ROLLOUT_COMMAND_METHOD}": command,
        },
        {},
    )
