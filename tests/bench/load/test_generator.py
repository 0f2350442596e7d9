"""The generator against a real gRPC server in this process."""

import datetime as dt
import os
import selectors
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.load import generator
from bench.load.generator import LoadError
from bench.load.link import links
from bench.load.plan import LoadPlan
from tests.bench.load.echo_server import plan, serving

DAY = dt.timedelta(days=1)


def test_every_request_reaches_the_server_and_is_counted_once(address, echo) -> None:
    result = generator.run(plan(address))
    assert (result.attempted, result.succeeded, result.failures) == (120, 120, {})
    assert echo.seen.total() == 120
    assert echo.seen.keys() == {b"a", b"bb"}
    assert result.latencies_s.size == 120
    assert 0 < result.latencies_s.min() <= result.latencies_s.max() <= result.window_s < 30


def test_errors_are_counted_as_errors_with_their_reason(address, echo) -> None:
    echo.refuses = True
    result = generator.run(plan(address))
    assert (result.succeeded, result.failures) == (80, {"grpc-status 3: every third": 40})
    assert result.latencies_s.size == 80


def test_an_unknown_method_fails_every_request(address) -> None:
    result = generator.run(LoadPlan(address, "/echo.Echo/Other", (b"",), max_requests=10, duration_s=30))
    assert result.succeeded == 0
    assert [(reason[:14], count) for reason, count in result.failures.items()] == [("grpc-status 12", 10)]


def test_messages_beyond_the_windows_travel_both_ways(address, echo) -> None:
    message = os.urandom(700_000)
    result = generator.run(plan(address, messages=(message,), max_requests=24))
    assert (result.succeeded, result.failures) == (24, {})
    assert echo.seen == {message: 24}


def test_calls_can_be_encrypted(echo) -> None:
    """A message of many records comes back whole."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "echo")]), dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    message = os.urandom(300_000)
    with serving(echo, grpc.ssl_server_credentials([(private, certificate)])) as address:
        result = generator.run(plan(address, messages=(message, b"a"), max_requests=40, is_tls=True))
    assert (result.succeeded, result.failures) == (40, {})
    assert echo.seen.keys() == {message, b"a"}


def test_other_connections_are_open_meanwhile_and_closed_after_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as selector:
        calls = generator.calls_of(LoadPlan("127.0.0.1:1", "/echo.Echo/Call", (b"a",)))
        with links(listener.getsockname(), calls, 1, selector, idle=3) as opened:
            accepted = [listener.accept()[0] for _ in range(4)]
            assert len(opened) == 1
            assert {sock.recv(24) for sock in accepted[:3]} == {b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}
        for sock in accepted:
            sock.settimeout(10)
            while sock.recv(1000):
                pass
            sock.close()


def test_open_loop_arrivals_are_all_sent(address, echo) -> None:
    result = generator.run(plan(address, rate_per_s=2000.0, max_requests=200))
    assert (result.succeeded, result.failures) == (200, {})
    assert echo.seen.total() == 200


def test_open_loop_latencies_count_from_the_due_time(address, echo) -> None:
    """One slot and a server that holds the first answer: those behind it waited as well."""
    echo.released.clear()
    looks = iter([False, False, True])

    def release() -> bool:
        if next(looks, True):
            echo.released.set()
        return False

    wanted = plan(address, connections=1, streams=1, rate_per_s=5000.0, max_requests=20)
    result = generator.run(wanted, should_stop=release)
    assert result.succeeded == 20
    assert (result.latencies_s > 0.04).sum() == 20  # all were due within the first look at the clock


def test_the_deadline_is_sent(address, echo) -> None:
    generator.run(plan(address, timeout_s=20.0, max_requests=4))
    assert echo.deadlines == {True}
    echo.deadlines.clear()
    generator.run(plan(address, max_requests=4))
    assert echo.deadlines == {False}


def test_a_run_ends_in_time_and_on_request(address) -> None:
    timed = generator.run(plan(address, max_requests=10**6, duration_s=0.2, warmup_s=0.1))
    assert timed.attempted == timed.succeeded > timed.latencies_s.size > 0
    assert 0.1 < timed.window_s < 10
    looks = iter([False, True])
    stopped = generator.run(plan(address, max_requests=10**6, duration_s=60), should_stop=lambda: next(looks, True))
    assert stopped.attempted == stopped.succeeded
    assert stopped.window_s < 30


def test_the_probe_is_read_when_the_window_opens_and_closes(address) -> None:
    readings = iter([3.0, 10.0])
    assert generator.run(plan(address), probe=lambda: next(readings)).probed == 7.0
    assert next(readings, None) is None


def test_answers_that_never_come_are_failures(address, echo) -> None:
    echo.released.clear()
    result = generator.run(plan(address, duration_s=0.05, grace_s=0.05))
    assert (result.succeeded, result.failures) == (0, {"no answer in time": 8})
    assert result.latencies_s.size == 0


def test_a_server_that_goes_away_fails_what_was_in_flight() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            peer, _ = listener.accept()
            peer.recv(10)
            peer.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        result = generator.run(plan(f"127.0.0.1:{listener.getsockname()[1]}", connections=1))
        thread.join()
    assert result.succeeded == 0
    assert sum(result.failures.values()) == result.attempted == 4
    assert next(iter(result.failures)).startswith("connection ")


def test_nobody_listening_is_one_clear_error() -> None:
    with socket.socket() as bound:  # it does not listen, and keeps the port from others
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(LoadError, match=f"no connection to {address}"):
            generator.run(plan(address))


def test_more_streams_than_the_server_allows_are_refused(echo) -> None:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[echo], options=[("grpc.max_concurrent_streams", 3)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with pytest.raises(LoadError, match="allows 3 streams"):
            generator.run(plan(f"127.0.0.1:{port}"))
        server.stop(0).wait()
