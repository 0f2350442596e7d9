"""HTTP/1.1 as the REST port speaks it, without I/O: bytes in, whole requests out; and an answer's bytes.

llhttp, Node's parser, reads by way of httptools. It refuses what proxies and servers read differently (RFC 9112, 6.1 and
11.2: two lengths, a length beside chunks, a bare line feed), so nothing can be smuggled. What a caller sends is bounded
here: the head in bytes and in fields, the body in bytes, also once it is unpacked.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import httptools

HEAD_BYTES: Final = 16 * 1024
"""The request line and the header fields."""
HEAD_FIELDS: Final = 100
_ONCE: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"inference-header-content-length",
        b"traceparent",
    }
)
"""Fields of which a second one could mean something else to a proxy than here."""
LEAST_PACKED_BYTES: Final = 256
"""A smaller body is not worth the headers of gzip."""
JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"
HTML: Final = b"text/html; charset=utf-8"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LEVEL: Final = 6
_WINDOWS: Final[Mapping[str, int]] = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""`deflate` is zlib's format (RFC 9110, 8.4.1.2)."""
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: ".encode() for status in HTTPStatus
}


class BadRequestError(Exception):
    """A request that cannot be read; the connection ends with this answer.

    Attributes:
        status: of HTTP.
        more: further header lines, each with its end of line.
    """

    def __init__(self, status: int, why: str, *, more: bytes = b"") -> None:
        super().__init__(why)
        self.status = status
        self.more = more


@dataclass(slots=True)
class Request:
    """One request, whole.

    Attributes:
        target: path and query as they came.
        headers: by name in lower case; several of one name are joined by commas.
        is_kept: the connection goes on after the answer.
    """

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    is_kept: bool


