"""The cases of REST, by section. Every case of tensors is made for each datatype."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_conformance import samples
from penstock_conformance.case import Answered, Case, Refused
from penstock_conformance.contract import DATATYPES, FIXED, MODELS, PICK, SUM, VERSIONS, Model, identity
from penstock_conformance.grpc_cases import datatype_of
from penstock_conformance.rest_wire import RestReply, RestRequest, outputs_of

INVALID: Final = Refused(("400", "422"))
MISSING: Final = Refused(("404",))
_UNKNOWN: Final = "conformance_no_such_model"
_DOC: Final = "inference_rest.md"
_HEALTH: Final = f"{_DOC}, Health/Readiness/Liveness Probes"
_SERVER_METADATA: Final = f"{_DOC}, Server Metadata Response JSON Object"
_MODEL_METADATA: Final = f"{_DOC}, Model Metadata Response JSON Object"
_REQUEST: Final = f"{_DOC}, Inference Request JSON Object"
_INPUT: Final = f"{_DOC}, Request Input"
_OUTPUT: Final = f"{_DOC}, Request Output"
_RESPONSE: Final = f"{_DOC}, Inference Response JSON Object"
_ERROR: Final = f"{_DOC}, Inference Response JSON Error Object"
_DATA: Final = f"{_DOC}, Tensor Data"
_PARAMETERS: Final = f"{_DOC}, Parameters"
_HTTP: Final = "RFC 9110 and 9112"
_BINARY: Final = "Triton Inference Server, docs/protocol, binary tensor data"
_INFER: Final = "/v2/models/MODEL/infer"
JSON_TYPES: Final = tuple(name for name in DATATYPES if name != "FP16")
"""The datatypes that the specification knows as JSON; of halves it says that they are problematic."""


def cases() -> list[Case]:
    """All cases, in the order of their sections."""
    makers = (_health, _metadata, _tensors, _requests, _outputs, _versions, _parameters, _binary, _http)
    return [case for maker in makers for case in maker()]


def tensor(name: str, values: NDArray[Any], *, is_nested: bool = False, **more: Any) -> dict[str, Any]:
    """An input with its data."""
    listed = values if is_nested else values.ravel()
    data = listed.tolist()
    if values.dtype.kind == "O":
        data = [[each.decode() for each in row] for row in data] if is_nested else [each.decode() for each in data]
    return {"name": name, "datatype": datatype_of(values), "shape": list(values.shape), "data": data, **more}


def infer(inputs: Mapping[str, NDArray[Any]], *, is_nested: bool = False, **fields: Any) -> dict[str, Any]:
    """A request's body."""
    return {"inputs": [tensor(name, values, is_nested=is_nested) for name, values in inputs.items()], **fields}


def posted(model: str, body: Any, **settings: Any) -> RestRequest:
    """A request of inference."""
    return RestRequest("POST", _INFER, model, body, **settings)


def _get(path: str, model: str = "", **settings: Any) -> RestRequest:
    return RestRequest("GET", path, model, **settings)


def _health(section: str = "REST health") -> Iterator[Case]:
    for name in ("live", "ready"):
        yield Case(f"rest.health.{name}", section, f"A server that is {name} answers with status 200.", _HEALTH,
                   _get(f"/v2/health/{name}"), Answered())  # fmt: skip
    for model in (identity("FP32"), identity("BYTES"), SUM):
        yield Case(f"rest.health.model.{model}", section, "A model that is loaded is ready.", _HEALTH,
                   _get("/v2/models/MODEL/ready", model), Answered(), model)  # fmt: skip
    for version in MODELS[VERSIONS].versions:
        yield Case(f"rest.health.version.{version}", section, "Each version that is served can be asked for.", _HEALTH,
                   _get(f"/v2/models/MODEL/versions/{version}/ready", VERSIONS), Answered(), VERSIONS)  # fmt: skip
    yield Case("rest.health.unknown-model", section, "A model that nobody has is not ready.", _HEALTH,
               _get(f"/v2/models/{_UNKNOWN}/ready", has_error=False), Refused(("404", "400", "503")))  # fmt: skip
    yield Case("rest.health.unknown-version", section, "A version that nobody has is not ready.", _HEALTH,
               _get("/v2/models/MODEL/versions/99/ready", VERSIONS, has_error=False), Refused(("404", "400", "503")),
               VERSIONS)  # fmt: skip


