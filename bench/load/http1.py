"""The client's side of one HTTP/1.1 connection that carries one JSON request at a time, without I/O.

It is the counterpart of `connection` for JSON servers. It understands answers with a Content-Length, which is all that
the measured servers send.
"""

from bench.load.connection import Outcome
from bench.load.headers import OK
from penstock_client.http2.frames import ProtocolError

_HEAD_LIMIT_BYTES = 2**16


class HttpCalls:
    """The bytes of requests, built once for any number of connections.

    Args:
        path: where each body is sent, unless it begins with a path of its own and a space.
    """

    __slots__ = ("requests",)

    def __init__(self, path: str, host: str, bodies: tuple[bytes, ...]) -> None:
        self.requests = tuple(_request(*_split(path.encode(), body), host.encode()) for body in bodies)

    def connect(self, number: int) -> "HttpConnection":
        """The state of a new connection; each begins with a different request."""
        return HttpConnection(self, number)


class HttpConnection:
    """Sends a request and reads its answer; each submitted request gives exactly one outcome."""

    max_streams = 1

    def __init__(self, calls: HttpCalls, number: int = 0) -> None:
        self._calls = calls
        self._turn = number
        self._output = b""
        self._rest = b""
        self._due: float | None = None
        self.is_closing = False

    @property
    def in_flight(self) -> int:
        """1 while a request waits for its answer, else 0."""
        return int(self._due is not None)

    def submit(self, due: float) -> None:
        """Starts one request that was due at this time."""
        self._due = due
        self._output = self._calls.requests[self._turn % len(self._calls.requests)]
        self._turn += 1

    def take_output(self) -> bytes:
        """The bytes to send now."""
        output, self._output = self._output, b""
        return output

    def receive(self, data: bytes) -> list[Outcome]:
        """Takes what the server sent and returns the outcome that it completes, if it does.

        Raises:
            ProtocolError: the answer has no length, or belongs to no request.
        """
        self._rest += data
        head, found, body = self._rest.partition(b"\r\n\r\n")
        if not found:
            if len(head) > _HEAD_LIMIT_BYTES:
                raise ProtocolError(f"got an answer's head of more than {_HEAD_LIMIT_BYTES} bytes")
            return []
        status, length = _parse(head)
        if len(body) < length:
            return []
        if self._due is None or len(body) > length:
            raise ProtocolError("got an answer without a request")
        outcome = (self._due, OK if status == b"200" else f"HTTP status {status.decode('ascii', 'replace')}")
        self._due, self._rest = None, b""
        return [outcome]

    def close(self, reason: str) -> list[Outcome]:
        """Ends the connection; the request in flight has failed for this reason."""
        outcomes = [] if self._due is None else [(self._due, reason)]
        self._due = None
        self.is_closing = True
        return outcomes


def _split(path: bytes, body: bytes) -> tuple[bytes, bytes]:
    if not body.startswith(b"/"):
        return path, body
    own, _, body = body.partition(b" ")
    return own, body


def _request(path: bytes, body: bytes, host: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        path,
        host,
        len(body),
        body,
    )


def _parse(head: bytes) -> tuple[bytes, int]:
    status_line, _, fields = head.partition(b"\r\n")
    parts = status_line.split(b" ", 2)
    for field in fields.split(b"\r\n"):
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit() and len(parts) > 1:
            return parts[1], int(value)
    raise ProtocolError("got an answer without a status or a Content-Length")
