"""The cases of gRPC, by section. Every case of tensors is made for each datatype."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from penstock import inference_pb2 as pb
from penstock_conformance import samples
from penstock_conformance.case import Answered, Case, Refused
from penstock_conformance.contract import DATATYPES, FIXED, MODELS, PICK, SUM, VERSIONS, Model, identity
from penstock_conformance.grpc_wire import TYPED, GrpcRequest, messages_of, outputs_of, unlike
from penstock_conformance.samples import DTYPES

Tensor = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor

INVALID: Final = Refused(("INVALID_ARGUMENT",))
MISSING: Final = Refused(("NOT_FOUND",))
_INFER: Final = "inference_grpc.md, Inference, ModelInferRequest"
_RAW: Final = "inference_grpc.md, Inference, ModelInferRequest.raw_input_contents"
_REPLY: Final = "inference_grpc.md, Inference, ModelInferResponse"
_TENSOR_CONTENTS: Final = "inference_grpc.md, Tensor Data, InferTensorContents"
_TYPES: Final = "inference_grpc.md, Tensor Data Types"
_HEALTH: Final = "inference_grpc.md, Health"
_SERVER_METADATA: Final = "inference_grpc.md, Metadata, Server Metadata"
_MODEL_METADATA: Final = "inference_grpc.md, Metadata, Model Metadata"
_PARAMETERS: Final = "inference_grpc.md, Inference, Parameters"
_GRPC: Final = "gRPC over HTTP/2"
_CODES: Final = "gRPC, Status codes and their use"
_TRITON: Final = "Triton Inference Server, docs/protocol"
_HEALTH_V1: Final = "grpc.health.v1, health.proto"
_REFLECTION: Final = "grpc.reflection.v1, reflection.proto"
_UNKNOWN: Final = "conformance_no_such_model"


def cases() -> list[Case]:
    """All cases, in the order of their sections."""
    makers = (
        _health,
        _server_metadata,
        _model_metadata,
        _raw,
        _typed,
        _strings,
        _shapes,
        _requests,
        _outputs,
        _versions,
    )
    more = (_parameters, _failures, _transport, _streams, _health_service, _reflection, _repository)
    return [case for maker in (*makers, *more) for case in maker()]


def tensor(name: str, values: NDArray[Any], datatype: str | None = None, shape: list[int] | None = None) -> Tensor:
    """An input's head."""
    found = datatype or datatype_of(values)
    return Tensor(name=name, datatype=found, shape=list(values.shape) if shape is None else shape)


def datatype_of(values: NDArray[Any]) -> str:
    """The datatype of an array."""
    return next(name for name, dtype in DTYPES.items() if dtype == values.dtype)


def infer(model: str, inputs: Mapping[str, NDArray[Any]], **fields: Any) -> pb.ModelInferRequest:
    """A request with raw contents."""
    return pb.ModelInferRequest(
        **{
            "model_name": model,
            "inputs": [tensor(name, values) for name, values in inputs.items()],
            "raw_input_contents": [samples.raw(values) for values in inputs.values()],
            **fields,
        }
    )


def typed(model: str, inputs: Mapping[str, NDArray[Any]], **fields: Any) -> pb.ModelInferRequest:
    """A request with typed contents."""
    heads = [tensor(name, values) for name, values in inputs.items()]
    for head, values in zip(heads, inputs.values(), strict=True):
        getattr(head.contents, TYPED[head.datatype]).extend(values.ravel().tolist())
    return pb.ModelInferRequest(model_name=model, inputs=heads, **fields)


def asked(message: pb.ModelInferRequest | bytes, **settings: Any) -> GrpcRequest:
    """A call of ModelInfer."""
    return GrpcRequest("ModelInfer", (message,), pb.ModelInferResponse, **settings)


def _call(method: str, message: Any, reply: Any) -> GrpcRequest:
    return GrpcRequest(method, (message,), reply)


def _health() -> Iterator[Case]:
    section = "health"
    live = _call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
    yield Case("grpc.health.live", section, "A server that answers says that it is live.", _HEALTH, live,
               Answered(fields={"live": True}))  # fmt: skip
    ready = _call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)
    yield Case("grpc.health.ready", section, "A server whose models are loaded says that it is ready.", _HEALTH, ready,
               Answered(fields={"ready": True}))  # fmt: skip
    for model in (identity("FP32"), identity("BYTES"), SUM):
        request = _call("ModelReady", pb.ModelReadyRequest(name=model), pb.ModelReadyResponse)
        yield Case(f"grpc.health.model.{model}", section, "A model that is loaded is ready; without a version the server "
                   "chooses one.", _HEALTH, request, Answered(fields={"ready": True}), model)  # fmt: skip
    for version in MODELS[VERSIONS].versions:
        request = _call("ModelReady", pb.ModelReadyRequest(name=VERSIONS, version=version), pb.ModelReadyResponse)
        yield Case(f"grpc.health.version.{version}", section, "Each version that is served can be asked for by its name.",
                   _HEALTH, request, Answered(fields={"ready": True}), VERSIONS)  # fmt: skip
    unknown = _call("ModelReady", pb.ModelReadyRequest(name=_UNKNOWN), pb.ModelReadyResponse)
    yield Case("grpc.health.unknown-model", section, "Errors are told by the call's status: a model that nobody has is "
               "NOT_FOUND.", _HEALTH, unknown, MISSING)  # fmt: skip
    gone = _call("ModelReady", pb.ModelReadyRequest(name=VERSIONS, version="99"), pb.ModelReadyResponse)
    yield Case("grpc.health.unknown-version", section, "A version that nobody has is NOT_FOUND.", _HEALTH, gone,
               Refused(("NOT_FOUND", "UNAVAILABLE")), VERSIONS)  # fmt: skip
    empty = _call("ModelReady", pb.ModelReadyRequest(), pb.ModelReadyResponse)
    yield Case("grpc.health.no-name", section, "A question about a model names it.", _HEALTH, empty,
               Refused(("NOT_FOUND", "INVALID_ARGUMENT")))  # fmt: skip


