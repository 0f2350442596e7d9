"""The OpenAPI document of the REST port, made from the signatures of the models that are served now, and its two pages.

Source: OpenAPI Specification 3.0.3.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from penstock import inference_pb2 as pb
from penstock_server.errors import NotFoundError
from penstock_server.rest.rows import Input, RowSignature, signature_of

if TYPE_CHECKING:
    from jinja2 import Template

ASSETS: Final = {
    "swagger-ui.css": b"text/css",
    "swagger-ui-bundle.js": b"text/javascript",
    "favicon-32x32.png": b"image/png",
}
"""The files of Swagger UI that the page takes."""
_FLOATS: Final = ("FP16", "BF16", "FP32", "FP64")
_EXAMPLES: Final[Mapping[str, Any]] = {"BYTES": "text", "BOOL": True}
_REF: Final = "#/components/schemas/"


def document(models: Sequence[pb.ModelMetadataResponse], version: str) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        models: the metadata of each champion.
        version: of the server.
    """
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = dict(_SCHEMAS)
    for number, metadata in enumerate(models, 1):
        name, signature = metadata.name, signature_of(metadata)
        row = f"Row{number}.{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"  # what a schema may be called
        schemas[row] = row_schema(signature)
        paths[f"/predict/{name}"] = {"post": _predict(name, signature, {"$ref": _REF + row})}
        paths[f"/v2/models/{name}/infer"] = {"post": _infer(name, signature, metadata)}
        paths[f"/v2/models/{name}"] = {"get": _get(name, f"What {name} takes and gives", _METADATA)}
        paths[f"/v2/models/{name}/ready"] = {"get": _get(name, f"Whether {name} answers", _OBJECT)}
        paths[f"/v2/models/{name}/stats"] = {"get": _get(name, f"What was counted of {name}", _OBJECT)}
        paths[f"/invocations/{name}"] = {"post": _invocations(name, signature)}
        paths[f"/v1/models/{name}:predict"] = {"post": _instances(name, signature)}
    for path, summary in (
        ("/v2", "The server's name, version and extensions"),
        ("/v2/health/live", "Whether the server lives"),
        ("/v2/health/ready", "Whether it answers"),
        ("/v2/models", "The models that are served"),
        ("/v2/repository/index", "Each version with its state and the reason"),
    ):
        paths[path] = {"get": _get("server", summary, {"type": "array"} if path.endswith("index") else _OBJECT)}
    paths["/v1/feedback"] = {"post": _feedback()}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Penstock",
            "version": version,
            "description": (
                "Predictions of the models that are served now. `/predict` takes rows as people write them, `/v2` is the "
                "Open Inference Protocol, `/invocations` is MLflow's, and `/v1` is KServe's and TensorFlow Serving's."
            ),
        },
        "tags": [*({"name": metadata.name} for metadata in models), {"name": "server"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def row_schema(signature: RowSignature) -> dict[str, Any]:
    """The schema of one row: an object by column, or a list where columns have no names."""
    by_column = signature.by_column
    if by_column and not (len(by_column) == 1 and not signature.columns and by_column[0].name in {"X", "input"}):
        return {
            "type": "object",
            "properties": {each.name: _value_schema(each) for each in by_column},
            "required": [each.name for each in by_column],
            "additionalProperties": False,
            "example": {each.name: example(each) for each in by_column},
        }
    if len(signature.inputs) == 1:
        (only,) = signature.inputs
        return _array(only, only.shape or (1,))
    arrays = {each.name: _array(each, each.shape) for each in signature.inputs}
    return {
        "type": "object",
        "properties": arrays,
        "required": list(arrays),
        "example": {name: schema["example"] for name, schema in arrays.items()},
    }


def example(each: Input) -> Any:
    """A value that the input takes."""
    if each.is_time:
        return "2026-01-31T12:00:00"
    return _EXAMPLES.get(each.datatype, 1.5 if each.datatype in _FLOATS else 1)


def _value_schema(each: Input) -> dict[str, Any]:
    schema: dict[str, Any]
    if each.is_time:
        schema = {"type": "string", "format": "date-time", "nullable": True}
    elif each.datatype == "BYTES":
        schema = {"type": "string", "nullable": True} if each.missing is not None else {"type": "string"}
    elif each.datatype == "BOOL":
        schema = {"type": "boolean"}
    elif each.datatype in _FLOATS:
        schema = {"type": "number", "nullable": True, "description": "null for NaN"}
    else:
        schema = {"type": "integer"}
    return schema


def _array(each: Input, shape: Sequence[int]) -> dict[str, Any]:
    schema, value = _value_schema(each), example(each)
    for size in reversed(shape):
        bounds = {"minItems": size, "maxItems": size} if size >= 0 else {}
        schema = {"type": "array", "items": schema, **bounds}
        value = [value] * min(size if size >= 0 else 1, 32)
    return {**schema, "example": value}


def _example_row(signature: RowSignature) -> Any:
    return row_schema(signature).get("example")


def _predict(name: str, signature: RowSignature, row: dict[str, Any]) -> dict[str, Any]:
    rows = {"type": "array", "items": row}
    one = _example_row(signature)
    is_named = isinstance(one, dict)
    forms: list[dict[str, Any]] = [
        {"type": "object", "properties": {"features": {"oneOf": [row, rows]}}, "required": ["features"]}
    ]
    examples: dict[str, Any] = {"rows": {"value": {"features": [one, one]}}}
    if is_named:
        forms.insert(0, row)
        examples = {"one row": {"value": one}, **examples}
    else:
        examples = {"one row": {"value": {"features": one}}, **examples}
    parameters = [
        _query("version", "A version's number, or an alias such as @canary. By default the server chooses."),
        _query("routing_key", "Requests with the same key are answered by the same version."),
        _query("extra_columns", "What becomes of columns that the model does not take.", enum=["refuse", "ignore"]),
    ]
    if signature.explains:
        parameters.append(_query("explain", "Whether the answer has attributions too.", kind="boolean"))
    return _post(
        name, f"Predict with {name}", {"oneOf": forms}, examples, answer=f"{_REF}Prediction", parameters=parameters
    )


def _infer(name: str, signature: RowSignature, metadata: pb.ModelMetadataResponse) -> dict[str, Any]:
    inputs = []
    for each in signature.inputs:
        shape = [1, *(size if size >= 0 else 1 for size in each.shape)]
        count = 1
        for size in shape:
            count *= size
        value = 1_769_860_800_000_000_000 if each.is_time else example(each)
        inputs.append(
            {"name": each.name, "datatype": each.datatype, "shape": shape, "data": [value] * min(count, 1024)}
        )
    outputs = ", ".join(f"`{tensor.name}` ({tensor.datatype})" for tensor in metadata.outputs)
    operation = _post(
        name,
        f"Infer with {name} (Open Inference Protocol)",
        {"$ref": f"{_REF}InferRequest"},
        {"one row": {"value": {"inputs": inputs}}},
        answer=f"{_REF}InferResponse",
    )
    return {**operation, "description": f"Gives {outputs}."}


def _invocations(name: str, signature: RowSignature) -> dict[str, Any]:
    one = _example_row(signature)
    value = (
        {"dataframe_split": {"columns": list(one), "data": [list(one.values())]}}
        if isinstance(one, dict)
        else {"instances": [one]}
    )
    return _post(
        name, f"Predict with {name} (MLflow)", _OBJECT, {"one row": {"value": value}}, answer=f"{_REF}Predictions"
    )


def _instances(name: str, signature: RowSignature) -> dict[str, Any]:
    value = {"instances": [_example_row(signature)]}
    summary = f"Predict with {name} (KServe V1, TensorFlow Serving)"
    return _post(name, summary, _OBJECT, {"one row": {"value": value}}, answer=f"{_REF}Predictions")


def _feedback() -> dict[str, Any]:
    one = {"$ref": f"{_REF}Feedback"}
    examples = {
        "one": {"value": {"model": "fares", "id": "a-17", "label": 82.0, "value": 3.5}},
        "by id": {"value": {"model": "species", "labels": {"a-17": "setosa", "a-18": ["virginica", "setosa"]}}},
        "lists": {
            "value": {"model": "species", "ids": ["a-17", "a-18"], "labels": ["setosa", "virginica"], "rows": [0, 0]}
        },
    }
    schema = {"oneOf": [one, {"type": "array", "items": one}]}
    operation = _post("server", "Say what was true of answers", schema, examples, answer=f"{_REF}Taken")
    about = (
        "Where the server takes labels. A request is named by its id; several labels of one id are those of its rows."
    )
    return {**operation, "description": about}


def _post(
    tag: str, summary: str, schema: Any, examples: Any, *, answer: str, parameters: Sequence[Any] = ()
) -> dict[str, Any]:
    return {
        "tags": [tag],
        "summary": summary,
        "security": [{}, {"bearer": []}],
        "parameters": list(parameters),
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}},
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"schema": {"$ref": answer}}}},
            **_ERRORS,
        },
    }