def _metadata(section: str = "REST metadata") -> Iterator[Case]:
    server = _get("/v2")
    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "name": ("The server says its name.", lambda value: isinstance(value, str) and bool(value)),
        "version": ("The server says its version.", lambda value: isinstance(value, str) and bool(value)),
        "extensions": ("Extensions are a list of names.", lambda value: isinstance(value, list) and all(value)),
    }
    for name, (rule, is_so) in rules.items():
        yield Case(f"rest.metadata.server.{name}", section, rule, _SERVER_METADATA, server,
                   Answered(check=_has(name, is_so)))  # fmt: skip
    for model in MODELS.values():
        yield Case(f"rest.metadata.tensors.{model.name}", section, "Inputs and outputs are described by name, datatype and "
                   "shape; a length that varies is -1.", _MODEL_METADATA, _get("/v2/models/MODEL", model.name),
                   Answered(fields={"name": model.name}, check=_describes(model)), model.name)  # fmt: skip
    yield Case("rest.metadata.versions", section, "All versions that can be asked for are named.", _MODEL_METADATA,
               _get("/v2/models/MODEL", VERSIONS),
               Answered(check=_has("versions", lambda found: {"1", "2"} <= set(found or ()))), VERSIONS)  # fmt: skip
    for version in MODELS[VERSIONS].versions:
        yield Case(f"rest.metadata.version.{version}", section, "A version can be described by its name.", _MODEL_METADATA,
                   _get(f"/v2/models/MODEL/versions/{version}", VERSIONS), Answered(fields={"name": VERSIONS}),
                   VERSIONS)  # fmt: skip
    yield Case("rest.metadata.unknown-model", section, "A request that fails has an error status, and says why in `error`.",
               f"{_DOC}, Model Metadata Response JSON Error Object", _get(f"/v2/models/{_UNKNOWN}"),
               Refused(("404", "400")))  # fmt: skip
    yield Case("rest.metadata.unknown-version", section, "A version that nobody has is an error.",
               f"{_DOC}, Model Metadata Response JSON Error Object", _get("/v2/models/MODEL/versions/99", VERSIONS),
               Refused(("404", "400")), VERSIONS)  # fmt: skip


def _has(name: str, is_so: Callable[[Any], bool]) -> Callable[[RestReply], str | None]:
    def check(reply: RestReply) -> str | None:
        value = reply.found.get(name)
        return None if is_so(value) else f"{name} = {value!r}"

    return check


def _describes(model: Model) -> Callable[[RestReply], str | None]:
    def check(reply: RestReply) -> str | None:
        for what, declared in (("inputs", model.inputs), ("outputs", model.outputs)):
            got = {each["name"]: (each["datatype"], tuple(each["shape"])) for each in reply.found[what]}
            if got != dict(declared):
                return f"{what} {got}; expected {dict(declared)}"
        return None

    return check


def _given_back(values: NDArray[Any]) -> Answered:
    return Answered({"OUTPUT": values})


def _sayable(datatype: str) -> NDArray[Any]:
    """The extremes that JSON can say."""
    if datatype == "BYTES":
        return samples.of_bytes([b"", b"a", "\u2603 \U0001f600".encode(), b"a\x00b", b'"\\\n']).reshape(1, -1)
    ends = samples.extremes(datatype)
    return ends[:, np.isfinite(ends[0])] if ends.dtype.kind == "f" else ends