def _server_metadata() -> Iterator[Case]:
    section = "server metadata"
    request = _call("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "name": ("The server says its name.", lambda reply: bool(reply.name)),
        "version": ("The server says its version.", lambda reply: bool(reply.version)),
        "extensions": ("Extensions are names, each once.", lambda reply: _are_names(reply.extensions)),
    }
    for name, (rule, is_so) in rules.items():
        yield Case(f"grpc.server-metadata.{name}", section, rule, _SERVER_METADATA, request,
                   Answered(check=_holds(name, is_so)))  # fmt: skip


def _are_names(found: Any) -> bool:
    return all(found) and len(set(found)) == len(found)


def _holds(name: str, is_so: Callable[[Any], bool]) -> Callable[[Any], str | None]:
    def check(reply: Any) -> str | None:
        return None if is_so(reply) else f"{name} = {getattr(reply, name, reply)!r}"[:200]

    return check


def _model_metadata() -> Iterator[Case]:
    section = "model metadata"
    for model in MODELS.values():
        request = _call("ModelMetadata", pb.ModelMetadataRequest(name=model.name), pb.ModelMetadataResponse)
        yield Case(f"grpc.model-metadata.tensors.{model.name}", section, "Inputs and outputs are described by name, datatype "
                   "and shape; a length that varies is -1.", _MODEL_METADATA, request,
                   Answered(fields={"name": model.name}, check=_describes(model)), model.name)  # fmt: skip
    request = _call("ModelMetadata", pb.ModelMetadataRequest(name=VERSIONS), pb.ModelMetadataResponse)
    yield Case("grpc.model-metadata.versions", section, "All versions that can be asked for are named.", _MODEL_METADATA,
               request, Answered(check=_holds("versions", lambda reply: set(reply.versions) >= {"1", "2"})),
               VERSIONS)  # fmt: skip
    yield Case("grpc.model-metadata.platform", section, "The model's platform is named.", _MODEL_METADATA, request,
               Answered(check=_holds("platform", lambda reply: bool(reply.platform))), VERSIONS)  # fmt: skip
    for version in MODELS[VERSIONS].versions:
        request = _call(
            "ModelMetadata", pb.ModelMetadataRequest(name=VERSIONS, version=version), pb.ModelMetadataResponse
        )
        yield Case(f"grpc.model-metadata.version.{version}", section, "A version can be described by its name.",
                   _MODEL_METADATA, request, Answered(fields={"name": VERSIONS}, check=_describes(MODELS[VERSIONS])),
                   VERSIONS)  # fmt: skip
    unknown = _call("ModelMetadata", pb.ModelMetadataRequest(name=_UNKNOWN), pb.ModelMetadataResponse)
    yield Case("grpc.model-metadata.unknown-model", section, "A model that nobody has is NOT_FOUND.", _MODEL_METADATA,
               unknown, MISSING)  # fmt: skip
    gone = _call("ModelMetadata", pb.ModelMetadataRequest(name=VERSIONS, version="99"), pb.ModelMetadataResponse)
    yield Case("grpc.model-metadata.unknown-version", section, "A version that nobody has is NOT_FOUND.", _MODEL_METADATA,
               gone, Refused(("NOT_FOUND", "UNAVAILABLE")), VERSIONS)  # fmt: skip


def _describes(model: Model) -> Callable[[Any], str | None]:
    def check(reply: Any) -> str | None:
        for what, declared, found in (("input", model.inputs, reply.inputs), ("output", model.outputs, reply.outputs)):
            got = {each.name: (each.datatype, tuple(each.shape)) for each in found}
            if got != dict(declared):
                return f"{what}s {got}; expected {dict(declared)}"
        return None

    return check


def _given_back(values: NDArray[Any]) -> Answered:
    return Answered({"OUTPUT": values})


