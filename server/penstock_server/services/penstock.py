"""The methods of `penstock.v1.Penstock`, which the supervisor answers."""

from penstock import penstock_pb2 as pb
from penstock.names import CONTROL_SERVICE, DRIFT_STATE_METHOD
from penstock_server.services.forwarded import Forward, forwarded
from penstock_server.transport.interface import Methods


def penstock_methods(forward: Forward) -> Methods:
    requests = {DRIFT_STATE_METHOD: pb.DriftStateRequest}
    return Methods(forwarded(CONTROL_SERVICE, requests, forward, protocol=CONTROL_SERVICE), {})
