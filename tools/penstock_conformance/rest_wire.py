"""Runs the cases of REST: sends each request over a connection of its own, by Python's HTTP client, and judges the answer."""

import http.client
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_conformance.case import Answered, Case, Outcome, Refused, Result, described
from penstock_conformance.grpc_wire import unlike
from penstock_conformance.samples import DTYPES, from_raw, of_bytes

_TIMEOUT_S: Final = 20.0
HEADER_BYTES: Final = "Inference-Header-Content-Length"
_SIZE: Final = "binary_data_size"
_WORDS: Final = {
    None: math.nan, "NaN": math.nan, "nan": math.nan, "Infinity": math.inf, "inf": math.inf, "-Infinity": -math.inf,
    "-inf": -math.inf,
}  # fmt: skip
"""How servers say floats for which JSON has no number."""


@dataclass(frozen=True, slots=True)
class RestRequest:
    """What is sent.

    Attributes:
        verb: of HTTP.
        path: with MODEL for the model's name.
        model: the name that stands in the path; empty for none.
        body: an object that becomes JSON, or bytes as they are; None for none.
        raw: raw contents behind the JSON.
        headers: besides those of every request.
        chunks: the body goes in chunks of this size, without a length; 0 for one piece.
        has_error: whether a refusal says why in a JSON object.
    """

    verb: str
    path: str
    model: str = ""
    body: Any = None
    raw: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    chunks: int = 0
    has_error: bool = True


@dataclass(frozen=True, slots=True)
class RestReply:
    """What came: `found` is the body's JSON, or None."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    found: Any


class RestWire:
    """A server that is asked by REST.

    Args:
        address: as HOST:PORT.
        names: the server's names of the models, where they are others.
    """

    def __init__(self, address: str, names: Mapping[str, str]) -> None:
        self._address = address
        self._names = names

    def extensions(self) -> frozenset[str]:
        """The extensions that the server names; none where it does not say."""
        try:
            found = self._sent(RestRequest("GET", "/v2")).found
        except (OSError, http.client.HTTPException):
            return frozenset()
        return frozenset(found.get("extensions") or ()) if isinstance(found, dict) else frozenset()

    def reachable(self) -> bool:
        """Whether a server answers at all."""
        try:
            self._sent(RestRequest("GET", "/v2/health/live"))
        except (OSError, http.client.HTTPException):
            return False
        return True

    def run(self, case: Case) -> Result:
        """Tries a case."""
        begun = time.perf_counter()
        try:
            reply = self._sent(case.request)
        except (OSError, http.client.HTTPException) as error:
            outcome, got = Outcome.FAILED, f"no answer: {type(error).__name__}: {error}"
        else:
            outcome, got = self._outcome(case, reply)
        return Result(case, outcome, got, time.perf_counter() - begun)

    def _sent(self, request: RestRequest) -> RestReply:
        host, _, port = self._address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
        content, headers = _content(request)
        path = request.path.replace("MODEL", self._names.get(request.model, request.model))
        try:
            if request.chunks:
                pieces = (content[at : at + request.chunks] for at in range(0, len(content), request.chunks))
                connection.request(request.verb, path, pieces, headers, encode_chunked=True)
            else:
                connection.request(request.verb, path, content or None, headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        answer_headers = {name.lower(): value for name, value in response.getheaders()}
        return RestReply(response.status, answer_headers, body, _json(answer_headers, body))

    def _outcome(self, case: Case, reply: RestReply) -> tuple[Outcome, str]:
        got = f"{reply.status}: {reply.body[:160].decode(errors='replace')}"
        if isinstance(case.expected, Refused):
            if str(reply.status) not in case.expected.codes:
                is_answer = reply.status == 200
                return Outcome.FAILED, f"an answer; expected {described(case.expected)}" if is_answer else got
            says = isinstance(reply.found, dict) and isinstance(reply.found.get("error"), str)
            return (
                (Outcome.PASSED, "")
                if says or not case.request.has_error
                else (Outcome.FAILED, f"no error text: {got}")
            )
        if reply.status != 200:
            is_absent = case.extension and reply.status in (404, 405, 501)
            return (Outcome.NOT_OFFERED if is_absent else Outcome.FAILED), got
        try:
            wrong = self._judged(case.expected, reply)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            wrong = f"a malformed answer: {error}: {got}"
        return (Outcome.PASSED, "") if wrong is None else (Outcome.FAILED, wrong)

    def _judged(self, expected: Answered, reply: RestReply) -> str | None:
        for name, wanted in expected.fields.items():
            value = self._names.get(wanted, wanted) if isinstance(wanted, str) else wanted
            if reply.found.get(name) != value:
                return f"{name} = {reply.found.get(name)!r}; expected {value!r}"
        if expected.outputs is not None and (wrong := unlike(outputs_of(reply), expected.outputs)) is not None:
            return wrong
        return None if expected.check is None else expected.check(reply)


def _content(request: RestRequest) -> tuple[bytes, dict[str, str]]:
    headers = dict(request.headers)
    if request.body is None:
        return b"", headers
    if isinstance(request.body, bytes):
        return request.body, {"Content-Type": "application/json", **headers}
    content = json.dumps(request.body).encode()
    if request.raw:
        return content + request.raw, {
            "Content-Type": "application/octet-stream",
            HEADER_BYTES: str(len(content)),
            **headers,
        }
    return content, {"Content-Type": "application/json", **headers}


def _json(headers: Mapping[str, str], body: bytes) -> Any:
    size = headers.get(HEADER_BYTES.lower())
    try:
        return json.loads(body if size is None else body[: int(size)])
    except ValueError:
        return None


def outputs_of(reply: RestReply) -> dict[str, tuple[str, NDArray[Any]]]:
    """Datatype and values of each output; raises `ValueError` for data that do not fit."""
    at = int(reply.headers.get(HEADER_BYTES.lower()) or len(reply.body))
    found = {}
    for tensor in reply.found["outputs"]:
        datatype, shape, size = tensor["datatype"], tensor["shape"], (tensor.get("parameters") or {}).get(_SIZE)
        if datatype not in DTYPES:
            raise ValueError(f"output {tensor['name']!r} has datatype {datatype!r}")
        if size is None:
            values = _values(tensor["data"], datatype).reshape(shape)
        else:
            values = from_raw(reply.body[at : at + size], datatype, shape)
            at += size
        found[tensor["name"]] = (datatype, values)
    if at != len(reply.body):
        raise ValueError(f"{len(reply.body) - at} bytes of the answer belong to no output")
    return found


def _values(data: Any, datatype: str) -> NDArray[Any]:
    elements = np.array(data, object).ravel().tolist()
    if datatype == "BYTES":
        return of_bytes([element.encode() for element in elements])
    if DTYPES[datatype].kind == "f":
        elements = [_WORDS[each] if each is None or isinstance(each, str) else each for each in elements]
    elif any(isinstance(each, bool) is not (datatype == "BOOL") or isinstance(each, float | str) for each in elements):
        raise ValueError(f"data of {datatype} hold {elements[:3]}")
    return np.array(elements, DTYPES[datatype])
