import socket
from pathlib import Path

import pytest

from penstock_server.control.port import address_of, listening_address, reserve, shared_port
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


def test_a_listening_address_is_a_kept_port() -> None:
    with listening_address("127.0.0.1", 0) as address:
        host, _, port = address.rpartition(":")
        assert host == "127.0.0.1"
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((host, int(port)))


def test_a_socket_file_is_free_for_a_worker_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(path))  # of a server that was killed
    with listening_address(f"unix:{path}", 8001) as address:
        assert address == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as worker:
            worker.bind(str(path))
    assert not path.exists()


def test_a_relative_socket_file_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with listening_address("unix:p.sock", 0) as address:
        assert address == f"unix:{tmp_path}/p.sock"


def test_a_socket_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    plain, taken = tmp_path / "file", tmp_path / "taken"
    plain.write_text("keep me")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(taken))
        other.listen()
        for path, why in (
            (plain, "it is another kind of file"),
            (taken, "another program listens on it"),
            (tmp_path / "no" / "s", "its folder does not exist"),
        ):
            with (
                pytest.raises(UnavailableError, match=f"cannot listen on the socket file {path} for gRPC: {why}"),
                listening_address(f"unix:{path}", 0),
            ):
                pass
    assert plain.read_text() == "keep me"
    assert taken.exists()


def test_a_shared_port_is_open_until_the_end() -> None:
    with shared_port("127.0.0.1", 0, 3) as (address, port):
        assert address == f"127.0.0.1:{port.number}"
        assert port.workers == 3
        port.begin()
        with pytest.raises(UnavailableError, match=f"cannot listen on {address} for gRPC: .*--port"):
            shared_port("127.0.0.1", port.number, 1).__enter__()
    with shared_port("127.0.0.1", int(address.rpartition(":")[2]), 1) as (again, _):
        assert again == address


def test_a_shared_socket_file_is_bound_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with shared_port(f"unix:{path}", 8001, 2) as (address, port):
        assert address == f"unix:{path}"
        port.begin()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        with pytest.raises(UnavailableError, match="another program listens on it"):
            shared_port(f"unix:{path}", 0, 1).__enter__()
    assert not path.exists()