def _tensors(section: str = "REST tensors") -> Iterator[Case]:
    for datatype in JSON_TYPES:
        model, plain, ends = identity(datatype), samples.plain(datatype), _sayable(datatype)
        short, long = infer({"INPUT": plain}), infer({"INPUT": plain})
        short["inputs"][0]["data"].pop()
        long["inputs"][0]["data"].append(long["inputs"][0]["data"][0])
        wrong: list[Any] = [True] * 6 if datatype == "BYTES" else ["text"] * 6
        other = infer({"INPUT": samples.plain("INT64" if datatype == "FP64" else "FP64")})
        bodies: dict[str, tuple[str, Any, Any]] = {
            "flat": ("Elements may be given flat, in row-major order.", infer({"INPUT": plain}), _given_back(plain)),
            "nested": ("Elements may be given in their nested form.", infer({"INPUT": plain}, is_nested=True),
                       _given_back(plain)),
            "one": ("A tensor of one element is given back.", infer({"INPUT": plain[:1, :1]}),
                    _given_back(plain[:1, :1])),
            "extremes": ("Every value that JSON can say is given back.", infer({"INPUT": ends}), _given_back(ends)),
            "short": ("The number of elements must match the shape; one is missing.", short, INVALID),
            "long": ("The number of elements must match the shape; one is too many.", long, INVALID),
            "kind": ("An element of another kind is refused.",
                     {"inputs": [{"name": "INPUT", "datatype": datatype, "shape": [2, 3], "data": wrong}]}, INVALID),
            "datatype": ("A tensor of another datatype than the model declares is refused.", other, INVALID),
        }  # fmt: skip
        for name, (rule, body, expected) in bodies.items():
            yield Case(f"rest.tensors.{datatype}.{name}", section, rule, _DATA, posted(model, body), expected, model)
    for datatype, beyond in {"UINT8": 256, "UINT32": -1, "INT8": 128, "INT16": -32769, "INT64": 2**63}.items():
        model = identity(datatype)
        body = {"inputs": [{"name": "INPUT", "datatype": datatype, "shape": [1, 1], "data": [beyond]}]}
        yield Case(f"rest.tensors.{datatype}.beyond", section, "A value that the datatype cannot hold is refused, not wrapped.",
                   _DATA, posted(model, body), INVALID, model)  # fmt: skip
    box = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    yield Case("rest.tensors.rank-3", section, "A tensor of three axes is given back in its shape.", _DATA,
               posted(FIXED, infer({"INPUT": box}, is_nested=True)), _given_back(box), FIXED)  # fmt: skip
    ragged = {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3]]}]}
    yield Case("rest.tensors.ragged", section, "Nested elements have the shape's form.", _DATA,
               posted(identity("FP32"), ragged), INVALID, identity("FP32"))  # fmt: skip


