"""The protocols that servers are measured with: gRPC with raw tensors, or JSON over HTTP.

Both send the same rows and compare the answers with the same outputs.
"""

import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any, Final, Literal, Protocol

import numpy as np

from bench import inference, models, strings
from bench.load.plan import LoadPlan

_HTTP_PATH: Final = "/infer"
_POLL_S: Final = 0.05


class Addresses(Protocol):
    """Where a server listens."""

    @property
    def grpc(self) -> str: ...

    @property
    def http(self) -> str: ...

    @property
    def rest(self) -> str: ...


class RequestProtocol(Protocol):
    """How requests are sent to a server."""

    name: Literal["grpc", "http"]

    def address(self, server: Addresses) -> str:
        """Where the server listens for this protocol."""
        ...

    def messages(self, model: str, *, rows: int, copies: int) -> tuple[bytes, ...]:
        """Serialized requests, as many and with the same rows as `inference.messages`."""
        ...

    def adapt(self, plan: LoadPlan) -> LoadPlan:
        """A plan for gRPC, changed for this protocol, with as many requests in flight."""
        ...

    def check(self, address: str, sent: Sequence[bytes], outputs: list[inference.Outputs], timeout_s: float) -> None:
        """Waits for the first answer, then compares every answer with the outputs, taken in turn."""
        ...


class GrpcProtocol:
    """The Open Inference Protocol."""

    name: Literal["grpc", "http"] = "grpc"

    def address(self, server: Addresses) -> str:
        return server.grpc

    def messages(self, model: str, *, rows: int, copies: int) -> tuple[bytes, ...]:
        return inference.messages(model, rows=rows, copies=copies)

    def adapt(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def check(self, address: str, sent: Sequence[bytes], outputs: list[inference.Outputs], timeout_s: float) -> None:
        for message in sent:  # each copy of a model becomes ready at its own time
            inference.first_answer(address, message, timeout_s=timeout_s)
        inference.check(address, tuple(sent), outputs)


class TlsProtocol(GrpcProtocol):
    """The same, encrypted."""

    def adapt(self, plan: LoadPlan) -> LoadPlan:
        return replace(plan, is_tls=True)

    def check(self, address: str, sent: Sequence[bytes], outputs: list[inference.Outputs], timeout_s: float) -> None:
        inference.first_answer(address, sent[0], timeout_s=timeout_s, is_tls=True)
        inference.check(address, tuple(sent), outputs, is_tls=True)


class JsonProtocol:
    """A JSON object of rows sent to /infer, answered by one of outputs."""

    name: Literal["grpc", "http"] = "http"

    def address(self, server: Addresses) -> str:
        return server.http

    def messages(self, model: str, *, rows: int, copies: int) -> tuple[bytes, ...]:
        if model in strings.PIPELINES:
            raise ValueError("the JSON servers take no string columns, expected a model of one tensor")
        names, parts = models.copies(model, copies), inference.tensors(model, rows)
        count = max(copies, inference.DISTINCT)
        bodies = ({"model": names[i % copies], "rows": parts[i % len(parts)].tolist()} for i in range(count))
        return tuple(json.dumps(body, separators=(",", ":")).encode() for body in bodies)

    def adapt(self, plan: LoadPlan) -> LoadPlan:
        # HTTP/1.1 carries one request at a time per connection: each stream becomes a connection.
        return replace(plan, path=_HTTP_PATH, connections=plan.connections * plan.streams, streams=1, is_http1=True)

    def check(self, address: str, sent: Sequence[bytes], outputs: list[inference.Outputs], timeout_s: float) -> None:
        give_up_at = time.monotonic() + timeout_s
        while True:
            try:
                _post(address, sent[0])
                break
            except OSError as error:
                if time.monotonic() >= give_up_at:
                    raise TimeoutError(f"no answer from {address} within {timeout_s} s: {error}") from error
                time.sleep(_POLL_S)
        for message, expected in zip(sent, cycle(outputs), strict=False):
            if difference := inference.compare(expected, self.read(self.parse(_post(address, message)))):
                raise inference.WrongAnswerError(f"{address} answers wrongly: {difference}")

    def parse(self, body: bytes) -> Any:
        """An answer's body."""
        return json.loads(body)

    def read(self, answer: Any) -> inference.Outputs:
        """The outputs in what was parsed."""
        return {name: np.asarray(values) for name, values in answer["outputs"].items()}


class RestProtocol(JsonProtocol):
    """The Open Inference Protocol's REST, each body behind its path."""

    def address(self, server: Addresses) -> str:
        return server.rest

    def messages(self, model: str, *, rows: int, copies: int) -> tuple[bytes, ...]:
        if model in strings.PIPELINES:
            raise ValueError("only models of one tensor are sent as JSON")
        names, parts = models.copies(model, copies), inference.tensors(model, rows)
        count = max(copies, inference.DISTINCT)
        return tuple(
            f"/v2/models/{names[i % copies]}/infer ".encode()
            + json.dumps(
                {
                    "inputs": [
                        {"name": models.INPUT, "datatype": "FP32", "shape": list(part.shape), "data": part.tolist()}
                    ]
                },
                separators=(",", ":"),
            ).encode()
            for i, part in ((i, parts[i % len(parts)]) for i in range(count))
        )

    def read(self, answer: Any) -> inference.Outputs:
        return {each["name"]: np.asarray(each["data"]).reshape(each["shape"]) for each in answer["outputs"]}


def _post(address: str, body: bytes) -> bytes:
    path = _HTTP_PATH
    if body.startswith(b"/"):
        own, _, body = body.partition(b" ")
        path = own.decode()
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise inference.WrongAnswerError(f"{address} answers with HTTP status {response.status}: {text[:200]!r}")
    return text


GRPC: Final = GrpcProtocol()
TLS: Final = TlsProtocol()
JSON: Final = JsonProtocol()
REST: Final = RestProtocol()