def _raw(section: str = "raw tensors") -> Iterator[Case]:
    for datatype in DATATYPES:
        model = identity(datatype)
        plain, ends = samples.plain(datatype), samples.extremes(datatype)
        contents = samples.raw(plain)
        tries: dict[str, tuple[str, str, pb.ModelInferRequest, Any]] = {
            "one": ("A tensor of one element is given back.", _RAW, infer(model, {"INPUT": plain[:1, :1]}),
                    _given_back(plain[:1, :1])),
            "matrix": ("Raw contents are the elements in row-major order, without padding.", _RAW,
                       infer(model, {"INPUT": plain}), _given_back(plain)),
            "extremes": ("Every value of the datatype is given back to the bit.", _TYPES,
                         infer(model, {"INPUT": ends}), _given_back(ends)),
            "many": ("A tensor of a thousand rows is given back.", _RAW,
                     infer(model, {"INPUT": samples.plain(datatype, 1000)}), _given_back(samples.plain(datatype, 1000))),
            "short": ("The size of raw contents must match shape and datatype; an element is missing.", _RAW,
                      infer(model, {"INPUT": plain}, raw_input_contents=[samples.raw(plain.ravel()[:-1])]), INVALID),
            "long": ("The size of raw contents must match shape and datatype; an element is too many.", _RAW,
                     infer(model, {"INPUT": plain}, raw_input_contents=[contents + samples.raw(plain[0, :1])]), INVALID),
            "none": ("The size of raw contents must match shape and datatype; there are none.", _RAW,
                     infer(model, {"INPUT": plain}, raw_input_contents=[b""]), INVALID),
        }  # fmt: skip
        if DTYPES[datatype].itemsize > 1 and datatype != "BYTES":
            tries["odd"] = ("The size of raw contents must match shape and datatype; a byte is missing.", _RAW,
                            infer(model, {"INPUT": plain}, raw_input_contents=[contents[:-1]]), INVALID)  # fmt: skip
        for name, (rule, source, message, expected) in tries.items():
            yield Case(f"grpc.raw.{datatype}.{name}", section, rule, source, asked(message), expected, model)
        other = "INT64" if datatype == "FP64" else "FP64"
        wrong = infer(model, {"INPUT": samples.plain(other)})
        yield Case(f"grpc.raw.{datatype}.datatype", section, "A tensor of another datatype than the model declares is "
                   "refused.", _INFER, asked(wrong), INVALID, model)  # fmt: skip


def _typed(section: str = "typed tensors") -> Iterator[Case]:
    for datatype in TYPED:
        model = identity(datatype)
        plain, ends = samples.plain(datatype), samples.extremes(datatype)
        short, long = typed(model, {"INPUT": plain}), typed(model, {"INPUT": plain})
        del getattr(short.inputs[0].contents, TYPED[datatype])[-1:]
        getattr(long.inputs[0].contents, TYPED[datatype]).append(plain.ravel().tolist()[0])
        other = typed(model, {"INPUT": samples.plain("BYTES" if datatype == "FP64" else "FP64")})
        other.inputs[0].datatype = datatype
        tries: dict[str, tuple[str, pb.ModelInferRequest, Any]] = {
            "matrix": (f"Elements of {datatype} travel in {TYPED[datatype]}.", typed(model, {"INPUT": plain}),
                       _given_back(plain)),
            "extremes": ("Every value of the datatype is given back.", typed(model, {"INPUT": ends}), _given_back(ends)),
            "short": ("The number of elements must match the shape; one is missing.", short, INVALID),
            "long": ("The number of elements must match the shape; one is too many.", long, INVALID),
            "field": ("Elements in another datatype's field are no elements of this one.", other, INVALID),
        }  # fmt: skip
        for name, (rule, message, expected) in tries.items():
            yield Case(
                f"grpc.typed.{datatype}.{name}", section, rule, _TENSOR_CONTENTS, asked(message), expected, model
            )
    for datatype, beyond in {"UINT8": 256, "UINT16": 65536, "INT8": 128, "INT16": -32769}.items():
        model = identity(datatype)
        head = Tensor(name="INPUT", datatype=datatype, shape=[1, 1])
        getattr(head.contents, TYPED[datatype]).append(beyond)
        yield Case(f"grpc.typed.{datatype}.beyond", section, "A value that the datatype cannot hold is refused, not wrapped.",
                   _TENSOR_CONTENTS, asked(pb.ModelInferRequest(model_name=model, inputs=[head])), INVALID, model)  # fmt: skip
    half = Tensor(name="INPUT", datatype="FP16", shape=[1, 1])
    half.contents.fp32_contents.append(1.0)
    yield Case("grpc.typed.FP16", section, "FP16 has no typed contents and must be raw.", _RAW,
               asked(pb.ModelInferRequest(model_name=identity("FP16"), inputs=[half])), INVALID, identity("FP16"))  # fmt: skip
    none = pb.ModelInferRequest(
        model_name=identity("FP32"), inputs=[Tensor(name="INPUT", datatype="FP32", shape=[1, 1])]
    )
    yield Case("grpc.typed.absent", section, "An input needs contents, raw or typed.", _INFER, asked(none), INVALID,
               identity("FP32"))  # fmt: skip


