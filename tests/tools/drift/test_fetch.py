from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import pytest

from penstock import penstock_pb2 as pb
from penstock_server.drift.answer import DriftReport, UnwatchedVersion, answer, as_json, as_message
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_tools.drift import fetch
from tests.tools.drift import drift_records
from tests.tools.drift.drift_records import CANARY, JOINT

BARE = UnwatchedVersion("plain", "4", ("champion",))
CHAMPION = replace(drift_records.CHAMPION, joint=JOINT)
REPORT = DriftReport((CANARY, CHAMPION), (BARE,))
EMPTY = "no version of model 'nothing' is loaded"


@pytest.fixture(scope="module")
def grpc_address():
    def drift_state(message, context):
        try:
            return answer(message, lambda: REPORT)
        except NotFoundError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    def live(_message, _context):
        return b"\x08\x01"

    server = grpc.server(ThreadPoolExecutor(2))
    own = {"DriftState": grpc.unary_unary_rpc_method_handler(drift_state)}
    inference = {"ServerLive": grpc.unary_unary_rpc_method_handler(live)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("penstock.v1.Penstock", own),
            grpc.method_handlers_generic_handler("inference.GRPCInferenceService", inference),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def http_server(serving):
    serving.body = as_json(REPORT)
    return serving


def test_a_reply_holds_the_servers_records():
    assert fetch.report_of(as_message(REPORT)) == REPORT
    assert fetch.report_of(pb.DriftStateResponse()) == DriftReport()


def test_grpc_gives_the_report(grpc_address):
    assert fetch.fetch(grpc_address, "flights") == DriftReport((CANARY, CHAMPION))
    with pytest.raises(NotFoundError, match=f"{EMPTY} at {grpc_address}; `penstock models` shows what is"):
        fetch.fetch(grpc_address, "nothing")


@pytest.mark.parametrize("slash", ["", "/"])
def test_http_gives_the_report(http_server, slash):
    assert fetch.fetch(http_server.url + slash, "a/b?ü") == REPORT
    assert http_server.asked == ["/v1/drift/a%2Fb%3F%C3%BC"]


def test_http_refusals(http_server):
    http_server.status, http_server.body = 404, b'{"error":"' + EMPTY.encode() + b'"}'
    with pytest.raises(NotFoundError, match=f"{EMPTY} at http"):
        fetch.fetch(http_server.url, "nothing")
    http_server.status = 500
    with pytest.raises(InvalidInputError, match="answers 500 to /v1/drift/m; is it the --http-port of penstock"):
        fetch.fetch(http_server.url, "m")


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"versions": [{}], "unwatched": []}', b"\xff"])
def test_another_service_is_recognised(http_server, status, body):
    http_server.status, http_server.body = status, body
    with pytest.raises(InvalidInputError, match="is not that of a Penstock server"):
        fetch.fetch(http_server.url, "m")


@pytest.mark.parametrize("address", ["127.0.0.1:9", "http://127.0.0.1:9"])
def test_nobody_there(address, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_S", 1.0)
    with pytest.raises(UnavailableError, match=f"no server answers at {address}; start one with `penstock serve`"):
        fetch.fetch(address, "m")


@pytest.mark.parametrize("address", ["", "http://", "http://a b"])
def test_addresses_that_are_none(address):
    with pytest.raises((InvalidInputError, UnavailableError)):
        fetch.fetch(address, "m")


@pytest.mark.parametrize(
    ("report", "version", "expected"),
    [
        (DriftReport((CANARY, CHAMPION)), "", CHAMPION),
        (DriftReport((CANARY, CHAMPION)), "2", CANARY),
        (DriftReport((CANARY, CHAMPION)), "@shadow", CANARY),
        (DriftReport((CANARY,)), "", CANARY),
        (DriftReport((CANARY,), (UnwatchedVersion("flights", "9", ()),)), "", CANARY),
    ],
)
def test_which_version_is_meant(report, version, expected):
    assert fetch.version_of(report, "flights", version) == expected


@pytest.mark.parametrize("watched", [(), (replace(CANARY, model="plain"),)])
def test_without_a_baseline_it_says_what_to_do(watched):
    with pytest.raises(
        NotFoundError, match=r"version 4 of model 'plain' was published without a drift baseline.*--sample"
    ):
        fetch.version_of(DriftReport(watched, (BARE,)), "plain")


def test_the_error_for_a_version_that_is_not_loaded_lists_the_loaded():
    report = DriftReport((CANARY, CHAMPION), (BARE,))
    said = r"no version '7' of model 'flights' is loaded; there are 2 \(canary, shadow\), 1 \(champion\)$"
    with pytest.raises(NotFoundError, match=said):
        fetch.version_of(report, "flights", "7")
