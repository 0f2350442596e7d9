"""Callers of the REST port of a real server: Triton's HTTP client, curl's kind, and those who mean harm."""

import base64
import gzip
import http.client
import json
import random
import secrets
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from penstock import inference_pb2 as pb
from penstock_server.access.tokens import line_of

Server = Any  # the process that conftest starts

TIMEOUT_S = 20.0
ROWS = np.array([[1.0, 2.0], [-1.0, -3.0], [0.5, 0.25]], np.float32)
LABELS = [1, 0, 1]
MAX_BYTES = 1 << 20


@pytest.fixture(scope="module", params=["native", "completion-queue", "aio"])
def server(
    request: pytest.FixtureRequest, start_shared: Any, plain_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    file = tmp_path_factory.mktemp("rest") / "penstock.toml"
    file.write_text(f"rest_port = 0\n[grpc]\nmax_message_bytes = {MAX_BYTES}\n")
    arguments = ["--model-repository", str(plain_repository), "--transport", request.param, "--config", str(file)]
    return start_shared(*arguments).wait_ready()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.rest, network_timeout=TIMEOUT_S, concurrency=4) as opened:
        yield opened


def ask(
    server: Server, path: str, body: Any = None, *, method: str = "", headers: dict[str, str] | None = None
) -> tuple[int, Any, http.client.HTTPMessage]:
    """A request's status, its answer, as what JSON says where it is that, and the headers."""
    connection = http.client.HTTPConnection(server.rest, timeout=TIMEOUT_S)
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, sent, headers or {})
        response = connection.getresponse()
        content = response.read()
        is_json = response.getheader("content-type") == "application/json" and content
        return response.status, json.loads(content) if is_json else content, response.headers
    finally:
        connection.close()


def workers_of(server: Server) -> list[int]:
    """The process ids of a server's workers."""
    children = psutil.Process(server.pid).children(recursive=True)
    return [each.pid for each in children if "penstock_server.worker" in each.cmdline()]


def flag_body(rows: np.ndarray[Any, Any] = ROWS, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "X", "datatype": "FP32", "shape": list(rows.shape), "data": rows.tolist()}], **more}


def flag_input(*, is_binary: bool) -> list[triton.InferInput]:
    made = triton.InferInput("X", list(ROWS.shape), "FP32")
    made.set_data_from_numpy(ROWS, binary_data=is_binary)
    return [made]


def test_triton_s_client_sees_a_ready_server(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("flag")
    assert client.is_model_ready("flag", "1")
    assert not client.is_model_ready("nothing")
    metadata = client.get_model_metadata("flag")
    assert [(each["name"], each["datatype"], each["shape"]) for each in metadata["inputs"]] == [("X", "FP32", [-1, 2])]
    assert client.get_server_metadata()["name"] == "penstock"
    assert client.get_model_config("flag")["input"][0]["data_type"] == "TYPE_FP32"
    assert {(each["name"], each["state"]) for each in client.get_model_repository_index()} == {
        ("flag", "READY"),
        ("strings", "READY"),
    }
    assert client.get_inference_statistics("flag")["model_stats"][0]["name"] == "flag"
    assert client.get_trace_settings("flag")["trace_level"] == ["OFF"]
    assert client.get_log_settings()["log_error"] is True


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("wants_binary", [True, False])
@pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
def test_triton_s_client_infers(
    client: triton.InferenceServerClient,
    is_binary: bool,
    wants_binary: bool,
    packing: str | None,
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=wants_binary) for name in ("label", "probabilities")]
    answer = client.infer(
        "flag",
        flag_input(is_binary=is_binary),
        outputs=outputs,
        request_id="a",
        request_compression_algorithm=packing,
        response_compression_algorithm=packing,
        priority=1,
        timeout=5_000_000,
    )
    assert answer.as_numpy("label").tolist() == LABELS
    assert answer.as_numpy("probabilities").shape == (3, 2)
    response = answer.get_response()
    assert (response["id"], response["model_version"]) == ("a", "1")
    assert response["parameters"]["penstock_role"] == "champion"


