"""The REST bodies that people write by hand and that MLflow, KServe's V1 protocol and TensorFlow Serving have.

Each is rows in another wrapping; each answer is the predictions in its own. `rows` makes the message.

Source: MLflow, "Inference Server Specification" (`/invocations`); KServe, "V1 Inference Protocol", which is TensorFlow
Serving's "RESTful API".
"""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from penstock import inference_pb2 as pb
from penstock.names import ATTRIBUTIONS, PARAMETER_BASE, PARAMETER_COLUMNS, PARAMETER_OF, PARAMETER_ROLE
from penstock_server.errors import InvalidInputError
from penstock_server.parse import OPEN_INFERENCE, parse
from penstock_server.rest.open_inference import decoded
from penstock_server.rest.rows import GivenRows, RowSignature, columns_of, rows_of
from penstock_server.rest.tensors import json_of_raw, shown

_anything: Final = msgspec.json.Decoder().decode
_INVOCATIONS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
_INTEGERS: Final = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})


def predict_rows(body: bytes, signature: RowSignature) -> GivenRows:
    """The rows of `POST /predict/MODEL`: `{"features": ...}`, or one row's columns, or columns of several rows.

    Raises:
        InvalidInputError: the body is none of these.
    """
    value = decoded(body, _anything)
    if isinstance(value, list):
        return rows_of(value, signature)
    if not isinstance(value, dict) or not value:
        raise InvalidInputError(f'the body is {shown(value)}, expected {{"features": [...]}} or an object by column')
    if "features" in value and "features" not in {each.name for each in signature.by_column}:
        if len(value) > 1:
            other = next(name for name in value if name != "features")
            raise InvalidInputError(f"unknown {other[:100]!r} beside 'features'; options go into the query")
        return rows_of(value["features"], signature)
    if all(isinstance(each, list) for each in value.values()):
        return columns_of(value)
    return rows_of(value, signature)


def instance_rows(body: bytes, signature: RowSignature) -> GivenRows:
    """The rows of KServe's V1 protocol: `{"instances": [...]}`, or TensorFlow Serving's `{"inputs": ...}`."""
    value = decoded(body, _anything)
    if not isinstance(value, dict) or not ("instances" in value) ^ ("inputs" in value):
        raise InvalidInputError('expected an object with "instances" or "inputs"')
    return _wrapped("instances" if "instances" in value else "inputs", value, signature)


def invocation_rows(body: bytes, content_type: str, signature: RowSignature) -> GivenRows:
    """The rows of MLflow's `/invocations`: JSON in one of its four forms, or CSV with a header."""
    if content_type.partition(";")[0].strip().lower() == "text/csv":
        return _csv_rows(body, signature)
    value = decoded(body, _anything)
    found = [name for name in _INVOCATIONS if isinstance(value, dict) and name in value]
    if len(found) != 1:
        raise InvalidInputError(f"expected an object with one of {', '.join(_INVOCATIONS)}")
    if value.get("params"):
        raise InvalidInputError('"params" are given, and these models take none')
    return _wrapped(found[0], value, signature)


def _wrapped(form: str, value: dict[str, Any], signature: RowSignature) -> GivenRows:
    held = value[form]
    match form:
        case "dataframe_split":
            if not isinstance(held, dict) or not isinstance(held.get("data"), list):
                raise InvalidInputError('"dataframe_split" takes an object with "columns" and "data"')
            columns = held.get("columns")
            if columns is None:
                return rows_of(held["data"], signature)
            return _split(columns, held["data"])
        case "inputs" if isinstance(held, dict):
            return columns_of(held)
        case _:
            if not isinstance(held, list):
                raise InvalidInputError(f"{form!r} takes a list of rows, got {shown(held)}")
            rows = rows_of(held, signature)
            # A list of values is one value per row here.
            return rows if not rows.is_single else GivenRows(len(held), {}, held)


def _split(columns: Any, data: list[Any]) -> GivenRows:
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise InvalidInputError('"columns" takes a list of texts')
    if any(not isinstance(row, list) or len(row) != len(columns) for row in data):
        raise InvalidInputError(f'each row of "data" takes {len(columns)} values, as many as "columns"')
    return GivenRows(len(data), {name: [row[at] for row in data] for at, name in enumerate(columns)})


def _csv_rows(body: bytes, signature: RowSignature) -> GivenRows:
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"the body is not CSV in UTF-8: {error}") from None
    if not lines:
        raise InvalidInputError("the body is empty, expected CSV with a header")
    header, *data = (line for line in lines if line)
    kinds = {each.name: "time" if each.is_time else each.datatype for each in signature.by_column}
    rows = _split(header, data)
    return GivenRows(
        rows.count,
        {
            name: [_csv_value(each, kinds.get(name, "BYTES"), name) for each in values]
            for name, values in rows.columns.items()
        },
    )


