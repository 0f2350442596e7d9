"""Clients that others wrote, against a real server: right answers, and what HTTP/2 and gRPC promise beside them."""

import asyncio
import fcntl
import json
import queue
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from penstock import inference_pb2 as pb
from penstock.tensors import to_raw
from penstock_client.http2.frames import GOAWAY, PING
from tests.integration import foreign_clients
from tests.integration.conftest import Server, need_nghttp2, starting
from tests.integration.foreign_clients import (
    INFER,
    SERVING,
    STREAM,
    WATCH,
    Asked,
    ForeignClient,
    Outcome,
    Place,
    framed,
    unframed,
)
from tests.integration.wiretap import Wiretap

pytestmark = pytest.mark.slow

CLIENTS: dict[str, Callable[..., AbstractContextManager[ForeignClient]]] = {
    "grpcio": foreign_clients.grpcio,
    "grpc.aio": foreign_clients.grpc_aio,
    "grpclib": foreign_clients.grpclib_client,
    "grpc-js": foreign_clients.grpc_js,
    "curl": foreign_clients.curl,
}
COMPRESSING = [name for name in CLIENTS if name != "grpclib"]  # it does not compress
PATIENT = [name for name in CLIENTS if name != "curl"]  # it fails when it is answered before it has sent all
MULTIPLEXING = [name for name in CLIENTS if name != "curl"]  # it makes one after the other
REMEMBERING = [name for name in CLIENTS if name != "grpclib"]  # it forgets trailers when a reset follows them
TIMEOUT_S = foreign_clients.TIMEOUT_S
MAX_MESSAGE_BYTES = 1 << 20
KSERVE = "kserve==0.21.0"
GRPC_HEADERS = ["--header=:method: POST", "--header=content-type: application/grpc", "--header=te: trailers"]
BATCHING = """
[batching.models]
waiting = { max_delay_s = 1000 }  # answers none at once
full = { max_delay_s = 1000, queue_requests = 1 }
"""
ROWS = np.array([[1.0, 2.0], [-1.0, -3.0], [0.5, 0.25]], np.float32)


def asked(name: str = "flag", rows: np.ndarray[Any, Any] = ROWS, **fields: Any) -> bytes:
    made = pb.ModelInferRequest(model_name=name, raw_input_contents=[rows.tobytes()], **fields)
    made.inputs.add(name="X", datatype="FP32", shape=rows.shape)
    return made.SerializeToString()


def streamed(reply: bytes) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse.FromString(reply)


def labels(reply: bytes) -> list[int]:
    return np.frombuffer(pb.ModelInferResponse.FromString(reply).raw_output_contents[0], np.int64).tolist()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the server's certificate and a caller's, each its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates, and is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "caller"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
             f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN={name}", "-addext",
             "subjectAltName=IP:127.0.0.1,DNS:localhost"],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
    return folder


Served = tuple[Server, Place]
Serve = Callable[[str, str], Served]


@pytest.fixture(scope="module")
def serve(
    request: pytest.FixtureRequest,
    environment: dict[str, str],
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    flag_model: bytes,
    strings_model: bytes,
    put_version: Callable[..., Path],
) -> Iterator[Serve]:
    """Servers by transport and kind of place; each starts when it is first asked for."""
    folder = tmp_path_factory.mktemp("foreign")
    for name in ("flag", "full", "waiting"):
        put_version(folder / "models", name, "1", flag_model)
    put_version(folder / "models", "strings", "3", strings_model)
    with starting(environment, logs) as start:

        @cache
        def serve(transport: str, kind: str) -> Served:
            if transport == "native":
                need_nghttp2()
            grpc_settings = [f"max_message_bytes = {MAX_MESSAGE_BYTES}"]
            ca = certificate = key = None
            if "tls" in kind:
                files: Path = request.getfixturevalue("certificates")
                ca, certificate, key = files / "server.pem", files / "caller.pem", files / "caller.key"
                grpc_settings += [f'tls_certificate = "{ca}"', f'tls_key = "{files / "server.key"}"']
                if kind == "mtls":
                    grpc_settings.append(f'tls_client_ca = "{certificate}"')
                else:
                    certificate = key = None
            config = folder / f"{transport}-{kind}.toml"
            config.write_text("\n".join(["rest_port = 0", "[grpc]", *grpc_settings, BATCHING]))
            host = {"unix": f"unix:{folder / 'socket'}", "ipv6": "::1"}.get(kind, "127.0.0.1")
            server = start(
                "--transport", transport, "--host", host, "--config", str(config), "--model-repository",
                str(folder / "models"),
            ).wait_ready(protocol="http")  # fmt: skip
            assert server.transports() == [transport]
            return server, Place(host if kind == "unix" else server.grpc, ca, certificate, key)

        yield serve


