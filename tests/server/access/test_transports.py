"""The guard over every transport: tokens and certificates, refusals as clients see them, streams, files that are renewed."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock import inference_pb2 as pb
from penstock.names import INFERENCE_SERVICE
from penstock_server.access.credentials import credentials_of
from penstock_server.access.gate import AccessGate
from penstock_server.access.guard import Guard
from penstock_server.access.identity import Identity
from penstock_server.access.jwt_tokens import keys_of_set
from penstock_server.access.settings import AccessSettings, IssuerSettings, RuleSettings
from penstock_server.access.tokens import hash_of
from penstock_server.call import Call
from penstock_server.kernels import compiled
from penstock_server.transport.interface import Methods, StreamReceiver
from penstock_server.transport.kernel_set import KERNELS
from penstock_server.transport.settings import TransportSettings
from tests.server.access.conftest import AUDIENCE, ISSUER, TokenIssuer
from tests.server.transport.test_transports import KINDS, TIMEOUT_S, Service, running

OIP = f"/{INFERENCE_SERVICE}/"
SETTINGS = AccessSettings(
    {
        "shop": RuleSettings(("token:shop", "jwt:corp:shop", "uri:spiffe://corp/shop"), ("infer",), ("shop",)),
        "slow": RuleSettings(("token:slow",), ("infer",), requests_per_s=0.5),
    },
    {"corp": IssuerSettings(ISSUER, AUDIENCE, jwks="https://issuer.example/keys")},
)
TOKENS = {hash_of("good"): Identity(("token:shop",)), hash_of("slow"): Identity(("token:slow",))}


class Guarded(Service):
    """Echoes what the guard lets through."""

    def __init__(self, gate: AccessGate) -> None:
        super().__init__()
        self._guard = Guard(gate, refused=self.refusals.append)

    @property
    def methods(self) -> Methods:
        def stream(call: Call) -> StreamReceiver:
            return lambda message: call.finish() if message is None else call.send(message)

        echo = {OIP + "ModelInfer": lambda message, call: call.finish(message)}
        return self._guard.guarded(Methods(echo, {OIP + "ModelStreamInfer": stream}))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "native":
        compiled.ensure_compiled(KERNELS)
    return str(request.param)


@pytest.fixture
def gate(issuer: TokenIssuer) -> AccessGate:
    made = AccessGate(SETTINGS)
    made.use(credentials_of(SETTINGS, TOKENS, {"corp": keys_of_set(issuer.key_set, "s")}))
    return made


@contextmanager
def serving(kind: str, gate: AccessGate, settings: TransportSettings | None = None) -> Iterator[str]:
    with running(kind, Guarded(gate), settings) as (_, address):
        yield address


def infer(channel: grpc.Channel, model: str = "shop", token: str | None = None) -> bytes:
    method = channel.unary_unary(OIP + "ModelInfer", request_serializer=bytes, response_deserializer=bytes)
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    message = pb.ModelInferRequest(model_name=model).SerializeToString()
    reply: bytes = method(message, metadata=metadata, timeout=TIMEOUT_S)
    assert reply == message
    return reply


def refused(ask: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        ask(*arguments, **named)
    return caught.value


def test_tokens_are_asked_for(kind: str, gate: AccessGate, issuer: TokenIssuer) -> None:
    with serving(kind, gate) as address, grpc.insecure_channel(address) as channel:
        infer(channel, token="good")
        infer(channel, token=issuer.token())
        heard = {
            refused(infer, channel, token=token).details() for token in (None, "bad", issuer.token(exp=1), "eyJ..")
        }
        assert len(heard) == 1
        assert refused(infer, channel, token="bad").code() is grpc.StatusCode.UNAUTHENTICATED
        assert refused(infer, channel, "other", "good").code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_limit_says_when_to_try_again(kind: str, gate: AccessGate) -> None:
    with serving(kind, gate) as address, grpc.insecure_channel(address) as channel:
        infer(channel, token="slow")
        error = refused(infer, channel, token="slow")
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 0 < int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) <= 2000


def test_a_stream_is_asked_for_each_message(kind: str, gate: AccessGate) -> None:
    with serving(kind, gate) as address, grpc.insecure_channel(address) as channel:
        method = channel.stream_stream(OIP + "ModelStreamInfer", request_serializer=bytes, response_deserializer=bytes)
        messages = [pb.ModelInferRequest(model_name=name).SerializeToString() for name in ("shop", "shop", "other")]
        metadata = (("authorization", "Bearer good"),)
        assert list(method(iter(messages[:2]), metadata=metadata, timeout=TIMEOUT_S)) == messages[:2]
        error = refused(list, method(iter(messages), metadata=metadata, timeout=TIMEOUT_S))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        error = refused(list, method(iter(messages), timeout=TIMEOUT_S))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def secure(address: str, files: Path, tls: Path, who: str) -> grpc.Channel:
    root = (files / "server.pem").read_bytes()
    key, certificate = ((tls / f"{who}.{end}").read_bytes() for end in ("key", "pem"))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root, key, certificate))


@pytest.fixture
def files(tls: Path, tmp_path: Path) -> Path:
    for name in ("server.pem", "server.key"):
        shutil.copy(tls / name, tmp_path / name)
    (tmp_path / "ca.pem").write_text((tls / "client.pem").read_text() + (tls / "other.pem").read_text())
    return tmp_path


@pytest.mark.long
def test_a_verified_certificate_is_an_identity(kind: str, gate: AccessGate, files: Path, tls: Path) -> None:
    settings = TransportSettings(
        tls_certificate=files / "server.pem", tls_key=files / "server.key", tls_client_ca=files / "ca.pem"
    )
    with serving(kind, gate, settings) as address:
        with secure(address, files, tls, "client") as channel:
            infer(channel)
            assert refused(infer, channel, "other").code() is grpc.StatusCode.PERMISSION_DENIED
            # A token goes before the certificate.
            assert refused(infer, channel, token="bad").code() is grpc.StatusCode.UNAUTHENTICATED
        with secure(address, files, tls, "other") as channel:
            assert refused(infer, channel).code() is grpc.StatusCode.PERMISSION_DENIED
            infer(channel, token="good")


def test_tls_files_are_read_again(kind: str, gate: AccessGate, files: Path, tls: Path) -> None:
    settings = TransportSettings(
        tls_certificate=files / "server.pem", tls_key=files / "server.key", tls_client_ca=files / "ca.pem"
    )

    def is_served() -> bool:
        with secure(address, files, tls, "client") as channel:
            try:
                infer(channel)
            except grpc.RpcError:
                return False
            return True

    with serving(kind, gate, settings) as address:
        assert is_served()
        (files / "server.pem").write_text("half a file")
        with secure(address, tls, tls, "client") as channel:
            infer(channel)
        for end in ("key", "pem"):
            shutil.copy(tls / f"other.{end}", files / f"server.{end}")
        deadline = time.monotonic() + TIMEOUT_S
        while not is_served():
            assert time.monotonic() < deadline
