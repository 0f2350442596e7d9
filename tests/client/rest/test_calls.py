"""Clients of REST, of threads and of tasks, against a server of this process."""

import asyncio
import socket
import ssl
import threading

import numpy as np
import pandas as pd
import pytest

from penstock_client import (
    AsyncClient,
    Backoff,
    Client,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    PenstockClientError,
    ServerError,
    ServerUnavailableError,
    TensorSpec,
    Tls,
    UnsupportedError,
)
from penstock_client.rest.calls import place_of
from tests.client.conftest import fares
from tests.client.rest.front import Front
from tests.client.test_channel import Authority

ROW = {"age": 41, "city": "Oslo"}
QUICK = Backoff(initial_s=0.001, cap_s=0.002)


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch):
    for name in ("https_proxy", "http_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def client(front):
    with Client(front.address, backoff=QUICK) as client:
        yield client


def infers(front):
    return [body for verb, path, _, body in front.seen if path.endswith("/infer")]


def test_the_methods_are_those_of_grpc(client, front):
    prediction = client.predict("fares", ROW, request_id="r-1", version="3", routing_key="u")
    assert prediction["fare"].tolist() == [82.0]
    assert (prediction.model, prediction.version, prediction.role, prediction.request_id) == (
        "fares",
        "3",
        "champion",
        "r-1",
    )
    assert (prediction.timing.queue_s, prediction.timing.batch_rows) == (0.00025, 8)
    assert client.is_live()
    assert client.is_ready()
    assert client.is_ready("fares")
    assert not client.is_ready("nothing")
    assert client.metadata("fares").inputs == (
        TensorSpec("age", "INT64", (-1,)),
        TensorSpec("city", "BYTES", (-1, 1), missing=""),
    )
    assert [line.state for line in client.index()] == ["READY", "LOADING"]
    client.wait_ready("fares", timeout_s=5)
    assert "/v2/models/fares/versions/3/infer" in {path for _, path, _, _ in front.seen}


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16", "INT8", "UINT64", "BOOL"])
def test_tensors_come_back_as_they_were(client, datatype):
    values = [[[1.0, 0.0], [1.0, 1.0]]]
    given = np.array(values, bool if datatype == "BOOL" else np.float32)
    assert client.predict(datatype, {"x": given})["x"].astype(float).tolist() == values


def test_floats_without_a_number_come_back(client):
    found = client.predict("FP32", {"x": np.array([[[np.nan, np.inf, -np.inf]]], np.float32)})["x"]
    assert np.isnan(found[0, 0, 0])
    assert (found[0, 0, 1], found[0, 0, 2]) == (np.inf, -np.inf) or np.isnan(found).all()


def test_frames_are_taken_and_given(client):
    frame = pd.DataFrame({"age": [41, 7], "city": ["Oslo", None]})
    assert client.predict("fares", frame).frame()["fare"].tolist() == [82.0, 14.0]


def test_one_connection_serves_one_call_after_another(client, front):
    for _ in range(5):
        client.predict("fares", ROW)
    assert len(front.connections) == 1
    assert sum(path == "/v2" for _, path, _, _ in front.seen) == 1


def test_calls_overlap_and_keep_their_order(client):
    answers = client.predict_many("fares", [{"age": age, "city": "x"} for age in range(30)], in_flight=8)
    assert [answer["fare"].item() for answer in answers] == [2.0 * age for age in range(30)]


def test_headers_go_with_calls(front):
    with Client(front.address, headers={"Authorization": "Bearer x"}) as client:
        client.predict("fares", ROW, headers={"X-Tenant": "a"})
    assert {headers["authorization"] for _, _, headers, _ in front.seen} == {"Bearer x"}
    assert {headers["x-tenant"] for _, _, headers, _ in front.seen} == {"a"}
    host = front.address.removeprefix("http://")
    assert {headers["host"] for _, _, headers, _ in front.seen} == {host}


def test_a_prefix_goes_before_every_path(front):
    with Client(front.address + "/prefix/") as client:
        assert client.predict("fares", ROW)["fare"].tolist() == [82.0]
    assert {path.split("/")[1] for _, path, _, _ in front.seen} == {"prefix"}


def test_errors_have_their_meaning(client, front):
    with pytest.raises(
        ModelNotFoundError, match=rf"no model 'nothing' is served \(model 'nothing' at {front.address}\)"
    ):
        client.predict("nothing", ROW)
    with pytest.raises(InvalidRequestError, match="missing 'city'"):
        client.predict("fares", {"age": 1})
    with pytest.raises(UnsupportedError, match="ask by gRPC"):
        client.drift_state()
    with pytest.raises(UnsupportedError, match="a stream needs gRPC"):
        list(client.predict_stream("fares", [ROW]))


def test_a_server_that_is_back_answers(client, front):
    client.predict("fares", ROW)
    front.answers[:] = [(503, {}, b"starting"), (429, {"Retry-After": "0"}, b'{"error": "full"}'), False]
    assert client.predict("fares", ROW)["fare"].tolist() == [82.0]
    assert len(infers(front)) == 5


def test_a_connection_that_was_closed_while_idle_is_replaced(client, front):
    client.predict("fares", ROW)
    (idle,) = client._calls._idle
    idle.sock.shutdown(socket.SHUT_RDWR)
    with Client(front.address, retries=0) as other:
        other._calls._idle.append(idle)
        idle.is_fresh = False
        client._calls._idle.clear()
        assert other.is_live()


def test_a_connection_that_breaks_is_told(front):
    with Client(front.address, retries=0) as client:
        front.answers[:] = [False]
        with pytest.raises(ServerUnavailableError, match=r"the connection to 127.0.0.1:\d+ broke"):
            client.metadata("fares")


def test_an_absent_server_is_told(front):
    front.stop()
    with Client(front.address, retries=1, backoff=QUICK) as client:
        with pytest.raises(ServerUnavailableError, match="failed to connect"):
            client.predict("fares", ROW)
        assert not client.is_live()


def test_a_deadline_is_kept(front):
    held = threading.Event()
    front.fake.models["fares"].answer = lambda request: held.wait(10) and fares(request)
    with Client(front.address) as client:
        client.metadata("fares")
        with pytest.raises(DeadlineExceededError):
            client.predict("fares", ROW, timeout_s=0.2)
    held.set()


def test_a_reply_beyond_the_limit_is_refused(front):
    with Client(front.address, max_message_bytes=2000) as client:
        client.metadata("fares")
        front.answers[:] = [(200, {}, b"{}"), (200, {}, b"x" * 3000)]
        with pytest.raises(InvalidRequestError, match="larger than max"):
            client.predict("fares", ROW)


def test_closing_ends_calls_of_other_threads(front):
    arrived, held, errors = threading.Event(), threading.Event(), []
    front.fake.models["fares"].answer = lambda request: arrived.set() or (held.wait(10) and fares(request))

    def ask():
        try:
            client.predict("fares", ROW)
        except PenstockClientError as error:
            errors.append(error)

    client = Client(front.address)
    thread = threading.Thread(target=ask)
    thread.start()
    assert arrived.wait(10)
    client.close()
    thread.join(10)
    held.set()
    assert [type(error) for error in errors] == [ServerError]
    with pytest.raises(PenstockClientError, match="the client is closed"):
        client.is_live()


def test_calls_are_spread_over_servers_of_both_wires(front, server):
    with Client([front.address, server.address], backoff=QUICK) as client:
        for _ in range(8):
            assert client.predict("fares", ROW)["fare"].tolist() == [82.0]
    assert len(infers(front)) >= 3
    assert len(server.calls("ModelInfer")) >= 3


async def test_asyncio(front):
    async with AsyncClient(front.address) as client:
        assert (await client.predict("fares", ROW))["fare"].tolist() == [82.0]
        found = await asyncio.gather(*(client.predict("fares", {"age": age, "city": "x"}) for age in range(20)))
        assert [answer["fare"].item() for answer in found] == [2.0 * age for age in range(20)]
        assert not await client.is_ready("nothing")


def test_a_forked_process_has_connections_of_its_own(client, front):
    client.predict("fares", ROW)
    client._calls.forget()
    client.predict("fares", ROW)
    assert len(front.connections) == 2


def test_requests_go_through_the_proxy_that_the_environment_names(front, monkeypatch):
    proxy = front.address.replace("http://", "http://user:secret@")
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("https_proxy", proxy)
    with Client("http://models.invalid:8000", retries=0) as client:
        front.answers[:] = [(200, {}, b"{}")]
        assert client.is_live()
    _, path, headers, _ = front.seen[0]
    assert path == "http://models.invalid:8000/v2/health/live"
    assert headers["proxy-authorization"] == "Basic dXNlcjpzZWNyZXQ="
    with Client("https://models.invalid", retries=0) as client:
        assert not client.is_live()
    assert front.seen[1][:2] == ("CONNECT", "models.invalid:443")
    monkeypatch.setenv("no_proxy", "models.invalid")
    assert place_of("http://models.invalid", None).proxy is None


def test_a_connection_is_encrypted(server, tmp_path):
    authority = Authority("the test's authority")
    import ipaddress

    from cryptography import x509

    certificate, key = authority.issue("server", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    (tmp_path / "pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    context.load_verify_locations(cadata=authority.pem.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    front = Front(server, context=context)
    trusting = {"root_certificates": authority.pem}
    own, own_key = authority.issue("client")
    try:
        for more in ({}, {"certificate_chain": own, "private_key": own_key}):
            with Client(front.address, tls=Tls(**trusting, **more)) as client:
                assert client.predict("fares", ROW)["fare"].tolist() == [82.0]
        with Client(front.address, retries=0) as client, pytest.raises(ServerUnavailableError, match="VERIFY_FAILED"):
            client.predict("fares", ROW)
        with Client(front.address, tls=Tls(**trusting, server_name="other"), retries=0) as client:
            assert not client.is_live()
    finally:
        front.stop()


@pytest.mark.parametrize("address", ["http://", "https://:1", "http://a:1?x=1", "http://user@a:1"])
def test_an_address_is_a_host_and_no_more(address):
    with pytest.raises(ValueError, match="expected as"):
        Client(address)
