"""The port that workers share: its sockets, and how connections are dealt over transports that accept from it."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock_server.transport import layout, shared_port
from penstock_server.transport.choose import native_transport
from penstock_server.transport.interface import Methods, Transport
from penstock_server.transport.settings import TransportSettings
from penstock_server.transport.shared_port import SharedPort

TIMEOUT_S = 20.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What an HTTP/2 caller begins with; a server answers with a frame of its own settings."""
SETTINGS = 4


class Idle:
    """A scheduler without work, or that does not come back while it is told to hang."""

    is_due = False

    def __init__(self) -> None:
        self.may_step = threading.Event()
        self.may_step.set()
        self.hangs = threading.Event()
        self.steps = 0

    def step(self) -> float:
        self.steps += 1
        if not self.may_step.is_set():
            self.hangs.set()
            assert self.may_step.wait(TIMEOUT_S)
        return 0.01


class Worker:
    """A transport on a thread, which accepts from the port as another process would."""

    def __init__(self, port: SharedPort, slot: int) -> None:
        self.slot = slot
        self.port = SharedPort.inherited([os.dup(each) for each in port.descriptors], slot)
        self.scheduler = Idle()
        self.transport: Transport = native_transport(
            Methods({}, {}), self.scheduler, TransportSettings(), port=self.port
        )
        self.thread = threading.Thread(target=self.transport.run)
        self.thread.start()
        self.transport.listen("the address of the port")

    @property
    def connections(self) -> int:
        return self.port.connections(self.slot)

    def hang(self) -> None:
        self.scheduler.may_step.clear()
        assert self.scheduler.hangs.wait(TIMEOUT_S)

    def end(self) -> None:
        self.scheduler.may_step.set()
        self.transport.drain(0)
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()


