"""Clients that are not ours behind one seam: each makes the same calls in its own way, and says how they ended."""

import asyncio
import base64
import gzip
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import grpc
import grpclib
from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.encoding.base import CodecBase

TIMEOUT_S = 20.0
SERVICE = "/inference.GRPCInferenceService/"
INFER, STREAM, WATCH = f"{SERVICE}ModelInfer", f"{SERVICE}ModelStreamInfer", "/grpc.health.v1.Health/Watch"
SERVING = b"\x08\x01"
"""What a watch of a healthy server gives."""
GRPC_JS = Path(__file__).parent / "grpc_js" / "client.js"

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and the PEM files that its callers need."""

    address: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.address}"

    def credentials(self) -> grpc.ChannelCredentials | None:
        if self.ca is None:
            return None
        return grpc.ssl_channel_credentials(
            *(path and path.read_bytes() for path in (self.ca, self.key, self.certificate))
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A call; after `leave_after_s` its caller no longer wants it."""

    method: str
    messages: Sequence[bytes]
    is_unary: bool = True
    metadata: Metadata = ()
    timeout_s: float = TIMEOUT_S
    is_compressed: bool = False
    leave_after_s: float | None = None


@dataclass(slots=True)
class Outcome:
    """How a call ended for its caller."""

    code: str = "OK"
    details: str = ""
    replies: list[bytes] = field(default_factory=list)
    trailers: dict[str, str | bytes] = field(default_factory=dict)


class ForeignClient(Protocol):
    """One client, connected; `play` makes calls at once."""

    def play(self, calls: Sequence[Asked]) -> list[Outcome]: ...


def _keywords(asked: Asked) -> dict[str, Any]:
    compression = grpc.Compression.Gzip if asked.is_compressed else None
    return {"timeout": asked.timeout_s, "metadata": tuple(asked.metadata), "compression": compression}


@contextmanager
def grpcio(place: Place, **options: int) -> Iterator[ForeignClient]:
    pairs = [("grpc.enable_http_proxy", 0), *((f"grpc.{name}", value) for name, value in options.items())]
    credentials = place.credentials()
    opened = (
        grpc.insecure_channel(place.address, pairs)
        if credentials is None
        else grpc.secure_channel(place.address, credentials, pairs)
    )
    with opened as channel:
        yield _Grpcio(channel)


class _Grpcio:
    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def play(self, calls: Sequence[Asked]) -> list[Outcome]:
        return [self._taken(asked, call) for asked, call in [(asked, self._begun(asked)) for asked in calls]]

    def _begun(self, asked: Asked) -> Any:
        call: Any
        if asked.is_unary:
            call = self._channel.unary_unary(asked.method).future(asked.messages[0], **_keywords(asked))
        else:
            call = self._channel.stream_stream(asked.method)(iter(asked.messages), **_keywords(asked))
        if asked.leave_after_s is not None:
            threading.Timer(asked.leave_after_s, call.cancel).start()
        return call

    def _taken(self, asked: Asked, call: Any) -> Outcome:
        replies: list[bytes] = []
        with suppress(grpc.RpcError, grpc.FutureCancelledError):
            replies.extend([call.result()] if asked.is_unary else call)
        return Outcome(call.code().name, call.details(), replies, dict(call.trailing_metadata() or ()))


@contextmanager
def grpc_aio(place: Place) -> Iterator[ForeignClient]:
    async def opened() -> grpc.aio.Channel:
        pairs = [("grpc.enable_http_proxy", 0)]
        if credentials := place.credentials():
            return grpc.aio.secure_channel(place.address, credentials, pairs)
        return grpc.aio.insecure_channel(place.address, pairs)

    with asyncio.Runner() as runner:
        channel = runner.run(opened())
        yield _OnLoop(runner, lambda asked: _grpc_aio_outcome(channel, asked))
        runner.run(channel.close())


class _OnLoop:
    """A client of coroutines, which run while it plays."""

    def __init__(self, runner: asyncio.Runner, make: Any) -> None:
        self._runner = runner
        self._make = make

    def play(self, calls: Sequence[Asked]) -> list[Outcome]:
        async def all_made() -> list[Outcome]:
            return await asyncio.gather(*map(self._make, calls))

        return self._runner.run(all_made())


async def _grpc_aio_outcome(channel: grpc.aio.Channel, asked: Asked) -> Outcome:
    replies: list[bytes] = []
    call: Any
    if asked.is_unary:
        call = channel.unary_unary(asked.method)(asked.messages[0], **_keywords(asked))
    else:
        call = channel.stream_stream(asked.method)(iter(asked.messages), **_keywords(asked))
    if asked.leave_after_s is not None:
        asyncio.get_running_loop().call_later(asked.leave_after_s, call.cancel)
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        if asked.is_unary:
            replies.append(await call)
        else:
            async for reply in call:
                replies.append(reply)  # noqa: PERF401 - those before a failure count too
    return Outcome((await call.code()).name, await call.details(), replies, dict(await call.trailing_metadata() or ()))


class _Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: Any) -> bytes:
        return message

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


