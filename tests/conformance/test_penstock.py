"""Penstock keeps the protocol: every case of the suite, against a real server with the models of the contract."""

import numpy as np
import pytest

from bench.conformance.servers import PENSTOCK, running
from penstock_client import Client, InvalidRequestError, ModelNotFoundError
from penstock_conformance import cases, report
from penstock_conformance.case import Outcome
from penstock_conformance.contract import SUM, identity
from penstock_conformance.grpc_wire import GrpcWire
from penstock_conformance.rest_wire import RestWire
from penstock_conformance.run import tried

# A dozen models are tried and served; what the cases ask is asked of each room in tests/server too.
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server():
    with running(PENSTOCK) as found:
        yield found


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


def test_every_case_of_rest_passes(server):
    results = tried(RestWire(server.rest, {}), cases.rest(), frozenset(), lambda _: None)
    assert report.failures(results) == ""
    assert {result.outcome for result in results} == {Outcome.PASSED}


def test_the_client_asks_by_rest_as_by_grpc(server):
    rows = {"A": np.arange(8, dtype=np.float32).reshape(2, 4), "B": np.full((2, 4), np.inf, np.float32)}
    with Client(f"http://{server.rest}") as by_rest, Client(server.grpc) as by_grpc:
        found, expected = (client.predict(SUM, rows, request_id="r") for client in (by_rest, by_grpc))
        assert {name: values.tolist() for name, values in found.items()} == {
            name: values.tolist() for name, values in expected.items()
        }
        assert (found.model, found.version, found.request_id) == (expected.model, expected.version, "r")
        assert by_rest.metadata(SUM) == by_grpc.metadata(SUM)
        assert by_rest.index() == by_grpc.index()
        for client in (by_rest, by_grpc):
            assert client.is_ready(SUM)
            with pytest.raises(ModelNotFoundError, match="model 'nothing' is not served"):
                client.predict("nothing", rows)
            with pytest.raises(InvalidRequestError, match=r"(column|input|tensor) 'B'"):
                client.predict(SUM, {**rows, "B": rows["B"][:, :3]})
        texts = [[b"a", "\u2603"], ["", "b"]]
        assert by_rest.predict(identity("BYTES"), {"INPUT": texts})["OUTPUT"].tolist() == [["a", "\u2603"], ["", "b"]]