class RequestReader:
    """Reads the requests of one connection.

    Args:
        most_bytes: of a body, packed or not.

    Attributes:
        body_bytes: how much is there of the body of a request that is not whole.
        is_reading: a request has begun that is not whole.
        wants_continue: its caller waits to be told to send the body.
    """

    __slots__ = (
        "_body",
        "_fields",
        "_head_bytes",
        "_headers",
        "_left",
        "_most_bytes",
        "_parser",
        "_refusal",
        "_target",
        "_whole",
        "body_bytes",
        "is_reading",
        "wants_continue",
    )

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._whole: list[Request] = []
        self._left = 0  # bytes of a body that the parser does not read
        self._refusal: BadRequestError | None = None
        self.is_reading = False
        self.wants_continue = False
        self.on_message_begin()
        self.is_reading = False

    @property
    def has_body(self) -> bool:
        """Whether a part of the body of a request that is not whole has come."""
        return self.body_bytes > 0

    def receive(self, data: bytes) -> list[Request]:
        """The requests that are whole with these bytes.

        Raises:
            BadRequestError: what came is no request, or too much; nothing further can be read. Requests that came before it
                are in `taken`.
        """
        while data:
            if self._left:
                data = self._take_left(data)
                continue
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._decline_upgrade()
            except httptools.HttpParserError as error:
                raise self._refusal or BadRequestError(400, f"this is no HTTP/1.1 request: {error}") from None
        return self.taken()

    def _decline_upgrade(self) -> None:
        """Answers as if no upgrade to HTTP/2 or a web socket had been asked for (RFC 9110, 7.8).

        The parser takes what follows the head for the other protocol's; it is the request's body.
        """
        if b"transfer-encoding" in self._headers or self._parser.get_method() == b"CONNECT":
            raise BadRequestError(501, "this port does not upgrade connections")
        self._left = int(self._headers.get(b"content-length", b"0"))
        if not self._left:
            self._end()
            self._parser = httptools.HttpRequestParser(self)

    def _take_left(self, data: bytes) -> bytes:
        """Takes the body of a request whose upgrade was declined; what is behind it."""
        part = data[: self._left]
        self.body_bytes += len(part)
        self._body.append(part)
        self._left -= len(part)
        if not self._left:
            self._end()
            self._parser = httptools.HttpRequestParser(self)
        return data[len(part) :]

    def taken(self) -> list[Request]:
        """What has become whole since the last time."""
        whole, self._whole = self._whole, []
        return whole

    # What follows is called by the parser, in this order.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = self._fields = 0
        self._body: list[bytes] = []
        self.body_bytes = 0
        self.is_reading = True
        self.wants_continue = False

    def on_url(self, part: bytes) -> None:
        """A part of the target."""
        self._count_head(len(part))
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; after a chunked body a trailer field, which is not used."""
        self._count_head(len(name) + len(value) + 4)
        self._fields += 1
        if self._fields > HEAD_FIELDS:
            self._refuse(431, f"the head of a request takes at most {HEAD_FIELDS} fields")
        name, headers = name.lower(), self._headers
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            self._refuse(400, f"the field {name.decode('latin-1')!r} is given twice")
        else:
            headers[name] += b", " + value  # RFC 9110, 5.3

    def on_headers_complete(self) -> None:
        """The head is whole."""
        headers = self._headers
        if (length := headers.get(b"content-length")) is not None and int(length) > self._most_bytes:
            self._refuse_body(int(length))
        self.wants_continue = headers.get(b"expect", b"").lower() == b"100-continue"

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self.wants_continue = False
        self.body_bytes += len(part)
        if self.body_bytes > self._most_bytes:
            self._refuse_body(self.body_bytes)
        self._body.append(part)

    def on_message_complete(self) -> None:
        """The request is whole, or its head if it asks for an upgrade."""
        if not self._parser.should_upgrade():
            self._end()

    def _end(self) -> None:
        parser, body = self._parser, self._body
        self._whole.append(
            Request(
                parser.get_method(),
                self._target,
                self._headers,
                body[0] if len(body) == 1 else b"".join(body),
                parser.should_keep_alive(),
            )
        )
        self._body = []
        self.body_bytes = 0
        self.is_reading = self.wants_continue = False

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"the head of a request takes at most {HEAD_BYTES:,} bytes")

    def _refuse_body(self, size: int) -> None:
        self._refuse(413, f"the body takes {size:,} bytes or more, expected at most {self._most_bytes:,}")

    def _refuse(self, status: int, why: str) -> None:
        """Stops the parser, which hides what its callbacks raise."""
        self._refusal = BadRequestError(status, why)
        raise self._refusal


def unpacked(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """A body without its compression.

    Args:
        body: the body as it came.
        encoding: the value of `Content-Encoding`.
        most_bytes: that it may come to.

    Raises:
        BadRequestError: the encoding is not known, the body is damaged, or it comes to more.

    >>> unpacked(zlib.compress(b"[1, 2]"), "deflate", 100)
    b'[1, 2]'
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    window = _WINDOWS.get(encoding)
    if window is None:
        raise BadRequestError(415, f"content-encoding is {encoding[:40]!r}, expected gzip or deflate")
    unpacker = zlib.decompressobj(window)
    try:
        plain = unpacker.decompress(body, most_bytes + 1)
    except zlib.error:
        raise BadRequestError(400, f"the body is not {encoding}, as its content-encoding says") from None
    if len(plain) > most_bytes:
        raise BadRequestError(413, f"the body is larger than {most_bytes:,} bytes when unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise BadRequestError(400, f"the body's {encoding} is cut short, or goes on after its end")
    return plain


def encoding_for(accepted: bytes) -> str:
    """How an answer is compressed for a caller with this `Accept-Encoding`; empty for not at all.

    >>> encoding_for(b"br, gzip;q=0.8"), encoding_for(b"deflate"), encoding_for(b"gzip;q=0, identity"), encoding_for(b"*")
    ('gzip', 'deflate', '', '')
    """
    chosen: dict[str, float] = {}
    for part in accepted.decode("latin-1").lower().split(","):
        name, _, parameter = part.partition(";")
        quality = parameter.strip().removeprefix("q=") if parameter.strip().startswith("q=") else "1"
        try:
            chosen[name.strip()] = float(quality)
        except ValueError:
            chosen[name.strip()] = 0.0
    best = max(("gzip", "deflate"), key=lambda name: chosen.get(name, 0.0))
    return best if chosen.get(best, 0.0) > 0 else ""


def packed(body: bytes, encoding: str) -> bytes:
    """A body compressed in this way."""
    packer = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    return packer.compress(body) + packer.flush()


def answer(
    status: int,
    body: bytes,
    content_type: bytes = JSON,
    *,
    more: bytes = b"",
    is_kept: bool = True,
    with_body: bool = True,
) -> bytes:
    """An answer's bytes.

    Args:
        status: of HTTP.
        body: the body.
        content_type: of the body.
        more: further header lines, each with its end of line.
        is_kept: the connection goes on.
        with_body: false for an answer to HEAD, which has the same head.
    """
    head = b"%b%b\r\ncontent-length: %d\r\n%b" % (_STATUS_LINES[status], content_type, len(body), more)
    ending = b"\r\n" if is_kept else b"connection: close\r\n\r\n"
    return b"%b%b%b" % (head, ending, body) if with_body else head + ending
