"""A server that asks its callers who they are, on both ports, with workers that share limits, over each transport."""

import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock.names import INFERENCE_SERVICE
from penstock_server.access.tokens import line_of
from tests.integration.conftest import WAIT_S, Server, _until
from tests.server.access.conftest import AUDIENCE, ISSUER, TokenIssuer, ec_key
from tests.server.access.test_fetch import answering

pytestmark = pytest.mark.slow

SETTINGS = """
poll_interval_s = 1000
transport = "{transport}"
workers = {workers}
[http]
tls_certificate = "{folder}/server.pem"
tls_key = "{folder}/server.key"
[access]
tokens = "{folder}/tokens"
[access.issuers.corp]
issuer = "{issuer}"
audience = "{audience}"
jwks = "{keys}"
[access.rules.shop]
who = ["token:shop", "jwt:corp:*"]
may = ["infer", "read"]
models = ["flag"]
[access.rules.ops]
who = ["token:ops"]
may = ["read", "control"]
[access.rules.few]
who = ["token:few"]
may = ["infer"]
requests_per_s = 0.01
burst = 10
"""
PATH = f"/{INFERENCE_SERVICE}/"


class World:
    """A server, and what its callers show."""

    def __init__(self, server: Server, folder: Path, issuer: TokenIssuer) -> None:
        self.server = server
        self.folder = folder
        self.issuer = issuer
        self.context = ssl.create_default_context(cafile=str(folder / "server.pem"))

    def call(self, method: str, message: Any, token: str | None) -> Any:
        """The reply, or the status's code, over a connection of its own."""
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        with grpc.insecure_channel(self.server.grpc) as channel:
            ask = channel.unary_unary(PATH + method, request_serializer=bytes, response_deserializer=bytes)
            try:
                return ask(message.SerializeToString(), metadata=metadata, timeout=WAIT_S, wait_for_ready=True)
            except grpc.RpcError as error:
                return error.code()

    def infer(self, token: str | None, model: str = "flag") -> Any:
        """None for an answer, else the status's code."""
        rows = np.array([[1.0, 2.0]], np.float32)
        tensor = pb.ModelInferRequest.InferInputTensor(name="X", datatype="FP32", shape=rows.shape)
        message = pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[rows.tobytes()])
        found = self.call("ModelInfer", message, token)
        return None if isinstance(found, bytes) else found

    def get(self, path: str, token: str | None = None) -> int:
        request = urllib.request.Request(f"https://{self.server.http}{path}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S, context=self.context) as reply:
                reply.read()
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log about an event."""
        lines = (line for line in self.server._log.read_text().splitlines() if line.startswith("{"))
        return [found for line in lines if (found := json.loads(line)).get("event") == event]


def write_tokens(folder: Path, **tokens: str) -> None:
    """Puts another file in the place of the former one."""
    new = folder / "tokens.new"
    new.write_text("\n".join(line_of(name, token) for name, token in tokens.items()))
    os.replace(new, folder / "tokens")


@contextmanager
def serving(
    start: Callable[..., Server], folder: Path, flag_model: bytes, put_version: Callable[..., Path], **settings: Any
) -> Iterator[World]:
    """A server with the rules above, its tokens, and an issuer of others."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not installed")
    issuer = TokenIssuer({"one": ec_key()})
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    pair = ("-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.pem", "-days", "2")
    subprocess.run(["openssl", "req", "-x509", *pair, *names], cwd=folder, check=True, capture_output=True)
    put_version(folder / "models", "flag", "1", flag_model)
    write_tokens(folder, shop="good", ops="ops", few="few")
    with answering([issuer.key_set.encode()]) as keys:
        text = SETTINGS.format(folder=folder, issuer=ISSUER, audience=AUDIENCE, keys=keys, **settings)
        (folder / "penstock.toml").write_text(text)
        places = ("--model-repository", str(folder / "models"), "--config", str(folder / "penstock.toml"))
        yield World(start(*places, "--log-format", "json").wait_ready(), folder, issuer)