@pytest.fixture(scope="session")
def node_modules(request: pytest.FixtureRequest) -> Path:
    """A folder with @grpc/grpc-js in the versions of its lock, kept between test runs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("@grpc/grpc-js needs node and npm, which are not installed")
    listed = foreign_clients.GRPC_JS.parent
    folder = Path(request.config.cache.mkdir("grpc-js"))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted, installed = (listed / "package-lock.json").read_bytes(), folder / "installed.json"
        if not installed.exists() or installed.read_bytes() != wanted:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(listed / name, folder)
            subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
            installed.write_bytes(wanted)
    return folder


Connect = Callable[..., ForeignClient]


@pytest.fixture(scope="module")
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Opens clients by their names."""
    with ExitStack() as opened:

        def connect(name: str, place: Place, *more: str, **options: int) -> ForeignClient:
            arguments: tuple[Any, ...] = more
            if name == "grpc-js":
                arguments = (request.getfixturevalue("node_modules"),)
            elif name == "curl":
                _need_curl()
            return opened.enter_context(CLIENTS[name](place, *arguments, **options))

        yield connect


def _need_curl() -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if "HTTP2" not in subprocess.run(["curl", "--version"], check=True, capture_output=True, text=True).stdout:
        pytest.skip("this curl has no HTTP/2")


# The completion queue's HTTP/2 is grpcio's own, which all of these clients meet elsewhere.
COMPLETION_QUEUE = pytest.param("completion-queue", marks=pytest.mark.long)


@pytest.fixture(scope="module", params=["native", COMPLETION_QUEUE])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def served(transport: str, serve: Serve) -> Served:
    return serve(transport, "plain")


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest, served: Served, connect: Connect) -> ForeignClient:
    return connect(request.param, served[1])


def only(client: ForeignClient, *arguments: Any, **keywords: Any) -> Outcome:
    """Makes one call."""
    (outcome,) = client.play([Asked(*arguments, **keywords)])
    return outcome


def assert_answers(client: ForeignClient) -> None:
    outcome = only(client, INFER, [asked()])
    assert (outcome.code, list(map(labels, outcome.replies))) == ("OK", [[1, 0, 1]]), outcome


def test_it_answers(client: ForeignClient) -> None:
    assert_answers(client)


@pytest.mark.parametrize("client", MULTIPLEXING, indirect=True)
def test_many_calls_at_once_get_their_own_answers(client: ForeignClient) -> None:
    outcomes = client.play([Asked(INFER, [asked(id=str(number))]) for number in range(100)])
    replies = [pb.ModelInferResponse.FromString(reply) for outcome in outcomes for reply in outcome.replies]
    assert [reply.id for reply in replies] == list(map(str, range(100)))


@pytest.mark.parametrize("client", COMPRESSING, indirect=True)
def test_compressed_messages_are_read(client: ForeignClient) -> None:
    rows = np.tile(ROWS, (1000, 1))
    outcome = only(client, INFER, [asked("flag", rows)], is_compressed=True)
    assert (outcome.code, list(map(labels, outcome.replies))) == ("OK", [[1, 0, 1] * 1000])
    outcome = only(client, STREAM, [asked(id=str(number)) for number in range(5)], is_unary=False, is_compressed=True)
    assert [streamed(reply).infer_response.id for reply in outcome.replies] == list("01234")


def test_messages_larger_than_the_windows_go_both_ways(client: ForeignClient) -> None:
    text = np.array([["x" * 300_000, "y" * 400_000]], object)
    made = pb.ModelInferRequest(model_name="strings", raw_input_contents=[to_raw(text), ROWS[:1].tobytes()])
    made.inputs.add(name="text", datatype="BYTES", shape=[1, 2])
    made.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    outcomes = client.play([Asked(INFER, [made.SerializeToString()])] * 4)
    replies = [pb.ModelInferResponse.FromString(reply) for outcome in outcomes for reply in outcome.replies]
    assert [list(reply.raw_output_contents) for reply in replies] == [list(made.raw_input_contents)] * 4