def _csv_value(text: str, kind: str, name: str) -> Any:
    if text == "":
        return None
    if kind in {"BYTES", "time"}:
        return text
    if kind == "BOOL":
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
    else:
        try:
            return int(text) if kind in _INTEGERS else float(text)
        except ValueError:
            pass
    raise InvalidInputError(f"column {name!r} of datatype {kind} has {shown(text)}")


def predict_answer(message: bytes, rows: GivenRows) -> dict[str, Any]:
    """The answer of `POST /predict/MODEL`: each row's prediction, and its probability where the model is a classifier."""
    reply = parse(pb.ModelInferResponse, message, OPEN_INFERENCE)
    outputs = {
        tensor.name: _by_row(json_of_raw(raw, tensor.datatype, list(tensor.shape), tensor.name), rows.count)
        for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }
    prediction, probabilities = roles(reply.outputs, rows.count)
    answer: dict[str, Any] = {
        "model": reply.model_name,
        "version": reply.model_version,
        "role": reply.parameters[PARAMETER_ROLE].string_param,
    }
    predicted = outputs.pop(prediction)
    sure = outputs.pop(probabilities) if probabilities else None
    attributions = outputs.pop(ATTRIBUTIONS, None)
    if rows.is_single:
        answer["prediction"] = predicted[0]
        if sure is not None:
            answer |= {"probability": _largest(sure[0]), "probabilities": sure[0]}
    else:
        answer["predictions"] = predicted
        if sure is not None:
            answer |= {"probability": [_largest(row) for row in sure], "probabilities": sure}
    if attributions is not None:
        answer["attributions"] = _attributions(reply, attributions, is_single=rows.is_single)
    if outputs:
        answer["outputs"] = {name: values[0] if rows.is_single else values for name, values in outputs.items()}
    return answer


def predictions(message: bytes, rows: GivenRows) -> list[Any]:
    """Each row's prediction alone, as MLflow and KServe's V1 protocol answer."""
    reply = parse(pb.ModelInferResponse, message, OPEN_INFERENCE)
    name, _ = roles(reply.outputs, rows.count)
    for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True):
        if tensor.name == name:
            return _by_row(json_of_raw(raw, tensor.datatype, list(tensor.shape), tensor.name), rows.count)
    raise InvalidInputError("the model has no outputs")


def roles(outputs: Any, count: int) -> tuple[str, str]:
    """Which output is the prediction, and which holds the classes' probabilities; the latter may be none.

    The prediction is the first output with one value a row, else the first. A classifier has beside its label an output of
    floats with a number for each class.
    """
    names = [tensor.name for tensor in outputs if tensor.name != ATTRIBUTIONS]
    if not names:
        raise InvalidInputError("the model has no outputs")
    widths = {tensor.name: _width(list(tensor.shape), count) for tensor in outputs}
    prediction = next((name for name in names if widths[name] == 1), names[0])
    floats = {tensor.name for tensor in outputs if tensor.datatype.startswith(("FP", "BF"))}
    if prediction in floats:
        return prediction, ""
    return prediction, next((name for name in names if name in floats and widths[name] > 1), "")


def _width(shape: Sequence[int], count: int) -> int:
    total = 1
    for size in shape:
        total *= size
    return total // count if count else 0


def _by_row(values: list[Any], count: int) -> list[Any]:
    """The values of each row: one, or a list."""
    if not count or len(values) % count:
        return values
    width = len(values) // count
    return values if width == 1 else [values[at : at + width] for at in range(0, len(values), width)]


def _largest(row: list[Any]) -> Any:
    numbers = [value for value in row if not isinstance(value, str)]
    return max(numbers) if numbers else None


def _attributions(reply: Any, rows: list[Any], *, is_single: bool) -> dict[str, Any]:
    """What each column adds to what is explained, by its name."""
    parameters = next(tensor.parameters for tensor in reply.outputs if tensor.name == ATTRIBUTIONS)
    columns = json.loads(parameters[PARAMETER_COLUMNS].string_param)
    base = json.loads(parameters[PARAMETER_BASE].string_param) if PARAMETER_BASE in parameters else None
    found: dict[str, Any] = {"of": parameters[PARAMETER_OF].string_param, "base": base}
    width = len(columns)

    def named(row: Any) -> Any:
        values = row if isinstance(row, list) else [row]
        each = len(values) // width  # outputs, where there are several
        if each == 1:
            return dict(zip(columns, values, strict=True))
        return {name: values[at * each : (at + 1) * each] for at, name in enumerate(columns)}

    found["columns"] = named(rows[0]) if is_single else [named(row) for row in rows]
    return found