def _requests(section: str = "REST requests") -> Iterator[Case]:
    a, b = np.arange(8, dtype=np.float32).reshape(2, 4), np.full((2, 4), 0.5, np.float32)
    answers = {"SUM": a + b, "DIFFERENCE": a - b}
    whole = infer({"A": a, "B": b})

    def without(name: str) -> dict[str, Any]:
        """The request, of whose first input a field is not there."""
        first = {key: value for key, value in whole["inputs"][0].items() if key != name}
        return {**whole, "inputs": [first, whole["inputs"][1]]}

    def changed(name: str, value: Any) -> dict[str, Any]:
        return {**whole, "inputs": [{**whole["inputs"][0], name: value}, whole["inputs"][1]]}

    bodies: dict[str, tuple[str, str, Any, Any]] = {
        "two-inputs": ("Inputs are told apart by their names.", _REQUEST, whole, Answered(answers)),
        "order": ("Inputs may come in any order.", _REQUEST, infer({"B": b, "A": a}), Answered(answers)),
        "missing-input": ("An input that the model needs is there.", _REQUEST, infer({"A": a}), INVALID),
        "no-inputs": ("A request has inputs.", _REQUEST, {"inputs": []}, INVALID),
        "inputs-absent": ("A request names its inputs.", _REQUEST, {"id": "1"}, INVALID),
        "unknown-input": ("An input that the model does not have is refused.", _REQUEST, infer({"A": a, "B": b, "C": a}),
                          INVALID),
        "input-twice": ("An input comes once.", _REQUEST, {"inputs": [*whole["inputs"], whole["inputs"][0]]}, INVALID),
        **{f"without-{name}": (f"An input has its {name}.", _INPUT, without(name), INVALID)
           for name in ("name", "shape", "datatype", "data")},
        "shape-text": ("A shape is a list of numbers.", _INPUT, changed("shape", "2x4"), INVALID),
        "shape-negative": ("A length is not negative.", _INPUT, changed("shape", [-2, -4]), INVALID),
        "shape-fraction": ("A length is a whole number.", _INPUT, changed("shape", [2.5, 4]), INVALID),
        "shape-huge": ("A shape is that of the data.", _INPUT, changed("shape", [2**62, 4]), INVALID),
        "columns": ("A shape that the model does not declare is refused.", _INPUT,
                    infer({"A": a.reshape(4, 2), "B": b.reshape(4, 2)}), INVALID),
        "unknown-datatype": ("A datatype is one of the specification's.", _INPUT, changed("datatype", "FLOAT"), INVALID),
        "list": ("A body is an object.", _REQUEST, [1, 2], INVALID),
        "unknown-member": ("A member that nobody knows changes nothing.", _REQUEST, {**whole, "conformance": 1},
                           Answered(answers)),
    }  # fmt: skip
    for name, (rule, source, body, expected) in bodies.items():
        yield Case(f"rest.requests.{name}", section, rule, source, posted(SUM, body), expected, SUM)
    for name, text in {"plain": "42", "unicode": "r\u00e9f \u2603", "long": "x" * 2000}.items():
        yield Case(f"rest.requests.id.{name}", section, "The request's id comes back with the answer.", _RESPONSE,
                   posted(SUM, {**whole, "id": text}), Answered(answers, {"id": text}), SUM)  # fmt: skip
    yield Case("rest.requests.name", section, "The answer names the model that was used.", _RESPONSE, posted(SUM, whole),
               Answered(fields={"model_name": SUM}), SUM)  # fmt: skip
    yield Case("rest.requests.unknown-model", section, "A request that fails has an error status, and says why in `error`.",
               _ERROR, RestRequest("POST", f"/v2/models/{_UNKNOWN}/infer", "", whole), Refused(("404", "400")))  # fmt: skip
    bad = {"inputs": [{"name": "INPUT", "datatype": "INT64", "shape": [2], "data": [0, 9]}]}
    yield Case("rest.requests.model-fails", section, "A model that fails is an error of the server.", _ERROR, posted(PICK, bad),
               Refused(("500",)), PICK)  # fmt: skip


def _outputs(section: str = "REST outputs") -> Iterator[Case]:
    a, b = np.ones((1, 4), np.float32), np.full((1, 4), 3, np.float32)
    answers = {"SUM": a + b, "DIFFERENCE": a - b}

    def requested(*names: str) -> RestRequest:
        return posted(SUM, infer({"A": a, "B": b}, outputs=[{"name": name} for name in names]))

    for name, values in answers.items():
        yield Case(f"rest.outputs.only.{name}", section, "Only the outputs that are asked for are returned.", _OUTPUT,
                   requested(name), Answered({name: values}), SUM)  # fmt: skip
    yield Case("rest.outputs.both", section, "All outputs may be asked for by name.", _OUTPUT, requested("DIFFERENCE", "SUM"),
               Answered(answers), SUM)  # fmt: skip
    yield Case("rest.outputs.all", section, "Where none is asked for, all are returned.", _REQUEST,
               posted(SUM, infer({"A": a, "B": b})), Answered(answers), SUM)  # fmt: skip
    yield Case("rest.outputs.unknown", section, "An output that the model does not have is refused.", _OUTPUT,
               requested("SUM", "PRODUCT"), INVALID, SUM)  # fmt: skip


