"""Plain requests of known callers, over a real connection: kernels take them, and nobody else's."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from penstock_server.access.credentials import Credentials
from penstock_server.access.gate import AccessGate
from penstock_server.access.identity import Identity
from penstock_server.access.settings import AccessSettings, RuleSettings
from penstock_server.access.tokens import hash_of
from penstock_server.kernels import compiled
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.transport.kernel_set import KERNELS as TRANSPORT_KERNELS
from penstock_server.transport.settings import TransportSettings
from tests.server.prediction.test_plain_wire import INFER, TIMEOUT_S, Server, message, values

SETTINGS = AccessSettings(
    {
        "shop": RuleSettings(("token:*", "uri:spiffe://corp/shop"), ("infer",), ("m",)),
        "few": RuleSettings(("token:few",), ("infer",), ("m",), requests_per_s=0.01, burst=5),
        "other": RuleSettings(("jwt:*",), ("infer",), ("other",)),
    }
)
TOKENS = {
    hash_of("good"): Identity(("token:shop",)),
    hash_of("also"): Identity(("token:also",)),
    hash_of("few"): Identity(("token:few",)),
    hash_of("other"): Identity(("jwt:x:other",)),
}
DENIED, UNKNOWN, LIMITED = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@pytest.fixture
def serving(fake_servable: Any, new_counters: Any) -> Any:
    compiled.ensure_compiled(TRANSPORT_KERNELS)

    @contextmanager
    def start(settings: TransportSettings | None = None) -> Iterator[Server]:
        gate = AccessGate(SETTINGS)
        gate.use(Credentials(TOKENS))
        server = Server(fake_servable, new_counters, settings or TransportSettings(), gate=gate)
        server.load("1", is_inline=True)
        server.route(TrafficPlan("1"), "1")
        try:
            yield server
        finally:
            server.close()

    return start


def ask(channel: grpc.Channel, token: str | None = "good", number: int = 1) -> Any:
    """The reply's values, or the status's code."""
    call = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    try:
        reply = values(call(message([number, -number]), metadata=metadata, timeout=TIMEOUT_S))
    except grpc.RpcError as error:
        return error.code()
    assert reply == [2.0 * number, -2.0 * number]
    return None


def test_kernels_take_what_was_allowed_before(serving: Any) -> None:
    with serving() as server, grpc.insecure_channel(server.address) as channel:
        assert [ask(channel, number=number) for number in range(5)] == [None] * 5
        assert server.plain.taken == 4
        assert ask(channel, "also") is None
        assert server.plain.taken == 4
        assert ask(channel, "also") is None
        assert server.plain.taken == 5
        assert [ask(channel, token) for token in (None, "bad", "goo", "other")] == [UNKNOWN] * 3 + [DENIED]
        assert server.plain.taken == 5
        assert ask(channel) is None
        assert server.plain.taken == 6


def test_other_credentials_hold_at_once(serving: Any) -> None:
    with serving() as server, grpc.insecure_channel(server.address) as channel:
        assert [ask(channel), ask(channel)] == [None, None]
        assert server.plain.taken == 1

        def use() -> None:
            server.asks.use(Credentials({hash_of("also"): Identity(("token:also",))}))
            server.known.forget()

        server.on_reactor(use)
        assert [ask(channel), ask(channel, "also"), ask(channel, "also")] == [UNKNOWN, None, None]
        assert server.plain.taken == 2


def test_a_token_ends_for_the_kernels_too(serving: Any) -> None:
    with serving() as server, grpc.insecure_channel(server.address) as channel:
        ends_s = time.time() + 0.3
        server.on_reactor(lambda: server.asks.use(Credentials({hash_of("good"): Identity(("token:shop",), ends_s)})))
        while (answer := ask(channel)) is None:
            assert time.time() < ends_s + 1
        assert answer is UNKNOWN
        assert time.time() >= ends_s
        assert server.plain.taken > 0


def test_limits_are_counted_by_kernels_and_python_together(serving: Any) -> None:
    with serving() as server, grpc.insecure_channel(server.address) as channel:
        answers = [ask(channel, "few") for _ in range(12)]
        assert answers == [None] * 5 + [LIMITED] * 7
        assert server.plain.taken == 4
        assert ask(channel) is None


def secure(address: str, tls: Path, who: str) -> grpc.Channel:
    root, key, certificate = ((tls / name).read_bytes() for name in ("server.pem", f"{who}.key", f"{who}.pem"))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root, key, certificate))


@pytest.mark.long
def test_a_certificate_is_enough(serving: Any, tls: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text((tls / "client.pem").read_text() + (tls / "other.pem").read_text())
    settings = TransportSettings(
        tls_certificate=tls / "server.pem", tls_key=tls / "server.key", tls_client_ca=tmp_path / "ca.pem"
    )
    with serving(settings) as server, secure(server.address, tls, "client") as channel:
        assert [ask(channel, None) for _ in range(4)] == [None] * 4
        assert server.plain.taken == 3
        with secure(server.address, tls, "other") as other:
            assert [ask(other, None), ask(other, None), ask(other), ask(other)] == [DENIED, DENIED, None, None]
        assert server.plain.taken == 4
        assert [ask(channel, "bad"), ask(channel, None)] == [UNKNOWN, None]
        assert server.plain.taken == 5


def test_no_mutated_token_is_taken(serving: Any) -> None:
    random = Random(7)
    with serving() as server, grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(8) as pool:
        assert [ask(channel), ask(channel), ask(channel, "also")] == [None] * 3

        def mutated(_number: int) -> Any:
            token = list(random.choice(("good", "also")))
            at = random.randrange(len(token) + 1)
            token[at : at + random.randrange(2)] = random.choice("abcdefgh.-_") * random.randrange(1, 3)
            text = "".join(token)
            return ask(channel, text) if text not in ("good", "also") else UNKNOWN

        assert set(pool.map(mutated, range(500))) == {UNKNOWN}
        assert server.plain.taken == 1
        server.become_clean()


class Told:
    """How a call from within the process ended."""

    def __init__(self) -> None:
        self.ended_with: Any = None
        self._is_over = threading.Event()

    def replied(self, _message: bytes) -> None:
        self._is_over.set()

    def ended(self, status: Any) -> None:
        self.ended_with = grpc.StatusCode[status.code.name]
        self._is_over.set()

    def answer(self) -> Any:
        assert self._is_over.wait(TIMEOUT_S)
        return self.ended_with


def test_callers_of_another_port_are_told_apart(serving: Any) -> None:
    """They share one connection, so one's certificate must not be the others'."""
    with serving() as server:

        def ask(peer: tuple[str, ...] = (), token: str | None = None) -> Any:
            told = Told()
            metadata = () if token is None else (("authorization", f"Bearer {token}"),)
            server.on_reactor(lambda: server.transport.begin(INFER, message([1, -1]), metadata, told, peer))
            return told.answer()

        known = ("uri:spiffe://corp/shop",)
        for _ in range(3):
            assert ask(known) is None
            assert ask() is UNKNOWN
            assert ask(("uri:spiffe://corp/other",)) is DENIED
            assert ask(known, "bad") is UNKNOWN
        assert server.plain.taken == 0
        assert [ask(token="good") for _ in range(3)] == [None] * 3
        assert server.plain.taken == 2
        assert [ask(), ask(token="bad"), ask(known)] == [UNKNOWN, UNKNOWN, None]