def _get(tag: str, summary: str, schema: Any) -> dict[str, Any]:
    return {
        "tags": [tag],
        "summary": summary,
        "security": [{}, {"bearer": []}],
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"schema": schema}}},
            **_ERRORS,
        },
    }


def _query(name: str, about: str, *, kind: str = "string", enum: Sequence[str] = ()) -> dict[str, Any]:
    schema = {"type": kind, "enum": list(enum)} if enum else {"type": kind}
    return {"name": name, "in": "query", "required": False, "description": about, "schema": schema}


_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_METADATA: Final[dict[str, Any]] = {"$ref": f"{_REF}Metadata"}
_ERRORS: Final[dict[str, Any]] = {
    status: {"description": about, "content": {"application/json": {"schema": {"$ref": f"{_REF}Error"}}}}
    for status, about in (
        ("400", "What was sent is not what the model takes; the sentence says what was expected"),
        ("404", "No such model or version is served"),
        ("429", "Too much waits already"),
        ("503", "Nothing can answer now"),
    )
}
_TENSOR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}, "description": "Flat or nested, in row-major order"},
    },
}
_LABEL: Final[dict[str, Any]] = {"anyOf": [{"type": "boolean"}, {"type": "number"}, {"type": "string"}]}
_SCHEMAS: Final[dict[str, Any]] = {
    "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
    "Prediction": {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "role": {"type": "string", "enum": ["champion", "canary", "shadow", ""]},
            "prediction": {"description": "Of one row that came by itself"},
            "predictions": {"type": "array", "items": {}, "description": "Of several rows"},
            "probability": {"description": "Of the predicted class, where the model is a classifier"},
            "probabilities": {"type": "array", "items": {}, "description": "Of each class"},
            "attributions": {"type": "object"},
            "outputs": {"type": "object", "description": "The model's other outputs"},
        },
    },
    "Feedback": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "model": {"type": "string"},
            "id": {"type": "string", "description": "Of the request that was answered"},
            "label": _LABEL,
            "value": {"type": "number", "description": "What the answer was worth"},
            "row": {"type": "integer", "minimum": 0, "description": "Within its request"},
            "ids": {"type": "array", "items": {"type": "string"}, "description": "In place of `id`"},
            "labels": {
                "description": "A list beside `ids`, or an object by id, whose lists are those of the rows of a request",
                "oneOf": [
                    {"type": "array", "items": _LABEL},
                    {"type": "object", "additionalProperties": {"oneOf": [_LABEL, {"type": "array", "items": _LABEL}]}},
                ],
            },
            "values": {
                "oneOf": [
                    {"type": "array", "items": {"type": "number", "nullable": True}},
                    {"type": "object", "additionalProperties": {"type": "number"}},
                ]
            },
            "rows": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "models": {"type": "array", "items": {"type": "string"}, "description": "In place of `model`"},
        },
    },
    "Taken": {
        "type": "object",
        "required": ["taken"],
        "properties": {"taken": {"type": "integer", "description": "How many labels the server has kept"}},
    },
    "Predictions": {"type": "object", "properties": {"predictions": {"type": "array", "items": {}}}},
    "Metadata": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "versions": {"type": "array", "items": {"type": "string"}},
            "platform": {"type": "string"},
            "inputs": {"type": "array", "items": _TENSOR},
            "outputs": {"type": "array", "items": _TENSOR},
        },
    },
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": _TENSOR},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                },
            },
        },
    },
    "InferResponse": {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": _TENSOR},
        },
    },
}