def test_triton_s_client_sends_texts_and_asks_for_classes(client: triton.InferenceServerClient) -> None:
    texts = np.array([["a", "é"]], object)
    for is_binary in (True, False):
        made = [triton.InferInput("text", [1, 2], "BYTES"), triton.InferInput("x", [1, 2], "FP32")]
        made[0].set_data_from_numpy(texts, binary_data=is_binary)
        made[1].set_data_from_numpy(np.array([[1.5, 2.5]], np.float32), binary_data=is_binary)
        answer = client.infer("strings", made, outputs=[triton.InferRequestedOutput("text_out", binary_data=is_binary)])
        assert [value if isinstance(value, str) else value.decode() for value in answer.as_numpy("text_out")[0]] == [
            "a",
            "é",
        ]
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1)]
    classes = client.infer("flag", flag_input(is_binary=True), outputs=outputs).as_numpy("probabilities")
    assert [value.decode().rpartition(":")[2] for value in classes[:, 0]] == list(map(str, LABELS))


def test_triton_s_client_infers_asynchronously(client: triton.InferenceServerClient) -> None:
    pending = [client.async_infer("flag", flag_input(is_binary=True)) for _ in range(20)]
    for each in pending:
        assert each.get_result().as_numpy("label").tolist() == LABELS


def test_triton_s_client_reads_the_errors(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="model 'nothing' is not served") as caught:
        client.infer("nothing", flag_input(is_binary=True))
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.register_system_shared_memory("a", "/a", 10)
    with pytest.raises(InferenceServerException, match="allow_control"):
        client.load_model("flag")
    with pytest.raises(InferenceServerException, match="log settings are not changed by calls here"):
        client.update_log_settings({"log_info": False})


def test_answers_are_those_of_grpc(server: Server) -> None:
    request = pb.ModelInferRequest(model_name="flag", raw_input_contents=[ROWS.tobytes()])
    request.inputs.add(name="X", datatype="FP32", shape=ROWS.shape)
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
        )
        expected = infer(request.SerializeToString(), timeout=TIMEOUT_S)
    for _ in range(3):  # the first is read in full, the others by what was kept of it
        status, answer, _ = ask(server, "/v2/models/flag/versions/1/infer", flag_body(id="x"))
        assert status == 200
        for output, raw in zip(answer["outputs"], expected.raw_output_contents, strict=True):
            kind = "<i8" if output["datatype"] == "INT64" else "<f4"
            assert np.array(output["data"], kind).tobytes() == raw


def test_rows_as_people_and_other_servers_write_them(server: Server) -> None:
    rows = ROWS.tolist()
    status, answer, _ = ask(server, "/predict/flag", {"features": rows[0]})
    assert (status, answer["prediction"], answer["version"]) == (200, 1, "1")
    assert answer["probability"] == max(answer["probabilities"])
    assert ask(server, "/predict/flag", {"features": rows})[1]["predictions"] == LABELS
    assert ask(server, "/invocations/flag", {"inputs": rows})[1] == {"predictions": LABELS}
    assert ask(server, "/invocations/flag", {"dataframe_split": {"data": rows}})[1] == {"predictions": LABELS}
    assert ask(server, "/v1/models/flag:predict", {"instances": rows})[1] == {"predictions": LABELS}
    assert ask(server, "/predict/flag?version=9", {"features": rows})[0] == 404
    status, answer, _ = ask(server, "/invocations", {"inputs": rows})
    assert (status, answer["error"]) == (
        404,
        "name the model, as in /invocations/MODEL; only where a single one is served it need not be named",
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v2/models/flag/infer", flag_body(ROWS[:1], id="a")), ("/predict/flag", {"features": [1.0, 2.0]})],
)
def test_answers_stay_the_same_when_kernels_give_them(server: Server, path: str, body: dict[str, Any]) -> None:
    connection = http.client.HTTPConnection(server.rest, timeout=TIMEOUT_S)
    answers = []
    for _ in range(6):
        connection.request("POST", path, json.dumps(body).encode())
        response = connection.getresponse()
        answer = json.loads(response.read())
        for name in ("penstock_queue_us", "penstock_compute_us", "penstock_batch_rows"):
            answer.get("parameters", {}).pop(name, None)
        answers.append((response.status, sorted(dict(response.headers).keys() - {"content-length"}), answer))
    connection.close()
    assert answers == answers[:1] * 6
    assert answers[0][0] == 200