def _strings(section: str = "strings") -> Iterator[Case]:
    model = identity("BYTES")
    for name, element in {
        "empty": b"", "ascii": b"plain", "utf-8": "\u2603 snow".encode(), "nul": b"a\x00b\x00",
        "long": b"x" * 100_000,
    }.items():  # fmt: skip
        values = samples.of_bytes([element]).reshape(1, 1)
        for form, made in {"raw": infer, "typed": typed}.items():
            yield Case(f"grpc.strings.{form}.{name}", section, "An element of BYTES comes back as it is.", _TYPES,
                       asked(made(model, {"INPUT": values})), _given_back(values), model)  # fmt: skip
    binary = bytes(range(256))
    for form, made in {"raw": infer, "typed": typed}.items():
        values = samples.of_bytes([binary]).reshape(1, 1)
        yield Case(f"grpc.strings.{form}.binary", section, "Bytes that are no text come back as they are, or, from models of "
                   "texts such as ONNX's, with U+FFFD for what is no UTF-8; nothing else changes.", _TYPES,
                   asked(made(model, {"INPUT": values})), Answered(check=_is_or_reads(binary)), model)  # fmt: skip
    head = Tensor(name="INPUT", datatype="BYTES", shape=[1, 1])
    for name, content in {
        "no-length": b"ab", "beyond": b"\x09\x00\x00\x00ab", "huge": b"\xff\xff\xff\xffab", "rest": b"\x01\x00\x00\x00abc",
    }.items():  # fmt: skip
        message = pb.ModelInferRequest(model_name=model, inputs=[head], raw_input_contents=[content])
        yield Case(f"grpc.strings.malformed.{name}", section, "A raw element of BYTES is its length in 4 bytes and so many "
                   "bytes; contents of another form are refused.", _RAW, asked(message), INVALID, model)  # fmt: skip


def _is_or_reads(element: bytes) -> Callable[[Any], str | None]:
    def check(reply: pb.ModelInferResponse) -> str | None:
        (got,) = outputs_of(reply)["OUTPUT"][1].ravel().tolist()
        return None if got in (element, element.decode(errors="replace").encode()) else f"OUTPUT = {got[:60]!r}"

    return check


def _shapes(section: str = "shapes") -> Iterator[Case]:
    model, four = identity("FP32"), np.arange(12, dtype=np.float32)
    for rows, columns in ((1, 12), (12, 1), (3, 4)):
        values = four.reshape(rows, columns)
        yield Case(f"grpc.shapes.{rows}x{columns}", section, "A length declared as -1 may be any.", _MODEL_METADATA,
                   asked(infer(model, {"INPUT": values})), _given_back(values), model)  # fmt: skip
    box = four.reshape(2, 2, 3)
    yield Case("grpc.shapes.rank-3", section, "A tensor of three axes is given back in its shape.", _REPLY,
               asked(infer(FIXED, {"INPUT": box})), _given_back(box), FIXED)  # fmt: skip
    wrong: dict[str, tuple[str, list[int], bytes]] = {
        "rank-low": (FIXED, [12], samples.raw(four)),
        "rank-high": (FIXED, [1, 2, 2, 3], samples.raw(four)),
        "fixed": (FIXED, [2, 3, 2], samples.raw(four)),
        "columns": (SUM, [3, 5], samples.raw(four)),
        "negative": (model, [-1, 4], samples.raw(four)),
        "both-negative": (model, [-3, -4], samples.raw(four)),
        "overflow": (model, [2**32, 2**32], b""),
        "overflow-signed": (model, [2**62, 4], b""),
        "huge": (model, [2**40, 4], samples.raw(four)),
    }
    for name, (target, shape, content) in wrong.items():
        names = list(MODELS[target].inputs)
        heads = [Tensor(name=each, datatype="FP32", shape=shape) for each in names]
        message = pb.ModelInferRequest(model_name=target, inputs=heads, raw_input_contents=[content] * len(names))
        yield Case(f"grpc.shapes.wrong.{name}", section, "A shape that the model does not declare, or that no tensor has, is "
                   "refused.", _INFER, asked(message), INVALID, target)  # fmt: skip