@pytest.fixture(scope="module", params=["native", "completion-queue", "aio"])
def world(
    request: pytest.FixtureRequest,
    start_shared: Callable[..., Server],
    tmp_path_factory: pytest.TempPathFactory,
    flag_model: bytes,
    put_version: Callable[..., Path],
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("access")
    with serving(start_shared, folder, flag_model, put_version, transport=request.param, workers=1) as made:
        yield made


def test_tokens_of_both_kinds_and_none(world: World) -> None:
    _until(lambda: world.infer(world.issuer.token()) is None, "the keys are fetched")
    assert [world.infer("good") for _ in range(5)] == [None] * 5
    assert world.infer(None) is grpc.StatusCode.UNAUTHENTICATED
    assert world.infer(world.issuer.token(exp=time.time() - 1000)) is grpc.StatusCode.UNAUTHENTICATED
    assert world.infer(world.issuer.token(aud="another")) is grpc.StatusCode.UNAUTHENTICATED
    # Whether there is such a model is not told.
    assert world.infer("good", "other") is grpc.StatusCode.PERMISSION_DENIED
    assert world.infer("ops") is grpc.StatusCode.PERMISSION_DENIED


def test_a_limit_holds_over_all_workers(
    start: Callable[..., Server], tmp_path: Path, flag_model: bytes, put_version: Callable[..., Path]
) -> None:
    with serving(start, tmp_path, flag_model, put_version, transport="native", workers=2) as world:
        answers = [world.infer("few") for _ in range(16)]
    assert answers.count(None) == 10
    assert set(answers[10:]) == {grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_the_http_port_has_the_same_rules_and_speaks_tls(world: World) -> None:
    _until(lambda: world.get("/v1/models", "ops") == 200, "the supervisor has read the tokens")
    assert [world.get(path) for path in ("/healthz", "/readyz", "/metrics", "/v1/models")] == [200, 200, 401, 401]
    assert [world.get(path, "good") for path in ("/v1/drift/flag", "/v1/drift", "/v1/server")] == [200, 403, 200]
    assert world.get("/metrics", "ops") == 200
    assert world.get("/v1/server", world.issuer.token()) == 200


def test_control_takes_its_right_and_leaves_a_line(world: World) -> None:
    message = pb.RepositoryModelLoadRequest(model_name="flag")
    assert world.call("RepositoryModelLoad", message, "good") is grpc.StatusCode.PERMISSION_DENIED
    assert isinstance(world.call("RepositoryModelLoad", message, "ops"), bytes)
    lines = world.said("control action")
    assert [(line["who"], line["model"], line["result"]) for line in lines] == [
        ("token:shop", "flag", "the caller has no right to control here"),
        ("token:ops", "flag", "done"),
    ]


def test_tokens_are_taken_back_without_a_restart(world: World) -> None:
    assert world.infer("good") is None
    write_tokens(world.folder, shop="renewed", ops="ops", few="few")
    _until(lambda: world.infer("good") is grpc.StatusCode.UNAUTHENTICATED, "the token is taken back")
    assert world.infer("renewed") is None
    write_tokens(world.folder, shop="good", ops="ops", few="few")
    _until(lambda: world.infer("good") is None, "the token is given again")


def test_a_stream_tells_over_tls_and_ends_when_its_token_is_taken_back(world: World) -> None:
    asked = urllib.request.Request(f"https://{world.server.http}/v1/live", headers={"Authorization": "Bearer ops"})
    _until(lambda: world.get("/v1/models", "ops") == 200, "the supervisor has read the tokens")
    with urllib.request.urlopen(asked, timeout=WAIT_S, context=world.context) as reply:
        told = [reply.readline() for _ in range(7 * 3)][::3]
        assert told[:3] == [b"event: server\n", b"event: models\n", b"event: traffic\n"]
        assert set(told) == {
            f"event: {name}\n".encode()
            for name in ("server", "models", "traffic", "rollouts", "events", "accuracy", "drift")
        }
        write_tokens(world.folder, shop="good", few="few")
        for line in reply:
            assert line.split(b":")[0] in (b"event", b"data", b"\n")
