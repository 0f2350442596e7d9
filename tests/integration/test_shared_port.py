"""The port that native workers share: no connection attempt is lost with a worker, and connections are dealt evenly."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_client import Client

TIMEOUT_S = 30.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What an HTTP/2 caller begins with; a server answers with a frame of its own settings."""
SETTINGS = 4
NATIVE = ("--transport", "native", "--workers", "2")


@pytest.fixture(scope="module")
def server(start_shared: Any, plain_repository: Path) -> Any:
    return start_shared("--model-repository", str(plain_repository), *NATIVE).wait_ready()


def connect(place: Any) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
    opened.settimeout(TIMEOUT_S)
    opened.connect(place)
    opened.sendall(PREFACE)
    return opened


def place_of(server: Any) -> tuple[str, int]:
    host, _, port = server.grpc.rpartition(":")
    return host, int(port)


def is_accepted(opened: socket.socket) -> bool:
    """Whether a worker took the connection."""
    return opened.recv(9)[3:4] == bytes([SETTINGS])


def listening(server: Any) -> list[int]:
    """The processes of the workers that accept calls."""
    return [worker["pid"] for worker in server.workers() if worker["listening"]]


@pytest.fixture
def both(until: Any) -> Callable[[Any], list[int]]:
    """Waits until both workers accept calls."""
    return lambda server: until(lambda: len(pids := listening(server)) == 2 and pids, "both workers accept calls")


def connections(server: Any) -> list[int]:
    """How many connections each worker has."""
    return [worker["connections"] for worker in server.workers()]


def test_connections_are_dealt_evenly_always(server: Any, both: Any, until: Any) -> None:
    both(server)
    for _ in range(40):
        with ExitStack() as closing:
            for _ in range(4):
                assert is_accepted(closing.enter_context(connect(place_of(server))))
            assert connections(server) == [2, 2]
        until(lambda: connections(server) == [0, 0], "the connections are closed")


def test_no_attempt_is_lost_with_a_worker_under_a_stream_of_them(server: Any, both: Any, until: Any) -> None:
    victim, other = both(server)
    os.kill(victim, signal.SIGSTOP)  # what comes from now on is in nobody's hands when it ends
    is_over = threading.Event()

    def attempts() -> list[bool]:
        found = []
        while not is_over.wait(0.001):  # thousands in a second, and time for the worker that starts
            with connect(place_of(server)) as opened:
                found.append(is_accepted(opened))
        return found

    with ThreadPoolExecutor(4) as threads:
        streams = [threads.submit(attempts) for _ in range(4)]
        try:
            with connect(place_of(server)) as opened:
                assert is_accepted(opened)
            os.kill(victim, signal.SIGKILL)
            until(lambda: {*listening(server)} - {victim, other}, "it is replaced")
        finally:
            is_over.set()
        tried = [accepted for stream in streams for accepted in stream.result(TIMEOUT_S)]
    assert all(tried)
    assert len(tried) > 100


def test_what_waits_while_no_worker_lives_is_accepted_by_the_next_ones(server: Any, both: Any) -> None:
    pids = both(server)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with ExitStack() as closing:
        waiting = [closing.enter_context(connect(place_of(server))) for _ in range(10)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert all(map(is_accepted, waiting))


def test_workers_share_a_socket_file_and_a_drain_refuses_connections_at_once(
    start: Any, both: Any, until: Any, tmp_path: Path, plain_repository: Path
) -> None:
    path = str(tmp_path / "p.sock")
    server = start("--model-repository", str(plain_repository), "--host", f"unix:{path}", *NATIVE)
    server.wait_ready(protocol="http")
    pids = both(server)
    with ExitStack() as closing:
        client = closing.enter_context(Client(f"unix:{path}", timeout_s=TIMEOUT_S))
        assert client.predict("flag", np.ones((2, 2), np.float32)) is not None
        for _ in range(3):
            assert is_accepted(closing.enter_context(connect(path)))
        assert connections(server) == [2, 2]
    os.kill(pids[0], signal.SIGSTOP)  # it hangs, and keeps its copy of the socket
    os.kill(server.pid, signal.SIGTERM)

    def refuses() -> bool:
        try:
            connect(path).close()
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        return False

    until(refuses, "connections are refused", timeout_s=5)
    os.kill(pids[0], signal.SIGCONT)
    assert server.wait(TIMEOUT_S) == 0