def _requests(section: str = "requests") -> Iterator[Case]:
    a, b = np.arange(8, dtype=np.float32).reshape(2, 4), np.full((2, 4), 0.5, np.float32)
    both = Answered({"SUM": a + b, "DIFFERENCE": a - b})
    whole = infer(SUM, {"A": a, "B": b})
    swapped = infer(SUM, {"B": b, "A": a})
    mixed = infer(SUM, {"A": a, "B": b})
    mixed.inputs[0].contents.fp32_contents.extend(a.ravel().tolist())
    half = typed(SUM, {"A": a, "B": b})
    half.raw_input_contents.append(samples.raw(a))
    twice = infer(SUM, {"A": a, "B": b})
    twice.inputs.append(tensor("A", a))
    twice.raw_input_contents.append(samples.raw(a))
    unnamed = infer(SUM, {"A": a, "": b})
    untyped = infer(SUM, {"A": a, "B": b})
    untyped.inputs[0].datatype = "FLOAT"
    tries: dict[str, tuple[str, str, pb.ModelInferRequest, Any]] = {
        "two-inputs": ("Inputs are told apart by their names.", _INFER, whole, both),
        "order": ("Raw contents are in the order of the request's inputs, whatever the model's is.", _RAW, swapped, both),
        "typed": ("Several inputs may be typed.", _INFER, typed(SUM, {"A": a, "B": b}), both),
        "missing-input": ("An input that the model needs and that is not there is refused.", _INFER, infer(SUM, {"A": a}),
                          INVALID),
        "no-inputs": ("A request without inputs is refused.", _INFER, pb.ModelInferRequest(model_name=SUM), INVALID),
        "unknown-input": ("An input that the model does not have is refused.", _INFER, infer(SUM, {"A": a, "B": b, "C": a}),
                          INVALID),
        "input-twice": ("An input comes once.", _INFER, twice, INVALID),
        "unnamed-input": ("An input has a name.", _INFER, unnamed, INVALID),
        "unknown-datatype": ("A datatype is one of the specification's.", _TYPES, untyped, INVALID),
        "raw-fewer": ("Raw contents are there for every input.", _RAW,
                      infer(SUM, {"A": a, "B": b}, raw_input_contents=[samples.raw(a)]), INVALID),
        "raw-more": ("Raw contents are there for every input, and no more.", _RAW,
                     infer(SUM, {"A": a, "B": b}, raw_input_contents=[samples.raw(a)] * 3), INVALID),
        "raw-and-typed": ("With raw contents, no input may have typed ones.", _RAW, mixed, INVALID),
        "raw-for-one": ("With raw contents for one input, no other may have typed ones.", _RAW, half, INVALID),
        "rows-differ": ("Inputs whose shapes do not go together fail.", _INFER, infer(SUM, {"A": a, "B": b[:1].repeat(3, 0)}),
                        Refused(("INVALID_ARGUMENT", "INTERNAL"))),
        "unknown-model": ("A model that nobody has is NOT_FOUND.", _CODES, infer(_UNKNOWN, {"A": a}), MISSING),
        "no-model": ("A request names its model.", _INFER, infer("", {"A": a}), Refused(("NOT_FOUND", "INVALID_ARGUMENT"))),
    }  # fmt: skip
    for name, (rule, source, message, expected) in tries.items():
        yield Case(f"grpc.requests.{name}", section, rule, source, asked(message), expected,
                   "" if name in ("unknown-model", "no-model") else SUM)  # fmt: skip
    for name, text in {"plain": "42", "unicode": "r\u00e9f \u2603", "long": "x" * 2000, "none": ""}.items():
        expected = Answered({"SUM": a + b, "DIFFERENCE": a - b}, {"id": text})
        yield Case(f"grpc.requests.id.{name}", section, "The request's id comes back with the answer, and none without one.",
                   _REPLY, asked(infer(SUM, {"A": a, "B": b}, id=text)), expected, SUM)  # fmt: skip
    yield Case("grpc.requests.name", section, "The answer names the model that was used.", _REPLY, asked(whole),
               Answered(fields={"model_name": SUM}), SUM)  # fmt: skip


def _outputs(section: str = "outputs") -> Iterator[Case]:
    a, b = np.ones((1, 4), np.float32), np.full((1, 4), 3, np.float32)
    answers = {"SUM": a + b, "DIFFERENCE": a - b}

    def requested(*names: str) -> GrpcRequest:
        return asked(infer(SUM, {"A": a, "B": b}, outputs=[Output(name=name) for name in names]))

    for name, values in answers.items():
        yield Case(f"grpc.outputs.only.{name}", section, "Only the outputs that are asked for are returned.", _INFER,
                   requested(name), Answered({name: values}), SUM)  # fmt: skip
    yield Case("grpc.outputs.both", section, "All outputs may be asked for by name, in any order.", _INFER,
               requested("DIFFERENCE", "SUM"), Answered(answers), SUM)  # fmt: skip
    yield Case("grpc.outputs.all", section, "Where none is asked for, all are returned.", _INFER, requested(),
               Answered(answers), SUM)  # fmt: skip
    yield Case("grpc.outputs.unknown", section, "An output that the model does not have is refused.", _INFER,
               requested("SUM", "PRODUCT"), INVALID, SUM)  # fmt: skip
    yield Case("grpc.outputs.form", section, "Raw contents are there for all outputs or for none, and never beside typed "
               "ones.", _REPLY, requested(), Answered(check=_is_one_form), SUM)  # fmt: skip


def _is_one_form(reply: pb.ModelInferResponse) -> str | None:
    try:
        outputs_of(reply)
    except ValueError as error:
        return str(error)
    return None


def _versions(section: str = "versions") -> Iterator[Case]:
    values = np.zeros((1, 4), np.float32)
    for version in MODELS[VERSIONS].versions:
        expected = Answered({"OUTPUT": values + np.float32(version)}, {"model_version": version})
        yield Case(f"grpc.versions.{version}", section, "The version that is asked for answers, and is named.", _REPLY,
                   asked(infer(VERSIONS, {"INPUT": values}, model_version=version)), expected, VERSIONS)  # fmt: skip
    yield Case("grpc.versions.none", section, "Without a version the server chooses one, and names it.", _REPLY,
               asked(infer(VERSIONS, {"INPUT": values})), Answered(check=_names_its_version), VERSIONS)  # fmt: skip
    for name, version in {"unknown": "99", "zero": "0", "text": "no-such-version"}.items():
        yield Case(f"grpc.versions.{name}", section, "A version that nobody has is refused.", _CODES,
                   asked(infer(VERSIONS, {"INPUT": values}, model_version=version)),
                   Refused(("NOT_FOUND", "UNAVAILABLE", *(("INVALID_ARGUMENT",) if name != "unknown" else ()))),
                   VERSIONS)  # fmt: skip