def test_an_error_has_its_details(client: ForeignClient) -> None:
    outcome = only(client, INFER, [asked("modèle 😀 100%")])
    assert (outcome.code, outcome.replies) == ("NOT_FOUND", [])
    assert outcome.details == "model 'modèle 😀 100%' is not served; served now: 'flag', 'full', 'strings', 'waiting'"
    assert_answers(client)


@pytest.mark.parametrize("client", PATIENT, indirect=True)
def test_who_is_answered_early_stops_sending(client: ForeignClient) -> None:
    calls = [Asked(INFER, [bytes(MAX_MESSAGE_BYTES + 1)]), Asked("/a.B/C", [bytes(MAX_MESSAGE_BYTES)])]
    outcomes = client.play([*calls, *[Asked(INFER, [asked()])] * 5])
    assert [outcome.code for outcome in outcomes] == ["RESOURCE_EXHAUSTED", "UNIMPLEMENTED", *["OK"] * 5]
    assert_answers(client)


def test_a_stream_answers_in_order_and_goes_on_after_an_error(client: ForeignClient) -> None:
    messages = [asked("nothing" if number == 10 else "flag", id=str(number)) for number in range(30)]
    outcome = only(client, STREAM, messages, is_unary=False)
    assert outcome.code == "OK"
    replies = list(map(streamed, outcome.replies))
    assert "'nothing' is not served" in replies.pop(10).error_message
    assert [reply.infer_response.id for reply in replies] == [str(number) for number in range(30) if number != 10]


def test_metadata_reach_the_server(client: ForeignClient) -> None:
    metadata = (("x-bytes-bin", bytes(range(256))), ("triton_grpc_error", "true"))
    outcome = only(client, STREAM, [asked(), asked("nothing")], is_unary=False, metadata=metadata)
    assert (outcome.code, len(outcome.replies)) == ("NOT_FOUND", 1)  # without them the error would be a message


@pytest.fixture(scope="module")
def full_queue(served: Served) -> Iterator[None]:
    """While the one place in a model's queue is taken."""
    with grpc.insecure_channel(served[1].address) as channel:
        both = [channel.unary_unary(INFER).future(asked("full"), timeout=1000) for _ in range(2)]
        ended: queue.Queue[grpc.Future] = queue.Queue()
        for each in both:
            each.add_done_callback(ended.put)
        assert ended.get(timeout=TIMEOUT_S).code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # so the other one waits
        yield


@pytest.mark.parametrize("client", REMEMBERING, indirect=True)
def test_metadata_reach_the_caller(client: ForeignClient, full_queue: None) -> None:
    outcome = only(client, INFER, [asked("full")])
    assert (outcome.code, outcome.trailers["grpc-retry-pushback-ms"]) == ("RESOURCE_EXHAUSTED", "-1")


def test_a_call_ends_at_its_deadline(client: ForeignClient) -> None:
    outcome = only(client, WATCH, [b""], is_unary=False, timeout_s=0.2)
    assert (outcome.code, outcome.replies) == ("DEADLINE_EXCEEDED", [SERVING])
    assert_answers(client)


@pytest.mark.parametrize("is_unary", [True, False])
def test_what_a_caller_left_is_given_up(
    client: ForeignClient, served: Served, until: Callable[..., Any], is_unary: bool
) -> None:
    server, _ = served

    def given_up() -> float:
        return server.total("penstock_refusals_total", model_name="waiting", reason="cancelled")

    before = given_up()
    method = INFER if is_unary else STREAM
    # With a near deadline the request would not wait for others.
    call = Asked(method, [asked("waiting")], is_unary=is_unary, timeout_s=1000, leave_after_s=0.2)
    outcomes = client.play([call] * 3)
    assert [(outcome.code, outcome.replies) for outcome in outcomes] == [("CANCELLED", [])] * 3
    until(lambda: given_up() > before, "what waited is given up")
    assert_answers(client)


