import socket

import pytest

from penstock_server.control.port import address_of, reserve
from penstock_server.errors import UnavailableError


def test_a_free_port_is_taken_and_kept() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        assert port > 0
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_workers_share_the_reserved_port() -> None:
    with reserve("127.0.0.1", 0) as reserved, socket.socket() as first, socket.socket() as second:
        for worker in (first, second):
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(reserved.getsockname())
            worker.listen()
        with socket.create_connection(reserved.getsockname(), timeout=5):
            pass  # one that listens gets it, never the reservation


def test_a_port_that_another_program_listens_on_is_refused_even_if_it_would_share() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"cannot listen on 127.0.0.1:{port} for gRPC: .*--port"):
            reserve("127.0.0.1", port)


def test_a_port_of_a_server_that_ended_is_taken_again() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
    with reserve("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UnavailableError, match=r"cannot listen on 192\.0\.2\.1:0 for gRPC"):
        reserve("192.0.2.1", 0)


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("h", "h:80")])
def test_addresses(host: str, address: str) -> None:
    assert address_of(host, 80) == address