def _names_its_version(reply: pb.ModelInferResponse) -> str | None:
    if reply.model_version not in ("1", "2"):
        return f"model_version = {reply.model_version!r}; expected '1' or '2'"
    expected = np.full((1, 4), float(reply.model_version), np.float32)
    return unlike(outputs_of(reply), {"OUTPUT": expected})


def _parameters(section: str = "parameters") -> Iterator[Case]:
    model, values = identity("FP32"), np.ones((1, 2), np.float32)
    given: dict[str, dict[str, Any]] = {
        "bool": {"bool_param": True},
        "int64": {"int64_param": -5},
        "string": {"string_param": "text"},
        "double": {"double_param": 0.5},
    }
    for name, value in given.items():
        source = _PARAMETERS if name != "double" else "open_inference_grpc.proto, InferParameter"
        for place in ("request", "input", "output"):
            message = infer(model, {"INPUT": values}, outputs=[Output(name="OUTPUT")])
            holder: Any = {"request": message, "input": message.inputs[0], "output": message.outputs[0]}[place]
            holder.parameters["conformance"].CopyFrom(pb.InferParameter(**value))
            yield Case(f"grpc.parameters.{place}.{name}", section, "A parameter that the server does not know changes no "
                       "answer.", source, asked(message), _given_back(values), model)  # fmt: skip
    many = infer(model, {"INPUT": values})
    for at in range(100):
        many.parameters[f"conformance-{at}"].string_param = "x" * at
    yield Case("grpc.parameters.many", section, "There may be many parameters.", _PARAMETERS, asked(many),
               _given_back(values), model)  # fmt: skip
    size = infer(model, {"INPUT": values})
    size.inputs[0].parameters["binary_data_size"].int64_param = 8
    yield Case("grpc.parameters.binary_data_size", section, "Clients leave REST's parameter on requests of gRPC; it changes "
               "nothing.", _PARAMETERS, asked(size), _given_back(values), model)  # fmt: skip
    for name, field in {"uint64": "uint64_param", "int64": "int64_param"}.items():
        message = infer(model, {"INPUT": values})
        setattr(message.parameters["priority"], field, 1)
        yield Case(f"grpc.parameters.priority.{name}", section, "A priority is a whole number, with a sign or without.",
                   f"{_TRITON}, schedule policy", asked(message), _given_back(values), model, "schedule_policy")  # fmt: skip
    wrong = infer(model, {"INPUT": values})
    wrong.parameters["priority"].string_param = "high"
    yield Case("grpc.parameters.priority.text", section, "A parameter that the server knows has its type.",
               f"{_TRITON}, schedule policy", asked(wrong), INVALID, model, "schedule_policy")  # fmt: skip
    late = infer(model, {"INPUT": values})
    late.parameters["timeout"].int64_param = 10_000_000
    yield Case("grpc.parameters.timeout", section, "A timeout in microseconds bounds the time in the queue.",
               f"{_TRITON}, schedule policy", asked(late), _given_back(values), model, "schedule_policy")  # fmt: skip
    top = infer(identity("FP32"), {"INPUT": np.array([[0.1, 0.7, 0.2]], np.float32)}, outputs=[Output(name="OUTPUT")])
    top.outputs[0].parameters["classification"].int64_param = 2
    yield Case("grpc.parameters.classification", section, "The largest values of an output, as texts of value and index.",
               f"{_TRITON}, classification", asked(top), Answered(check=_are_classes), model, "classification")  # fmt: skip


def _are_classes(reply: pb.ModelInferResponse) -> str | None:
    datatype, values = outputs_of(reply)["OUTPUT"]
    found = [element.decode().split(":")[:2] for element in values.ravel().tolist()] if datatype == "BYTES" else []
    is_right = [index for _, index in found] == ["1", "2"] and abs(float(found[0][0]) - 0.7) < 1e-5
    return None if is_right else f"OUTPUT = {datatype} {values.tolist()}; expected ['0.7...:1', '0.2...:2']"


