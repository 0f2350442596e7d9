"""Other servers are asked for what they counted: all at once, within bounds, and none that fails holds up another."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest
from structlog.testing import capture_logs

from penstock_server.control import replicas
from penstock_server.control.replicas import Replicas, get
from penstock_server.rollout.evidence import Snapshot, VersionTotals

SNAPSHOT = Snapshot("run", "0.1", 3.0, version=VersionTotals(10, 1), champion=VersionTotals(90, 2))
Answer = Callable[[BaseHTTPRequestHandler], bytes]


@contextmanager
def replica(answer: Answer) -> Iterator[str]:
    """A server that answers so; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def told(_: BaseHTTPRequestHandler) -> bytes:
    return msgspec.json.encode(SNAPSHOT)


def test_each_is_asked_for_a_version_and_its_champion(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, list[str]], str | None]] = []

    def answer(request: BaseHTTPRequestHandler) -> bytes:
        parts = urlsplit(request.path)
        asked.append((unquote(parts.path), parse_qs(parts.query), request.headers["Authorization"]))
        return told(request)

    token = tmp_path / "token"
    token.write_text("secret\n")
    with replica(answer) as one, replica(answer) as two:
        found = asyncio.run(Replicas([f"{one}/", two], token).look("a/b c", "2", "1"))
        assert found == {one: SNAPSHOT, two: SNAPSHOT}
    assert asked == [("/v1/evidence/a/b c", {"version": ["2"], "champion": ["1"]}, "Bearer secret")] * 2


def test_one_that_fails_is_left_out_and_told_of_once_until_it_fails_otherwise() -> None:
    answers: list[bytes] = []
    with replica(told) as well, replica(lambda _: answers[-1]) as ill:
        asks = Replicas([ill, well])
        for body, warnings in ((b"nonsense", 1), (b"nonsense", 0), (b"{}", 1), (b"[" * 100_000, 1)):
            answers.append(body)
            with capture_logs() as logs:
                assert asyncio.run(asks.look("m", "2", "1")) == {well: SNAPSHOT}
            assert [entry["address"] for entry in logs] == [ill] * warnings
        answers.append(told(None))  # type: ignore[arg-type]
        assert asyncio.run(asks.look("m", "2", "1")).keys() == {well, ill}
        answers.append(b"nonsense")
        with capture_logs() as logs:
            asyncio.run(asks.look("m", "2", "1"))
        assert len(logs) == 1
    with capture_logs() as logs:  # none listens any more
        assert asyncio.run(asks.look("m", "2", "1")) == {}
    assert len(logs) == 2


def test_one_that_hangs_holds_up_no_other() -> None:
    ends = threading.Event()

    def hang(request: BaseHTTPRequestHandler) -> bytes:
        ends.wait(30)
        return told(request)

    with replica(hang) as hung, replica(told) as well:
        assert asyncio.run(Replicas([hung, well], timeout_s=0.3).look("m", "2", "1")) == {well: SNAPSHOT}
        ends.set()


def test_an_answer_that_is_too_long_is_not_read() -> None:
    with (
        replica(lambda _: b"x" * (replicas.MAX_REPLY_BYTES + 1)) as one,
        pytest.raises(ValueError, match="more than 1,000 bytes"),
    ):
        get(one, None, 5.0, 1000)


def test_a_token_that_cannot_be_read_is_a_replica_that_does_not_answer(tmp_path: Path) -> None:
    with replica(told) as one, capture_logs() as logs:
        assert asyncio.run(Replicas([one], tmp_path / "none").look("m", "2", "1")) == {}
    assert "No such file" in logs[0]["reason"]
