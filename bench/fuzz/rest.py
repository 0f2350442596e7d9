"""`python -m bench.fuzz.rest`: damaged HTTP requests, read and routed in this process as the REST port does it.

Each case is a connection: good requests of every kind are damaged, cut anywhere, and given to the reader, and what it takes for
requests to the routes. They must answer each of them once, with a status that is not 500, whatever the methods behind say. Of
bytes that the port's kernels take for a request Python must make the same call. The exit status is 1 if anything else happened.
"""

import argparse
import gzip
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import numpy as np
from rich.progress import track

from penstock import inference_pb2 as pb
from penstock_server.call import Cancellable, Metadata
from penstock_server.errors import NotFoundError, PenstockError
from penstock_server.kernels import compiled
from penstock_server.rest.answers import Answer, error_answer
from penstock_server.rest.forms import Forms
from penstock_server.rest.http import BadRequestError, Request, RequestReader
from penstock_server.rest.kernel_set import KERNELS
from penstock_server.rest.routes import Routes
from penstock_server.rest.signatures import Signatures
from penstock_server.transport.headers import as_received
from penstock_server.transport.local import Outcome
from penstock_server.transport.status import status_of

MOST_BYTES: Final = 4096
_TOO_LARGE: Final = 413
_MOST_FOUND: Final = 10
_LENGTHS: Final = (b"0", b"-1", b"10", b"99999999999999999999", b"18446744073709551615", b"0x10", b"1e3", b" 5", b"")
_TOKENS: Final = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"[" * 600, b"\\ud800",
    b"\xff", b"\x00", b"\r\n", b"\n", b"\r\n\r\n", b"%00", b"%ff", b"../", b"?", b"0\r\n\r\n", b"binary_data_size", b"data",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"9" * 40,
)  # fmt: skip