@pytest.mark.parametrize("kind", ["tls", "mtls"])
@pytest.mark.parametrize("name", ["grpcio", "grpc-js", "curl"])
def test_tls(serve: Serve, connect: Connect, kind: str, name: str) -> None:
    _, place = serve("native", kind)
    client = connect(name, place)
    outcomes = client.play([Asked(INFER, [asked("flag", np.tile(ROWS, (5_000, 1)))])] * 4)
    assert [(outcome.code, *map(labels, outcome.replies)) for outcome in outcomes] == [("OK", [1, 0, 1] * 5_000)] * 4
    assert_answers(client)


@pytest.mark.parametrize("name", ["grpcio", "grpc-js", "curl"])
def test_who_shows_no_certificate_is_refused(serve: Serve, connect: Connect, name: str) -> None:
    _, place = serve("native", "mtls")
    client = connect(name, replace(place, certificate=None, key=None))
    assert only(client, INFER, [asked()]).code == "UNAVAILABLE"
    assert_answers(connect(name, place))


def test_a_socket_file(serve: Serve, connect: Connect) -> None:
    _, place = serve("native", "unix")
    assert_answers(connect("grpcio", place))
    path = place.address.removeprefix("unix:")
    assert_answers(connect("curl", Place("localhost"), "--unix-socket", path))


def test_ipv6(serve: Serve, connect: Connect) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    _, place = serve("native", "ipv6")
    assert_answers(connect("grpcio", place))


@pytest.mark.parametrize("name", ["grpcio", "grpc-js"])
def test_a_caller_may_ping_as_often_as_it_likes(
    served: Served, connect: Connect, until: Callable[..., Any], name: str
) -> None:
    _, place = served
    eager = {"keepalive_time_ms": 5, "keepalive_timeout_ms": 5000, "keepalive_permit_without_calls": 1}
    with Wiretap(place.address) as tap:
        client = connect(name, Place(tap.address), **eager, **{"http2.max_pings_without_data": 0})
        assert only(client, WATCH, [b""], is_unary=False, timeout_s=0.5).code == "DEADLINE_EXCEEDED"
        pings = tap.count_sent(PING)
        Event().wait(1.2)
        assert_answers(client)
        assert tap.connections == 1
        # With a call, and without. grpcio sends no more than one per second, whatever it is told.
        assert (pings >= (1 if name == "grpcio" else 20), tap.count_sent(PING) > pings) == (True, True)
        sent = tap.count_sent(PING)
        until(lambda: tap.count_received(PING) >= sent, "each ping is answered")
        assert tap.count_received(GOAWAY) == 0


def tensor(rows: np.ndarray[Any, Any] = ROWS) -> list[triton.InferInput]:
    made = triton.InferInput("X", list(rows.shape), "FP32")
    made.set_data_from_numpy(rows)
    return [made]


@pytest.fixture
def triton_client(served: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served[1].address) as client:
        yield client


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient_infers(triton_client: triton.InferenceServerClient, compression: str | None) -> None:
    result = triton_client.infer("flag", tensor(), request_id="r-1", compression_algorithm=compression)
    assert (result.as_numpy("label").tolist(), result.get_response().id) == ([1, 0, 1], "r-1")