def _failures(section: str = "failures") -> Iterator[Case]:
    good, bad = np.array([0, 3], np.int64), np.array([0, 9], np.int64)
    yield Case("grpc.failures.none", section, "What the model can compute is answered.", _INFER,
               asked(infer(PICK, {"INPUT": good})), Answered({"OUTPUT": np.array([10, 40])}), PICK)  # fmt: skip
    yield Case("grpc.failures.model", section, "A model that fails is an error of the server.", _CODES,
               asked(infer(PICK, {"INPUT": bad})), Refused(("INTERNAL",)), PICK)  # fmt: skip
    yield Case("grpc.failures.after", section, "A failure of one request leaves the next alone.", _INFER,
               asked(infer(PICK, {"INPUT": good})), Answered({"OUTPUT": np.array([10, 40])}), PICK)  # fmt: skip
    for method in ("ModelInfer", "ModelReady", "ModelMetadata"):
        yield Case(f"grpc.failures.malformed.{method}", section, "Bytes that are no message fail, and no more than this call.",
                   _CODES, GrpcRequest(method, (b"\xff\xff\xff\xff",)), Refused(("INTERNAL", "INVALID_ARGUMENT")))  # fmt: skip
    yield Case("grpc.failures.unknown-method", section, "A method that the server does not have is UNIMPLEMENTED.", _CODES,
               GrpcRequest("ModelInferBackwards", (b"",)), Refused(("UNIMPLEMENTED",)))  # fmt: skip
    yield Case("grpc.failures.unknown-service", section, "A service that the server does not have is UNIMPLEMENTED.", _CODES,
               GrpcRequest("/conformance.NoSuchService/Ask", (b"",)), Refused(("UNIMPLEMENTED",)))  # fmt: skip
    unknown = infer(identity("FP32"), {"INPUT": np.ones((1, 2), np.float32)}).SerializeToString() + b"\xfa\x3f\x03abc"
    yield Case("grpc.failures.unknown-field", section, "A field that the server does not know is passed over.",
               "Protocol Buffers, Unknown fields", asked(unknown), _given_back(np.ones((1, 2), np.float32)),
               identity("FP32"))  # fmt: skip


def _transport(section: str = "transport") -> Iterator[Case]:
    model = identity("FP32")
    for name, megabytes in {"1": 1, "3": 3, "8": 8, "32": 32}.items():
        values = np.arange(megabytes * 2**18, dtype=np.float32).reshape(-1, 64)
        yield Case(f"grpc.transport.{name}-mib", section, "Tensors of megabytes are answered; gRPC's own limit of 4 MiB is too "
                   "low for them.", _GRPC, asked(infer(model, {"INPUT": values})), _given_back(values), model)  # fmt: skip
    small = np.ones((64, 64), np.float32)
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        yield Case(f"grpc.transport.{compression.name.lower()}", section, "A compressed message is understood.",
                   f"{_GRPC}, Compression", asked(infer(model, {"INPUT": small}), compression=compression),
                   _given_back(small), model)  # fmt: skip
    yield Case("grpc.transport.metadata", section, "Metadata that the server does not know changes nothing.", _GRPC,
               asked(infer(model, {"INPUT": small}), metadata=(("x-conformance", "1"), ("x-data-bin", b"\x00\xff"))),
               _given_back(small), model)  # fmt: skip
    yield Case("grpc.transport.long-metadata", section, "Metadata of several kilobytes is taken.", _GRPC,
               asked(infer(model, {"INPUT": small}), metadata=(("x-conformance", "x" * 6000),)), _given_back(small),
               model)  # fmt: skip
    yield Case("grpc.transport.deadline", section, "A deadline that is far is no matter.", _GRPC,
               asked(infer(model, {"INPUT": small}), timeout_s=3600.0), _given_back(small), model)  # fmt: skip


def _streams(section: str = "streams") -> Iterator[Case]:
    model, extension = identity("FP32"), "ModelStreamInfer"
    source = f"{_TRITON}, extensions, ModelStreamInfer"
    rows = [np.full((1, 2), at, np.float32) for at in range(10)]

    def streamed(*messages: pb.ModelInferRequest, **settings: Any) -> GrpcRequest:
        return GrpcRequest("ModelStreamInfer", messages, pb.ModelStreamInferResponse, is_stream=True, **settings)

    yield Case("grpc.streams.empty", section, "A stream without requests ends without answers.", source, streamed(),
               Answered(check=_answers([])), model, extension)  # fmt: skip
    for count in (1, 10):
        messages = [infer(model, {"INPUT": values}, id=str(at)) for at, values in enumerate(rows[:count])]
        yield Case(f"grpc.streams.{count}", section, "Each request of a stream is answered, with its id.", source,
                   streamed(*messages), Answered(check=_answers(rows[:count])), model, extension)  # fmt: skip
    bad = infer(model, {"INPUT": rows[1]}, id="1", raw_input_contents=[b""])
    around = [infer(model, {"INPUT": rows[0]}, id="0"), bad, infer(model, {"INPUT": rows[2]}, id="2")]
    yield Case("grpc.streams.error", section, "A request that fails is an error message in the stream, which goes on.", source,
               streamed(*around), Answered(check=_answers([rows[0], None, rows[2]])), model, extension)  # fmt: skip
    unknown = infer(_UNKNOWN, {"INPUT": rows[0]}, id="0")
    yield Case("grpc.streams.unknown-model", section, "A model that nobody has is an error message in the stream.", source,
               streamed(unknown), Answered(check=_answers([None])), "", extension)  # fmt: skip
    yield Case("grpc.streams.status", section, "With the metadata `triton_grpc_error` the first error ends the stream with its "
               "status.", source, streamed(bad, metadata=(("triton_grpc_error", "true"),)), INVALID, model,
               extension)  # fmt: skip


