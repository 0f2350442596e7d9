import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from penstock_server.access.fetch import MAX_BYTES, fetch_keys
from penstock_server.errors import InvalidInputError, PenstockError, UnavailableError
from tests.server.access.conftest import TokenIssuer


@contextmanager
def answering(answers: list[bytes], status: int = 200) -> Iterator[str]:
    """The address of a server that gives these bodies in turn, and the last one from then on."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/keys"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_keys_are_fetched(issuer: TokenIssuer) -> None:
    with answering([issuer.key_set.encode()]) as address:
        assert [key.id for key in fetch_keys(address)] == ["one"]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{}", 200, InvalidInputError),
        (b"\xff", 200, InvalidInputError),
        (b"{}", 404, UnavailableError),
        (b"{}", 302, UnavailableError),
        (b" " * (MAX_BYTES + 1), 200, UnavailableError),
    ],
)
def test_what_is_no_set_of_keys_is_refused(body: bytes, status: int, error: type[PenstockError]) -> None:
    with answering([body], status) as address, pytest.raises(error):
        fetch_keys(address)


def test_an_address_that_is_silent_or_slow_is_given_up(issuer: TokenIssuer) -> None:
    with pytest.raises(UnavailableError):
        fetch_keys("http://127.0.0.1:1/keys")
    times = iter([0.0, 100.0])
    with answering([issuer.key_set.encode()]) as address, pytest.raises(UnavailableError, match="seconds"):
        fetch_keys(address, clock=lambda: next(times, time.monotonic()))