def index_page(models: Sequence[pb.ModelMetadataResponse], version: str) -> bytes:
    """The page at `/`: what is served, and how to ask for it."""
    entries = []
    for metadata in models:
        signature = signature_of(metadata)
        one = _example_row(signature)
        body = one if isinstance(one, dict) else {"features": one}
        entries.append(
            {
                "name": metadata.name,
                "versions": ", ".join(metadata.versions),
                "inputs": [(each.name, each.datatype) for each in signature.by_column or signature.inputs],
                "outputs": [(tensor.name, tensor.datatype) for tensor in metadata.outputs],
                "example": json.dumps(body, ensure_ascii=False),
            }
        )
    return _template("index.html").render(models=entries, version=version).encode()


def docs_page() -> bytes:
    """The page at `/docs`: Swagger UI over the document."""
    return str(_template("docs.html").render()).encode()


def asset(name: str) -> tuple[bytes, bytes]:
    """A file of Swagger UI, and its content type.

    Raises:
        NotFoundError: there is no such file.
    """
    if name not in ASSETS:
        raise NotFoundError(f"there is no {name[:100]!r} here")
    return _file(name), ASSETS[name]


@cache
def _file(name: str) -> bytes:
    from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

    content: bytes = (swagger_ui_path / name).read_bytes()
    return content


@cache
def _template(name: str) -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("penstock_server.rest"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name)