def _answers(expected: Sequence[NDArray[Any] | None]) -> Callable[[Any], str | None]:
    """What a stream must hold, by id; None stands for an error."""

    def check(replies: list[pb.ModelStreamInferResponse]) -> str | None:
        found = list(messages_of(replies))
        if len(found) != len(expected):
            return f"{len(found)} messages; expected {len(expected)}"
        errors = [each for each in found if isinstance(each, str)]
        failing = sum(values is None for values in expected)
        if len(errors) != failing:
            return f"{len(errors)} error messages; expected {failing}"
        answers = {each.id: each for each in found if not isinstance(each, str)}
        for at, values in enumerate(expected):
            if values is None:
                continue
            if str(at) not in answers:
                return f"no answer with id {at}"
            wrong = unlike(outputs_of(answers[str(at)]), {"OUTPUT": values})
            if wrong is not None:
                return wrong
        return None

    return check


def _health_service(section: str = "grpc.health.v1") -> Iterator[Case]:
    serving, path, extension = b"\x08\x01", "/grpc.health.v1.Health/", "grpc.health.v1"

    def named(service: str) -> bytes:
        return b"\n" + bytes((len(service),)) + service.encode() if service else b""

    def is_serving(replies: Any) -> str | None:
        reply = replies if isinstance(replies, bytes) else replies[0]
        return None if reply == serving else f"{reply!r}; expected SERVING"

    for name, service in {"server": "", "service": "inference.GRPCInferenceService"}.items():
        yield Case(f"grpc.health-service.check.{name}", section, "The whole server, named by an empty text, and its service "
                   "are SERVING.", _HEALTH_V1, GrpcRequest(f"{path}Check", (named(service),)), Answered(check=is_serving), "",
                   extension)  # fmt: skip
    yield Case("grpc.health-service.check.unknown", section, "A service that the server does not have is NOT_FOUND.",
               _HEALTH_V1, GrpcRequest(f"{path}Check", (named("conformance.None"),)), Refused(("NOT_FOUND", "UNIMPLEMENTED")),
               "", extension)  # fmt: skip
    yield Case("grpc.health-service.watch", section, "Watch tells the state at once.", _HEALTH_V1,
               GrpcRequest(f"{path}Watch", (b"",), takes_one=True), Answered(check=is_serving), "", extension)  # fmt: skip


def _reflection(section: str = "reflection") -> Iterator[Case]:
    for version in ("v1", "v1alpha"):
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        for name, question, words in (
            ("list", b"\x3a\x00", b"inference.GRPCInferenceService"),
            ("symbol", b"\x22\x1einference.GRPCInferenceService", b"ModelInferRequest"),
            ("unknown", b"\x22\x10conformance.None", b""),
        ):
            yield Case(f"grpc.reflection.{version}.{name}", section, {
                "list": "The inference service is among the services.",
                "symbol": "The file that defines the service is told.",
                "unknown": "An unknown symbol is an error in the answer, not of the call.",
            }[name], _REFLECTION, GrpcRequest(path, (question,), is_stream=True),
                Answered(check=_has_words(words)), "", f"grpc.reflection.{version}")  # fmt: skip


def _has_words(words: bytes) -> Callable[[Any], str | None]:
    def check(replies: list[bytes]) -> str | None:
        return None if len(replies) == 1 and words in replies[0] else f"{len(replies)} replies, without {words!r}"

    return check


def _repository(section: str = "model repository") -> Iterator[Case]:
    extension, source = "model_repository", f"{_TRITON}, model repository"
    for name, only_ready in {"all": False, "ready": True}.items():
        request = _call("RepositoryIndex", pb.RepositoryIndexRequest(ready=only_ready), pb.RepositoryIndexResponse)
        yield Case(f"grpc.repository.index.{name}", section, "The index names every version that is served, and its state.",
                   source, request, Answered(check=_indexes), VERSIONS, extension)  # fmt: skip
    config = _call("ModelConfig", pb.ModelConfigRequest(name=SUM), pb.ModelConfigResponse)
    yield Case("grpc.repository.config", section, "A model's configuration names its tensors.",
               f"{_TRITON}, model configuration", config, Answered(check=_configures), SUM,
               "model_configuration")  # fmt: skip
    statistics = _call("ModelStatistics", pb.ModelStatisticsRequest(name=SUM), pb.ModelStatisticsResponse)
    yield Case("grpc.repository.statistics", section, "A model's statistics are told per version.", f"{_TRITON}, statistics",
               statistics, Answered(check=_holds("model_stats", lambda reply: len(reply.model_stats) >= 1)), SUM,
               "statistics")  # fmt: skip


def _indexes(reply: pb.RepositoryIndexResponse) -> str | None:
    found = {(line.name, line.version): line.state for line in reply.models}
    wrong = [each for each in ((VERSIONS, "1"), (VERSIONS, "2"), (SUM, "1")) if found.get(each) != "READY"]
    return f"not READY: {wrong}" if wrong else None


def _configures(reply: pb.ModelConfigResponse) -> str | None:
    found = {each.name for each in reply.config.input} | {each.name for each in reply.config.output}
    return None if found == {"A", "B", "SUM", "DIFFERENCE"} else f"tensors {sorted(found)}"