def _versions(section: str = "REST versions") -> Iterator[Case]:
    values = np.zeros((1, 4), np.float32)
    body = infer({"INPUT": values})
    for version in MODELS[VERSIONS].versions:
        request = RestRequest("POST", f"/v2/models/MODEL/versions/{version}/infer", VERSIONS, body)
        yield Case(f"rest.versions.{version}", section, "The version in the path answers, and is named.", _RESPONSE, request,
                   Answered({"OUTPUT": values + np.float32(version)}, {"model_version": version}), VERSIONS)  # fmt: skip
    yield Case("rest.versions.none", section, "Without a version the server chooses one.", _REQUEST, posted(VERSIONS, body),
               Answered(check=_names_its_version), VERSIONS)  # fmt: skip
    for name, version in {"unknown": "99", "text": "no-such-version"}.items():
        request = RestRequest("POST", f"/v2/models/MODEL/versions/{version}/infer", VERSIONS, body)
        yield Case(f"rest.versions.{name}", section, "A version that nobody has is an error.", _ERROR, request,
                   Refused(("404", "400")), VERSIONS)  # fmt: skip


def _names_its_version(reply: RestReply) -> str | None:
    version = reply.found.get("model_version")
    got = outputs_of(reply)["OUTPUT"][1].ravel().tolist()
    return (
        None
        if version in ("1", "2") and got == [float(version)] * 4
        else f"model_version = {version!r}, OUTPUT = {got}"
    )


def _parameters(section: str = "REST parameters") -> Iterator[Case]:
    model, values = identity("FP32"), np.ones((1, 2), np.float32)
    for name, value in {"bool": True, "number": -5, "fraction": 0.5, "string": "text"}.items():
        given = {"parameters": {"conformance": value}}
        for place in ("request", "input", "output"):
            body = infer({"INPUT": values}, outputs=[{"name": "OUTPUT", **(given if place == "output" else {})}])
            if place == "request":
                body |= given
            if place == "input":
                body["inputs"][0] |= given
            yield Case(f"rest.parameters.{place}.{name}", section, "A parameter that the server does not know changes no "
                       "answer.", _PARAMETERS, posted(model, body), _given_back(values), model)  # fmt: skip


