import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from penstock_server.transport.connections import close_connections, close_listeners


class Listener:
    """A server's socket with connections, each as (the caller's end, the server's end)."""

    def __init__(self, family: socket.AddressFamily, name: object, stack: ExitStack) -> None:
        self._stack = stack
        self.socket = stack.enter_context(socket.socket(family))
        self.socket.bind(name)
        self.socket.listen()

    @property
    def address(self) -> str:
        name = self.socket.getsockname()
        return f"unix:{name}" if isinstance(name, str) else f"h:{name[1]}"

    def connected(self) -> tuple[socket.socket, socket.socket]:
        caller = self._stack.enter_context(socket.socket(self.socket.family))
        caller.settimeout(5)
        caller.connect(self.socket.getsockname())
        return caller, self._stack.enter_context(self.socket.accept()[0])


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    with ExitStack() as stack:
        if request.param == "tcp":
            yield Listener(socket.AF_INET, ("127.0.0.1", 0), stack)
        else:
            yield Listener(socket.AF_UNIX, str(tmp_path / "s"), stack)


def test_closed_connections_deliver_what_was_written(listener: Listener) -> None:
    caller, server = listener.connected()
    server.sendall(b"the last answer")
    caller.sendall(b"never read")
    close_connections(listener.address)
    with caller.makefile("rb") as received:
        assert received.read() == b"the last answer"


def test_other_sockets_stay_open(listener: Listener) -> None:
    with ExitStack() as stack:
        other = Listener(socket.AF_INET, ("127.0.0.1", 0), stack)
        caller, server = other.connected()
        close_connections(listener.address)
        close_listeners(listener.address)
        server.sendall(b"x")
        assert caller.recv(1) == b"x"
        other.connected()


def test_a_closed_listener_accepts_nobody_and_keeps_its_connections(listener: Listener) -> None:
    caller, server = listener.connected()
    close_listeners(listener.address)
    with socket.socket(listener.socket.family) as late, pytest.raises(ConnectionRefusedError):
        late.connect(listener.socket.getsockname())
    server.sendall(b"x")
    assert caller.recv(1) == b"x"


def test_busy_peers_keep_their_connections() -> None:
    with ExitStack() as stack:
        listener = Listener(socket.AF_INET, ("127.0.0.1", 0), stack)
        (busy, server), (idle, _) = listener.connected(), listener.connected()
        close_connections(listener.address, {f"ipv4:127.0.0.1:{busy.getsockname()[1]}"})
        assert idle.recv(1) == b""
        server.sendall(b"x")
        assert busy.recv(1) == b"x"


def test_callers_of_a_socket_file_cannot_be_told_apart(tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = Listener(socket.AF_UNIX, str(tmp_path / "s"), stack)
        caller, server = listener.connected()
        close_connections(listener.address, {"unix:"})
        server.sendall(b"x")
        assert caller.recv(1) == b"x"