def test_tritonclient_calls_back(triton_client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    for _ in range(50):
        triton_client.async_infer("flag", tensor(), lambda result, error: answers.put(error or result))
    for _ in range(50):
        assert answers.get(timeout=TIMEOUT_S).as_numpy("label").tolist() == [1, 0, 1]


def test_tritonclient_streams(triton_client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    triton_client.start_stream(lambda result, error: answers.put(error or result), compression_algorithm="gzip")
    for number in range(30):
        model = "nothing" if number == 10 else "flag"
        triton_client.async_stream_infer(model, tensor(ROWS[number % 3 :]), request_id=str(number))
    found = [answers.get(timeout=TIMEOUT_S) for _ in range(30)]
    triton_client.stop_stream()
    assert isinstance(error := found.pop(10), InferenceServerException)
    assert "'nothing' is not served" in str(error)
    assert [(result.get_response().id, result.as_numpy("label").tolist()) for result in found] == [
        (str(number), [1, 0, 1][number % 3 :]) for number in range(30) if number != 10
    ]


async def test_tritonclient_on_asyncio(served: Served) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(5):
            yield {"model_name": "flag", "inputs": tensor(), "request_id": str(number)}

    async with triton_aio.InferenceServerClient(served[1].address) as client:
        assert await client.is_model_ready("flag")
        results = await asyncio.gather(*(client.infer("flag", tensor()) for _ in range(50)))
        assert [result.as_numpy("label").tolist() for result in results] == [[1, 0, 1]] * 50
        streamed = [result.get_response().id async for result, _ in client.stream_infer(requests())]
        assert streamed == list("01234")


@pytest.mark.long  # it makes an environment, and KServe takes long to import
@pytest.mark.timeout(600)  # it may have to be downloaded
def test_the_kserve_sdk(serve: Serve, tmp_path: Path) -> None:
    """In an environment of its own: it asks for other releases of what the server uses."""
    server, place = serve("native", "plain")
    python = tmp_path / "venv" / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    subprocess.run([*uv, "pip", "install", "--python", str(python), KSERVE], check=True)
    script = Path(foreign_clients.__file__).with_name("kserve_client.py")
    asked = [str(python), str(script), place.address, server.rest]
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    over_grpc, over_rest = map(json.loads, done.stdout.splitlines())
    assert over_grpc.pop("unknown")[0] == "NOT_FOUND"
    assert over_rest.pop("unknown")[0] == 404
    assert over_rest.pop("v1") == [1, 0]
    # Of what comes over REST the SDK does not keep the version.
    for found, (flag, strings) in ((over_grpc, ("1", "3")), (over_rest, (None, None))):
        assert found == {
            "live": True,
            "ready": True,
            "model": True,
            **{form: [form, flag, [1, 0]] for form in ("list", "array")},
            **{form: [form, strings, [["a", "é"]]] for form in ("strings", "array of strings")},
        }


def test_nghttp(serve: Serve, tmp_path: Path) -> None:
    """Its requests have priorities and padding, which gRPC's core does not take."""
    if shutil.which("nghttp") is None:
        pytest.skip("nghttp is not installed; it comes with nghttp2-client")
    _, place = serve("native", "plain")
    body = tmp_path / "body"
    body.write_bytes(framed(asked()))
    url, more = f"{place.url}{INFER}", [*GRPC_HEADERS, "--data", str(body), "--padding=50", "--window-bits=4"]
    plain = subprocess.run(["nghttp", *more, url], check=True, capture_output=True)
    assert list(map(labels, unframed(plain.stdout))) == [[1, 0, 1]]
    shown = subprocess.run(["nghttp", "-nv", *more, url], check=True, capture_output=True, text=True).stdout
    assert re.search(r"grpc-status: 0\n.* recv HEADERS .*\n.*; END_STREAM \| END_HEADERS", shown), shown
    assert "RST_STREAM" not in shown


@pytest.mark.parametrize(
    ("transport", "kind", "requests"),
    [
        ("native", "plain", 10_000),
        ("native", "tls", 10_000),
        pytest.param("completion-queue", "plain", 2_000, marks=pytest.mark.long),
    ],
    indirect=["transport"],
)
def test_h2load(serve: Serve, until: Any, tmp_path: Path, transport: str, kind: str, requests: int) -> None:
    if shutil.which("h2load") is None:
        pytest.skip("h2load is not installed; it comes with nghttp2-client")
    server, place = serve(transport, kind)
    body = tmp_path / "body"
    body.write_bytes(framed(asked()))
    load = [f"--requests={requests}", "--clients=8", "--max-concurrent-streams=32"]
    before = server.total("penstock_requests_total", model_name="flag")
    done = subprocess.run(
        ["h2load", *load, *GRPC_HEADERS, "--data", str(body), f"{place.url}{INFER}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    # It looks at no grpc-status; the server counts what it answered, a batch at a time when its answers have left.
    until(
        lambda: server.total("penstock_requests_total", model_name="flag") == before + requests,
        "all answers are counted",
    )


def test_who_speaks_http1_is_told_what_this_port_is(serve: Serve) -> None:
    _need_curl()
    _, place = serve("native", "plain")
    done = subprocess.run(
        ["curl", "--silent", "--noproxy", "*", "--http1.1", "--write-out", " %{http_code}", place.url],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "this port speaks gRPC, which is over HTTP/2\n 400"