def _binary(section: str = "REST binary") -> Iterator[Case]:
    extension = "binary_tensor_data"

    def head(values: NDArray[Any], **more: Any) -> dict[str, Any]:
        size = {"parameters": {"binary_data_size": len(samples.raw(values))}}
        return {"name": "INPUT", "datatype": datatype_of(values), "shape": list(values.shape), **size, **more}

    everything = {"parameters": {"binary_data_output": True}}
    for datatype in DATATYPES:
        model, plain = identity(datatype), samples.plain(datatype)
        ends = samples.extremes(datatype)
        for name, values in {"matrix": plain, "extremes": ends}.items():
            request = posted(model, {"inputs": [head(values)], **everything}, raw=samples.raw(values))
            yield Case(f"rest.binary.{datatype}.{name}", section, "Raw contents go behind the JSON, both ways.", _BINARY,
                       request, _given_back(values), model, extension)  # fmt: skip
        if datatype != "FP16":
            out = posted(model, {**infer({"INPUT": plain}), **everything})
            yield Case(f"rest.binary.{datatype}.output", section, "An answer may be raw where the request is JSON.", _BINARY,
                       out, _given_back(plain), model, extension)  # fmt: skip
    a, b = np.ones((1, 4), np.float32), np.full((1, 4), 3, np.float32)
    both = [{**head(a), "name": "A"}, {**head(b), "name": "B"}]
    answers = {"SUM": a + b, "DIFFERENCE": a - b}
    raw = samples.raw(a) + samples.raw(b)
    yield Case("rest.binary.two", section, "Raw contents are in the order of the inputs.", _BINARY,
               posted(SUM, {"inputs": both, **everything}, raw=raw), Answered(answers), SUM, extension)  # fmt: skip
    mixed = [both[0], tensor("B", b)]
    yield Case("rest.binary.mixed", section, "One input may be raw and another JSON.", _BINARY,
               posted(SUM, {"inputs": mixed}, raw=samples.raw(a)), Answered(answers), SUM, extension)  # fmt: skip
    one = [
        {"name": "SUM", "parameters": {"binary_data": True}},
        {"name": "DIFFERENCE", "parameters": {"binary_data": False}},
    ]
    yield Case("rest.binary.one-output", section, "One output may be raw and another JSON.", _BINARY,
               posted(SUM, {"inputs": both, "outputs": one}, raw=raw), Answered(answers), SUM, extension)  # fmt: skip
    for name, content in {"short": raw[:-1], "long": raw + b"1", "half": raw[: len(raw) // 2]}.items():
        yield Case(f"rest.binary.wrong.{name}", section, "What follows the JSON has the size that the inputs say.", _BINARY,
                   posted(SUM, {"inputs": both}, raw=content), INVALID, SUM, extension)  # fmt: skip
    for name, size in {"length-huge": "999999999", "length-negative": "-1", "length-text": "many"}.items():
        request = posted(SUM, {"inputs": both}, raw=raw, headers=(("Inference-Header-Content-Length", size),))
        yield Case(f"rest.binary.wrong.{name}", section, "The header says how much of the body is JSON.", _BINARY, request,
                   INVALID, SUM, extension)  # fmt: skip


def _http(section: str = "HTTP") -> Iterator[Case]:
    model, values = identity("FP32"), np.ones((1, 2), np.float32)
    body = infer({"INPUT": values})
    content = json.dumps(body).encode()
    plain: dict[str, tuple[str, RestRequest, Any]] = {
        "no-type": ("A body is JSON without being called so.", posted(model, content, headers=(("Content-Type", ""),)),
                    _given_back(values)),
        "charset": ("A content type may have parameters.",
                    posted(model, content, headers=(("Content-Type", "application/json; charset=utf-8"),)),
                    _given_back(values)),
        "chunked": ("A body may come in chunks.", posted(model, body, chunks=7), _given_back(values)),
        "spaces": ("JSON may have spaces.", posted(model, json.dumps(body, indent=4).encode()), _given_back(values)),
        "unknown-header": ("A header that nobody knows changes nothing.",
                           posted(model, body, headers=(("X-Conformance", "1"),)), _given_back(values)),
        "malformed": ("A body that is no JSON is refused.", posted(model, content[:-1]), INVALID),
        "not-utf-8": ("A body that is no UTF-8 is refused.", posted(model, b'{"id": "\xff"}'), INVALID),
        "empty": ("A request of inference has a body.", posted(model, b""), Refused(("400", "411", "422"))),
        "get-infer": ("Inference is asked for by POST.", RestRequest("GET", _INFER, model, has_error=False),
                      Refused(("405", "404", "400"))),
        "post-health": ("Health is asked for by GET.", RestRequest("POST", "/v2/health/live", has_error=False),
                        Refused(("405", "404", "400"))),
        "unknown-path": ("A path that nobody knows is 404.", RestRequest("GET", "/v2/conformance", has_error=False),
                         Refused(("404", "400"))),
        "json-answer": ("An answer of JSON says that it is.", posted(model, body), Answered(check=_says_json)),
        "deep": ("JSON nested without end fails, and no more than this request.",
                 posted(model, b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), INVALID),
        "after": ("After requests that fail, others are answered.", posted(model, body), _given_back(values)),
    }  # fmt: skip
    for name, (rule, request, expected) in plain.items():
        yield Case(f"rest.http.{name}", section, rule, _HTTP, request, expected, model)
    large = np.arange(2**18, dtype=np.float32).reshape(-1, 64)
    yield Case("rest.http.large", section, "A body of a megabyte is answered.", _HTTP,
               posted(model, infer({"INPUT": large})), _given_back(large), model)  # fmt: skip


def _says_json(reply: RestReply) -> str | None:
    kind = reply.headers.get("content-type", "")
    return None if kind.startswith("application/json") else f"content-type = {kind!r}"