def row(port: SharedPort) -> memoryview:
    """A worker's row of the table."""
    at = port.own_row - port.table
    return memoryview(port._map).cast("q")[at // 8 : (at + layout.PORT_ROW_BYTES) // 8]


@contextmanager
def served(workers: int, address: str = "127.0.0.1:0") -> Iterator[tuple[SharedPort, list[Worker]]]:
    port = SharedPort.bind(address, workers)
    with ExitStack() as ending:
        ending.callback(port.close)
        started = []
        for slot in range(workers):
            started.append(Worker(port, slot))
            ending.callback(started[-1].end)
        yield port, started


def connect(port: SharedPort, listener: int = 0) -> socket.socket:
    """A connection that a worker has accepted: it answers."""
    at = port.listeners[listener]
    opened = socket.socket(at.family)
    opened.settimeout(TIMEOUT_S)
    opened.connect(at.getsockname())
    opened.sendall(PREFACE)
    assert opened.recv(9)[3] == SETTINGS
    return opened


def until(condition: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


@pytest.mark.parametrize(("workers", "dealt"), [(2, [2, 2]), (3, [2, 3, 3])])
def test_connections_are_dealt_evenly_always(workers: int, dealt: list[int]) -> None:
    with served(workers) as (port, started):
        for _ in range(40):
            with ExitStack() as closing:
                for _ in range(sum(dealt)):
                    closing.enter_context(connect(port))
                assert sorted(worker.connections for worker in started) == dealt
            until(lambda: not any(worker.connections for worker in started))


def test_connections_that_come_together_are_dealt_evenly() -> None:
    with served(2) as (port, started), ExitStack() as closing:
        opened = [closing.enter_context(socket.socket()) for _ in range(200)]
        for each in opened:
            each.setblocking(False)
            each.connect_ex(port.listeners[0].getsockname())
        until(lambda: sum(worker.connections for worker in started) == 200)
        assert [worker.connections for worker in started] == [100, 100]


def test_nobody_waits_long_for_a_worker_that_hangs() -> None:
    with served(2) as (port, (hung, other)), ExitStack() as closing:
        hung.hang()
        began_s, steps = time.monotonic(), other.scheduler.steps
        for _ in range(20):
            closing.enter_context(connect(port))
        assert time.monotonic() - began_s < 5
        assert (hung.connections, other.connections) == (0, 20)
        assert other.scheduler.steps - steps < 1000  # it did not spin while it left the first ones to the other


def test_a_worker_that_can_take_no_more_leaves_connections_to_the_others() -> None:
    with served(2) as (port, (full, other)), ExitStack() as closing:
        state: Any = full.transport._state  # type: ignore[attr-defined]
        free, state[layout.FREE_CONNECTION_COUNT // 8] = int(state[layout.FREE_CONNECTION_COUNT // 8]), 0
        for _ in range(4):
            closing.enter_context(connect(port))
        assert (full.connections, other.connections) == (0, 4)
        state[layout.FREE_CONNECTION_COUNT // 8] = free
        until(lambda: row(full.port)[layout.P_LOOKED_AT // 8])
        for _ in range(4):
            closing.enter_context(connect(port))
        assert (full.connections, other.connections) == (4, 4)


def test_the_count_of_a_worker_that_is_gone_does_not_matter() -> None:
    with served(2) as (port, (gone, other)), ExitStack() as closing:
        gone.end()
        row(gone.port)[:2] = memoryview((time.monotonic_ns() + 10**12).to_bytes(16, "little")).cast("q")
        port.keep({1})
        for _ in range(4):
            closing.enter_context(connect(port))
        assert other.connections == 4


def test_a_drain_leaves_connections_to_the_others_at_once() -> None:
    with served(2) as (port, (leaving, other)), ExitStack() as closing:
        held = [closing.enter_context(connect(port)) for _ in range(2)]
        leaving.transport.drain(TIMEOUT_S)
        until(lambda: not row(leaving.port)[layout.P_LOOKED_AT // 8])
        held.extend(closing.enter_context(connect(port)) for _ in range(6))
        assert (len(held), other.connections) == (8, 7)


def test_a_connection_waits_for_the_next_worker() -> None:
    port = SharedPort.bind("127.0.0.1:0")
    try:
        Worker(port, 0).end()
        with socket.create_connection(port.listeners[0].getsockname(), TIMEOUT_S) as waiting:
            waiting.sendall(PREFACE)
            following = Worker(port, 0)
            try:
                assert waiting.recv(9)[3] == SETTINGS
            finally:
                following.end()
    finally:
        port.close()


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix:{}/p.sock"])
def test_a_port_that_refuses_does_so_whatever_its_workers_do(address: str, tmp_path: Path) -> None:
    with served(2, address.format(tmp_path)) as (port, workers):
        place = port.listeners[0].getsockname()
        connect(port).close()
        workers[0].hang()
        port.refuse()
        with socket.socket(port.listeners[0].family) as late, pytest.raises(ConnectionRefusedError):
            late.connect(place)
        workers[0].scheduler.may_step.set()
        for worker in workers:
            until(lambda worker=worker: not worker.port.listeners)  # type: ignore[misc]


def test_a_socket_file_is_shared_too(tmp_path: Path) -> None:
    with served(2, f"unix:{tmp_path}/p.sock") as (port, started), ExitStack() as closing:
        for _ in range(4):
            closing.enter_context(connect(port))
        assert [worker.connections for worker in started] == [2, 2]
        assert port.number == 0


def test_no_connection_is_taken_before_a_worker_accepts() -> None:
    port = SharedPort.bind("127.0.0.1:0")
    with socket.socket() as early, pytest.raises(ConnectionRefusedError):
        early.connect(port.listeners[0].getsockname())
    port.refuse()  # has nothing to end
    port.close()
    port.close()


def test_a_port_is_bound_once() -> None:
    port = SharedPort.bind("127.0.0.1:0")
    port.begin()
    with pytest.raises(OSError, match="in use"):
        SharedPort.bind(f"127.0.0.1:{port.number}")
    port.close()


def test_every_interface_takes_both_families() -> None:
    port = SharedPort.bind("[::]:0")
    port.begin()
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port.number), TIMEOUT_S).close()
    port.close()


def places(*found: tuple[int, str]) -> Callable[..., list[Any]]:
    """What the system knows of a name: these addresses."""
    return lambda _host, number, **_: [
        (family, 0, 0, "", (host, number) if family == socket.AF_INET else (host, number, 0, 0))
        for family, host in found
    ]


def test_a_name_is_bound_at_each_of_its_addresses_with_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    both = places((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.1"))
    monkeypatch.setattr(shared_port.socket, "getaddrinfo", both)
    port = SharedPort.bind("both:0")
    assert [each.getsockname()[:2] for each in port.listeners] == [("::1", port.number), ("127.0.0.1", port.number)]
    port.close()


def test_an_address_that_the_machine_lacks_is_left_out_if_it_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in (("192.0.2.1", "127.0.0.1"), ("127.0.0.1", "192.0.2.1")):
        monkeypatch.setattr(shared_port.socket, "getaddrinfo", places(*((socket.AF_INET, name) for name in names)))
        port = SharedPort.bind("name:0")
        assert [each.getsockname()[0] for each in port.listeners] == ["127.0.0.1"]
        port.close()
    monkeypatch.setattr(shared_port.socket, "getaddrinfo", places((socket.AF_INET, "192.0.2.1")))
    with pytest.raises(OSError, match="assign"):
        SharedPort.bind("name:0")


def test_a_free_port_that_is_taken_at_another_address_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.2", 0))
        other.listen()
        taken = other.getsockname()[1]
        asked = iter([taken, 0])
        plain = places((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2"))
        monkeypatch.setattr(shared_port.socket, "getaddrinfo", lambda host, _number, **_: plain(host, next(asked)))
        port = SharedPort.bind("name:0")
        assert port.number != taken
        assert len(port.listeners) == 2
        port.close()
