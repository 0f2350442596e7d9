"""Labels go to peers, once, and to each for itself."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from penstock_server.labels import peers as peers_module
from penstock_server.labels.peers import MOST_BATCHES, PeerRefusedError, Peers, http_sender
from penstock_server.labels.report import PeerCounts

PLACES = np.array([3, 4])
TURNS = np.array([13, 14])
RECORDS = np.ones((2, 8), np.int64)
WAIT_S = 10.0


class Sender:
    """A peer that answers as it is told."""

    def __init__(self) -> None:
        self.sent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def __call__(self, body: bytes) -> None:
        self.sent.put(body)
        answer = self.answers.get(timeout=WAIT_S)
        if answer is not None:
            raise answer


def until(condition: Callable[[], Any]) -> Any:
    """The first true value; it is another thread's."""
    for _ in range(1000):
        if value := condition():
            return value
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "FIRST_PAUSE_S", 0.001)


def test_labels_are_passed_on_when_all_peers_have_them() -> None:
    first, second = Sender(), Sender()
    peers = Peers({"a": first, "b": second}, wait_s=5.0, clock=lambda: 0.0)
    assert peers.offer(PLACES, TURNS, RECORDS)
    first.answers.put(None)
    assert second.sent.get(timeout=WAIT_S) == RECORDS.tobytes()
    until(lambda: peers.counts()["a"] == PeerCounts(2, 0))
    assert list(peers.taken()) == []
    second.answers.put(PeerRefusedError("busy", is_final=False))
    second.sent.get(timeout=WAIT_S)  # again
    second.answers.put(None)
    ((places, turns),) = until(peers.taken)
    assert (places.tolist(), turns.tolist()) == ([3, 4], [13, 14])
    peers.close()


@pytest.mark.parametrize(("is_final", "now_s"), [(True, 0.0), (False, 6.0)])
def test_what_a_peer_never_takes_is_given_up(is_final: bool, now_s: float) -> None:
    times = iter([0.0])
    sender = Sender()
    peers = Peers({"a": sender}, wait_s=5.0, clock=lambda: next(times, now_s))
    peers.offer(PLACES, TURNS, RECORDS)
    sender.answers.put(PeerRefusedError("no", is_final=is_final))
    until(lambda: peers.counts()["a"] == PeerCounts(0, 2))
    assert list(peers.taken()) == []
    peers.close()


def test_too_many_are_not_taken() -> None:
    peers = Peers({"a": Sender()}, wait_s=5.0)
    for _ in range(MOST_BATCHES):
        assert peers.offer(PLACES, TURNS, RECORDS)
    assert not peers.offer(PLACES, TURNS, RECORDS)
    peers.close()


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A server that answers every request with a status; its address, and what came."""
    came: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"because")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", came
    finally:
        server.shutdown()
        server.server_close()


def test_a_peer_is_shown_the_token() -> None:
    with answering(200) as (address, came):
        http_sender(address, "secret")(b"records")
    ((path, headers, body),) = came
    assert (path, body) == ("/v1/feedback", b"records")
    assert headers["authorization"] == "Bearer secret"
    assert headers["content-type"] == "application/vnd.penstock.labels"


@pytest.mark.parametrize(("status", "is_final"), [(400, True), (403, True), (501, True), (429, False), (503, False)])
def test_what_a_status_says_of_another_try(status: int, is_final: bool) -> None:
    with (
        answering(status) as (address, _),
        pytest.raises(PeerRefusedError, match=f"HTTP status {status}: because") as caught,
    ):
        http_sender(address)(b"records")
    assert caught.value.is_final == is_final


def test_a_peer_that_is_away_may_come_back() -> None:
    with pytest.raises(PeerRefusedError) as caught:
        http_sender("http://127.0.0.1:1")(b"records")
    assert not caught.value.is_final