@contextmanager
def grpclib_client(place: Place) -> Iterator[ForeignClient]:
    """Its own HTTP/2, on `h2`. It does not compress."""
    host, _, port = place.address.rpartition(":")

    async def opened() -> Channel:
        return Channel(host, int(port), codec=_Bytes())

    with asyncio.Runner() as runner:
        channel = runner.run(opened())
        yield _OnLoop(runner, lambda asked: _grpclib_outcome(channel, asked))
        channel.close()


async def _grpclib_outcome(channel: Channel, asked: Asked) -> Outcome:
    outcome = Outcome()
    kind = Cardinality.UNARY_UNARY if asked.is_unary else Cardinality.STREAM_STREAM
    opened = channel.request(asked.method, kind, bytes, bytes, timeout=asked.timeout_s, metadata=asked.metadata)
    leaving = asyncio.timeout(asked.leave_after_s)
    try:
        async with leaving, opened as stream:
            for number, message in enumerate(asked.messages, 1):
                await stream.send_message(message, end=number == len(asked.messages))
            async for reply in stream:
                outcome.replies.append(reply)
    except grpclib.GRPCError as error:
        outcome.code, outcome.details = error.status.name, error.message or ""
    except TimeoutError:  # it may look at its own clock before the status is there
        outcome.code = "CANCELLED" if leaving.expired() else "DEADLINE_EXCEEDED"
    outcome.trailers = dict(stream.trailing_metadata or {})
    return outcome


@contextmanager
def grpc_js(place: Place, folder: Path, **options: int) -> Iterator[ForeignClient]:
    """Google's client for JavaScript, on Node's HTTP/2."""
    settings = {name: value and str(value) for name, value in asdict(place).items()}
    pairs = {"grpc.enable_http_proxy": 0, **{f"grpc.{name}": value for name, value in options.items()}}
    argument = json.dumps({**settings, "folder": str(folder), "options": pairs})
    command = ["node", str(GRPC_JS), argument]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield _GrpcJs(process)
        process.terminate()


class _GrpcJs:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout

    def play(self, calls: Sequence[Asked]) -> list[Outcome]:
        self._to.write(json.dumps([asdict(asked) for asked in calls], default=_base64) + "\n")
        self._to.flush()
        outcomes = [Outcome(**fields) for fields in json.loads(self._from.readline())]
        for outcome in outcomes:
            outcome.replies = [base64.b64decode(reply) for reply in outcome.replies]
        return outcomes


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def framed(message: bytes, *, is_compressed: bool = False) -> bytes:
    """A message as gRPC sends it: whether it is compressed, and its size, before it."""
    sent = gzip.compress(message) if is_compressed else message
    return bytes([is_compressed]) + len(sent).to_bytes(4, "big") + sent


def unframed(body: bytes) -> list[bytes]:
    """The messages in a body; none of them may be compressed."""
    found = []
    while body:
        assert body[0] == 0
        end = 5 + int.from_bytes(body[1:5], "big")
        assert end <= len(body)
        found.append(body[5:end])
        body = body[end:]
    return found


@contextmanager
def curl(place: Place, *more: str) -> Iterator[ForeignClient]:
    """No gRPC at all: whole bodies, headers, and what it gets back."""
    with tempfile.TemporaryDirectory() as folder:
        yield _Curl(place, Path(folder), more)


class _Curl:
    def __init__(self, place: Place, folder: Path, more: Sequence[str]) -> None:
        self._place = place
        self._body, self._reply, self._headers = folder / "body", folder / "reply", folder / "headers"
        files = (("cacert", place.ca), ("cert", place.certificate), ("key", place.key))
        self._more = [part for name, path in files if path for part in (f"--{name}", str(path))]
        self._more += ["--http2" if place.ca else "--http2-prior-knowledge", *more]

    def play(self, calls: Sequence[Asked]) -> list[Outcome]:
        return [self._outcome(asked) for asked in calls]

    def _outcome(self, asked: Asked) -> Outcome:
        sent = [framed(message, is_compressed=asked.is_compressed) for message in asked.messages]
        self._body.write_bytes(b"".join(sent))
        self._reply.unlink(missing_ok=True)
        headers = {
            "content-type": "application/grpc",
            "te": "trailers",
            "grpc-timeout": f"{1000 * asked.timeout_s:.0f}m",
        }
        if asked.is_compressed:
            headers["grpc-encoding"] = "gzip"
        for name, value in asked.metadata:
            headers[name] = _base64(value) if isinstance(value, bytes) else value
        most_s = str(asked.leave_after_s or TIMEOUT_S)
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", most_s, *self._more,
             *(part for pair in headers.items() for part in ("--header", ": ".join(pair))),
             "--data-binary", f"@{self._body}", "--dump-header", str(self._headers), "--output", str(self._reply),
             self._place.url + asked.method],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            return Outcome("CANCELLED" if done.returncode == _TIMED_OUT else "UNAVAILABLE", done.stderr)
        lines = [line.split(": ", 1) for line in self._headers.read_text().splitlines() if ": " in line]
        trailers: dict[str, str | bytes] = dict(lines)  # type: ignore[arg-type]
        code, details = int(str(trailers.pop("grpc-status"))), unquote(str(trailers.pop("grpc-message", "")))
        replies = unframed(self._reply.read_bytes()) if self._reply.exists() else []
        return Outcome(_CODES[code], details, replies, trailers)


_TIMED_OUT = 28  # curl's exit code
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
