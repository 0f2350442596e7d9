"""Penstock keeps the protocol: every case of the suite, against a real server with the models of the contract."""

import pytest

from bench.conformance.servers import PENSTOCK, running
from penstock_conformance import cases, report
from penstock_conformance.case import Outcome
from penstock_conformance.grpc_wire import GrpcWire
from penstock_conformance.run import tried


@pytest.fixture(scope="module")
def server():
    with running(PENSTOCK) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_case_of_grpc_passes(server):
    wire = GrpcWire(server.grpc, {})
    try:
        results = tried(wire, cases.grpc(), frozenset(), lambda _: None)
    finally:
        wire.close()
    assert report.failures(results) == ""
    # Of Triton's extensions Penstock names the parameters of scheduling nowhere, and takes them all the same.
    absent = {result.case.extension for result in results if result.outcome is Outcome.NOT_OFFERED}
    assert absent <= {"schedule_policy"}