class Behind:
    """The methods behind the routes: replies of every form, and errors.

    Attributes:
        draw: decides which; each case sets its own.
        calls: the method, the message and the metadata of each.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.calls: list[tuple[str, bytes, bytes]] = []

    def begin(
        self, path: str, message: bytes, metadata: Metadata, outcome: Outcome, _peer: tuple[str, ...] = ()
    ) -> Cancellable | None:
        method = path.rpartition("/")[2]
        self.calls.append((method, message, as_received(metadata)))
        if method == "ModelInfer":
            pb.ModelInferRequest.FromString(message)  # what reaches a handler is a message
            outcome.replied(self.draw.choice(_REPLIES))
        elif method == "ModelMetadata":
            outcome.replied(_METADATA)
        elif self.draw.random() < 0.2:
            outcome.ended(status_of(NotFoundError("no")))
        else:
            outcome.replied(b"")
        return None


class Exchange:
    """Counts its answers."""

    peer = ()

    def __init__(self, request: Request, raw: bytes = b"") -> None:
        self.request = request
        self.raw = raw
        self.pending: Cancellable | None = None
        self.answers: list[int] = []

    def answer(self, answer: Answer) -> None:
        self.answers.append(answer.status)


def at_once(action: Callable[[], None]) -> None:
    """Runs what a thread would, so that a case is over when it has been played."""
    action()


def good_requests() -> list[bytes]:
    """A request of each kind."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2.5], [3, None]]}
    raw = np.array([[1, 2]], "<f4").tobytes()
    binary = json.dumps(
        {
            "inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    row = {"amount": 1.5, "country": "NO", "at": "2026-01-31"}
    whole = {"name": "a", "datatype": "INT64", "shape": [1], "data": [7]}
    texts = {"name": "b", "datatype": "BYTES", "shape": [2, 1], "data": ["NO", "a b"]}
    plain = {"name": "X", "datatype": "FP64", "shape": [2, 2], "data": [[1.5, -2.5e-3], [3, 0.1]]}
    trace = {"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Authorization": "Bearer x"}
    bodies: list[tuple[str, object, dict[str, str]]] = [
        ("/v2/models/m/infer", {"id": "a", "inputs": [plain]}, trace),
        ("/v2/models/m/infer", {"inputs": [whole, texts]}, {}),
        ("/v2/models/m/infer", {"id": "a", "inputs": [tensor], "parameters": {"priority": 1}}, {}),
        ("/v2/models/m/versions/1/infer", binary + raw, {"Inference-Header-Content-Length": str(len(binary))}),
        ("/v2/models/m/infer", gzip.compress(json.dumps({"inputs": [tensor]}).encode()), {"Content-Encoding": "gzip"}),
        ("/predict/m?version=1&explain=true", {"features": [1.5, "NO", None]}, {"Accept-Encoding": "gzip"}),
        ("/predict/m", row, {"Authorization": "Bearer x"}),
        ("/predict/m", {"country": "NO", "at": 7, "amount": 1.5}, {}),
        ("/predict/m?version=1", {"features": [1.5, "NO", 7]}, {"Accept-Encoding": "gzip"}),
        ("/predict/m", {name: [value] for name, value in row.items()}, {}),
        ("/invocations/m", {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}, {}),
        ("/invocations/m", b"amount,country,at\n1.5,NO,2026-01-31\n", {"Content-Type": "text/csv"}),
        ("/v1/models/m:predict", {"instances": [row]}, {}),
        ("/v2/repository/index", {"ready": True}, {}),
        ("/v2/repository/models/m/load", {"parameters": {"config": "{}"}}, {}),
        ("/v2/logging", {"log_info": True}, {}),
    ]
    made = []
    for path, body, headers in bodies:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        made.append(
            f"POST {path} HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content
        )
    made += [
        b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in (b"/v2", b"/v2/models/m", b"/readyz", b"/v2/models")
    ]
    chunked = b"POST /predict/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [*made, chunked + b"1d\r\n" + b'{"features": [1.5, "NO", 1]} \r\n0\r\n\r\n']


def _metadata() -> bytes:
    metadata = pb.ModelMetadataResponse(name="m", versions=["1"])
    metadata.inputs.add(name="amount", datatype="FP64", shape=[-1, 1])
    metadata.inputs.add(name="country", datatype="BYTES", shape=[-1, 1]).parameters["missing"].string_param = ""
    metadata.inputs.add(name="at", datatype="INT64", shape=[-1, 1]).parameters["time"].string_param = "ns"
    encoded: bytes = metadata.SerializeToString()
    return encoded


def _replies() -> list[bytes]:
    label = pb.ModelInferResponse(model_name="m", model_version="1", raw_output_contents=[bytes(8)])
    label.outputs.add(name="label", datatype="INT64", shape=[1])
    scores = pb.ModelInferResponse(model_name="m", raw_output_contents=[np.array([np.nan, np.inf], "<f4").tobytes()])
    scores.outputs.add(name="scores", datatype="FP32", shape=[1, 2])
    texts = pb.ModelInferResponse(model_name="m", raw_output_contents=[b"\x01\x00\x00\x00\xff"])
    texts.outputs.add(name="texts", datatype="BYTES", shape=[1])
    return [each.SerializeToString() for each in (label, scores, texts, pb.ModelInferResponse(model_name="m"))]


_METADATA: Final = _metadata()
_REPLIES: Final = _replies()


def damaged(draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Some good requests, one behind the other, damaged in some places."""
    data = bytearray(b"".join(draw.choice(seeds) for _ in range(draw.choice((1, 1, 1, 2, 3)))))
    for _ in range(draw.choice((0, 1, 1, 2, 3, 8))):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(7):
            case 6:  # another length may be right for once
                data = bytearray(
                    re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % _body_bytes(data), data, count=1)
                )
            case 0:
                data[at : at + draw.randint(1, 8)] = b""
            case 1:
                data[at:at] = draw.choice(_TOKENS)
            case 2:
                data[at : at + 1] = draw.randbytes(1)
            case 3:
                data[at : at + draw.randint(0, 20)] = draw.randbytes(draw.randint(0, 4))
            case 4:
                data = bytearray(data.replace(b"Content-Length: ", b"Content-Length: " + draw.choice(_LENGTHS), 1))
            case _:
                place = data.find(b"Inference-Header-Content-Length: ")
                if place >= 0:
                    data[place + 33 : place + 33 + draw.randint(0, 3)] = draw.choice(_LENGTHS)
    return bytes(data)


def _body_bytes(data: bytearray) -> int:
    """How long the body of the only request is."""
    return len(data.partition(b"\r\n\r\n")[2])


def learnt_forms(seeds: Sequence[bytes]) -> Forms:
    """The forms that kernels learn of good requests, as the port has them learn."""
    forms = Forms(compiled.library(KERNELS))
    behind = Behind(random.Random(0))
    routes = Routes(
        behind, Signatures(behind, lambda: None), post=at_once, most_bytes=MOST_BYTES, run=at_once, forms=forms
    )
    for seed in [*seeds, *seeds]:
        (request,) = RequestReader(MOST_BYTES).receive(seed)
        with suppress(PenstockError, BadRequestError):
            routes.answer(Exchange(request, seed))
    return forms


def check_kernels(forms: Forms, behind: Behind, routes: Routes, data: bytes) -> int:
    """How many forms bytes have; each must make the call of them that Python makes.

    Raises:
        AssertionError: it makes another one, or waits for more where Python does not.
    """
    found = [
        (message, forms.metadata(number)) for number in forms.known if (message := forms.made(number, data)) is not None
    ]
    if found:
        requests = RequestReader(MOST_BYTES).receive(data)
        behind.calls.clear()
        for request in requests:
            routes.answer(Exchange(request))
        assert len(requests) == 1, f"kernels read one request, Python {len(requests)}"
        assert requests[0].is_kept, "the connection ends with a request that kernels read"
        for message, block in found:
            calls = [call for call in behind.calls if call[0] == "ModelInfer"]
            assert calls == [("ModelInfer", message, block)], "kernels call otherwise than Python"
    elif data and any(forms.awaits(number, data) for number in forms.known):
        try:
            whole = RequestReader(MOST_BYTES).receive(data)
        except BadRequestError as error:
            # This port takes less than kernels keep.
            if error.status != _TOO_LARGE:
                raise AssertionError("kernels wait for the rest of what Python refuses") from error
            return 0
        assert not whole, "kernels wait for the rest of a request that is whole"
    return len(found)


def play(draw: random.Random, routes: Routes, data: bytes) -> list[int]:
    """The statuses of a connection's answers.

    Raises:
        AssertionError: a request was answered twice, not at all, or with 500.
    """
    reader = RequestReader(MOST_BYTES)
    statuses: list[int] = []
    at = 0
    while at < len(data):
        end = at + draw.choice((1, 7, 100, len(data)))
        try:
            requests = reader.receive(data[at:end])
        except BadRequestError as error:
            for request in reader.taken():
                statuses += _answered(routes, request)
            return [*statuses, error.status]
        for request in requests:
            statuses += _answered(routes, request)
        at = end
    return statuses


def _answered(routes: Routes, request: Request) -> list[int]:
    exchange = Exchange(request)
    try:
        routes.answer(exchange)
    except (PenstockError, BadRequestError) as error:  # as the server does it
        exchange.answer(error_answer(error))
    assert len(exchange.answers) == 1, f"{len(exchange.answers)} answers to {request.target!r}"
    assert exchange.answers[0] != 500, f"500 to {request.target!r}"
    return exchange.answers


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays the cases, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz.rest", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    seeds, statuses, found, taken = good_requests(), Counter[int](), 0, 0
    forms = learnt_forms(seeds)
    behind = Behind(random.Random())
    routes = Routes(behind, Signatures(behind, lambda: None), post=at_once, most_bytes=MOST_BYTES, run=at_once)
    started_s = time.monotonic()
    for number in track(range(options.count), "playing", disable=not sys.stderr.isatty()):
        draw = behind.draw = random.Random(f"{options.seed}:{number}")
        data = damaged(draw, seeds)
        try:
            taken += check_kernels(forms, behind, routes, data)
            statuses.update(play(draw, routes, data))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            found += 1
            print(f"case {options.seed}:{number}: {type(error).__name__}: {error}\n  {data!r}", flush=True)
            if found == _MOST_FOUND:
                break
    took_s = time.monotonic() - started_s
    told = ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))
    print(
        f"{options.count:,} connections in {took_s:,.0f} s, {found} faults; kernels took {taken:,}; answers by status: {told}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