def test_pages_for_people(server: Server) -> None:
    status, page, headers = ask(server, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"curl HOST/predict/flag" in page
    status, document, _ = ask(server, "/openapi.json")
    assert status == 200
    assert "/predict/strings" in document["paths"]
    assert ask(server, "/docs")[0] == 200
    status, script, _ = ask(server, "/docs/swagger-ui-bundle.js")
    assert (status, len(script) > 500_000) == (200, True)
    assert ask(server, "/healthz")[:2] == (200, b"ok\n")
    assert ask(server, "/readyz")[:2] == (200, {"ready": True})


def test_a_large_body_is_read_on_a_thread_and_bounded(server: Server) -> None:
    rows = np.tile(ROWS, (5000, 1))
    status, answer, _ = ask(server, "/v2/models/flag/infer", flag_body(rows))
    assert (status, answer["outputs"][0]["data"]) == (200, LABELS * 5000)
    body = gzip.compress(json.dumps(flag_body(np.zeros((100_000, 2), np.float32))).encode())
    assert ask(server, "/v2/models/flag/infer", body, headers={"content-encoding": "gzip"})[0] == 413
    assert ask(server, "/v2/models/flag/infer", b" " * (MAX_BYTES + 1))[0] == 413


@pytest.mark.parametrize(
    "length", ["-1", "99999999999999999999999", "18446744073709551615", "0x1", " ", "1, 2", "4294967296"]
)
def test_a_hostile_header_length_is_refused(server: Server, length: str) -> None:
    status, answer, _ = ask(
        server, "/v2/models/flag/infer", flag_body(), headers={"Inference-Header-Content-Length": length}
    )
    assert status == 400
    assert "inference-header-content-length" in answer["error"]
    assert ask(server, "/v2/health/live")[0] == 200


def test_callers_that_leave_give_up_what_waits(server: Server) -> None:
    body = json.dumps(flag_body(np.tile(ROWS, (3000, 1)))).encode()
    head = f"POST /v2/models/flag/infer HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(30):
        with socket.create_connection(server.rest.split(":"), timeout=TIMEOUT_S) as caller:
            caller.sendall(head + body)
    assert ask(server, "/predict/flag", {"features": [1, 2]})[1]["prediction"] == 1


def test_mutated_requests_end_nothing(server: Server) -> None:
    """The bench has a million of them; these are drawn anew from the same seed."""
    draw = random.Random(0)
    body = json.dumps(flag_body()).encode()
    good = b"POST /v2/models/flag/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for _ in range(150):
        data = bytearray(good * draw.randint(1, 2))
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(data))
            data[at : at + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
        with socket.create_connection(server.rest.split(":"), timeout=TIMEOUT_S) as caller:
            caller.sendall(data)
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(1 << 16):
                pass
    assert ask(server, "/predict/flag", {"features": [1, 2]})[1]["prediction"] == 1


def test_a_server_that_ends_answers_what_runs(start: Any, plain_repository: Path) -> None:
    server = start("--model-repository", str(plain_repository), "--rest-port", "0").wait_ready()
    statuses: list[int | str] = []
    is_busy, is_over = threading.Event(), threading.Event()

    def call() -> None:
        connection = http.client.HTTPConnection(server.rest, timeout=TIMEOUT_S)
        while not is_over.is_set():
            try:
                connection.request("POST", "/predict/flag", b'{"features": [1, 2]}')
                response = connection.getresponse()
                response.read()
                statuses.append(response.status)
                if len(statuses) == 100:
                    is_busy.set()
            except ConnectionRefusedError:
                return
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                connection.close()  # it was idle for the server when it ended

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert is_busy.wait(TIMEOUT_S)
    assert server.stop() == 0
    is_over.set()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 503}


def test_access_and_tls_are_those_of_grpc(start: Any, plain_repository: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem",
         "-out", "cert.pem", "-days", "2", "-subj", "/CN=shop", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    token = secrets.token_urlsafe(32)
    (tmp_path / "tokens").write_text(line_of("shop", token) + "\n")
    (tmp_path / "penstock.toml").write_text(
        f"""
rest_port = 0
[grpc]
tls_certificate = "{tmp_path}/cert.pem"
tls_key = "{tmp_path}/key.pem"
[access]
tokens = "{tmp_path}/tokens"
[access.rules.shop]
who = ["token:shop"]
may = ["infer"]
models = ["flag"]
"""
    )
    arguments = ["--model-repository", str(plain_repository), "--config", str(tmp_path / "penstock.toml")]
    server = start(*arguments).wait_ready()
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))

    def status(path: str, body: bytes | None, shows: str | None) -> tuple[int, str | None]:
        connection = http.client.HTTPSConnection(server.rest, timeout=TIMEOUT_S, context=context)
        headers = {} if shows is None else {"authorization": shows}
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status, response.getheader("www-authenticate")

    row = b'{"features": [1, 2]}'
    (worker,) = workers_of(server)
    for says_goodbye in (True, False):  # as scanners and balancers do, before any handshake
        for _ in range(3):
            with socket.create_connection(server.rest.split(":"), timeout=TIMEOUT_S) as visitor:
                if says_goodbye:
                    visitor.shutdown(socket.SHUT_WR)
                    while visitor.recv(100):  # an alert, and the end
                        pass
    for _ in range(3):
        assert status("/predict/flag", row, f"Bearer {token}") == (200, None)
        assert status("/predict/flag", row, None) == (401, "Bearer")
        assert status("/predict/flag", row, f"Bearer {token}x") == (401, "Bearer")
        assert status("/predict/flag", row, "Basic " + base64.b64encode(b"a:b").decode()) == (401, "Bearer")
    assert status("/predict/strings", row, f"Bearer {token}")[0] == 403
    assert status("/predict/nothing", row, f"Bearer {token}")[0] == 403  # which is not told from one that is there
    assert status("/v2/models/flag", None, f"Bearer {token}")[0] == 403
    assert status("/", None, None)[0] == 401
    assert status("/openapi.json", None, f"Bearer {token}")[0] == 403
    assert status("/healthz", None, None)[0] == 200
    assert workers_of(server) == [worker]


def test_a_request_like_one_that_was_let_through_lets_nobody_else_through(
    start: Any, plain_repository: Path, tmp_path: Path, until: Any
) -> None:
    """Kernels know its bytes by then, and who may send them is asked again each time."""
    shop, other = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    tokens = tmp_path / "tokens"
    tokens.write_text(line_of("shop", shop) + "\n" + line_of("other", other) + "\n")
    (tmp_path / "penstock.toml").write_text(
        f"""
rest_port = 0
[access]
tokens = "{tokens}"
[access.rules.shop]
who = ["token:shop"]
may = ["infer"]
models = ["flag"]
[access.rules.other]
who = ["token:other"]
may = ["infer"]
models = ["strings"]
"""
    )
    config = str(tmp_path / "penstock.toml")
    server = start("--model-repository", str(plain_repository), "--config", config).wait_ready()
    connection = http.client.HTTPConnection(server.rest, timeout=TIMEOUT_S)
    tensor = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.5]}]}

    def status(path: str, token: str | None) -> int:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        body = json.dumps(tensor if path.startswith("/v2") else {"features": [1.5, 2.5]})
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        response.read()
        return response.status

    paths = ("/v2/models/flag/infer", "/predict/flag")
    for path in paths:
        for _ in range(5):
            assert status(path, shop) == 200
        for at, letter in enumerate(shop):
            guess = shop[:at] + ("A" if letter != "A" else "B") + shop[at + 1 :]
            assert status(path, guess) == 401, guess
        for token, expected in ((None, 401), (shop[:-1], 401), (shop + "A", 401), (other, 403), (shop, 200)):
            assert status(path, token) == expected
    fresh = tmp_path / "fresh"
    fresh.write_text(line_of("other", other) + "\n")
    fresh.replace(tokens)  # shop's is taken back
    until(lambda: [status(path, shop) for path in paths] == [401, 401], "the token counts no more")
