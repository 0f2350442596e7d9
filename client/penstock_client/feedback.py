"""Labels as requests to a reserved model, which every gateway of the Open Inference Protocol lets through."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock import inference_pb2
from penstock.names import (
    FEEDBACK_IDS,
    FEEDBACK_LABELS,
    FEEDBACK_MODEL,
    FEEDBACK_ROWS,
    FEEDBACK_TAKEN,
    FEEDBACK_VALUES,
    PARAMETER_MODEL,
)
from penstock.tensors import datatype_of, from_raw, to_raw
from penstock_client.errors import InvalidRequestError, ServerError

CHUNK: Final = 4096
"""Labels in one request; longer lists go in several."""
Labels = Mapping[str, Any] | ArrayLike | None
Values = Mapping[str, float] | ArrayLike | None


@dataclass(frozen=True, slots=True)
class Feedback:
    """Labels by their places, N of them.

    Attributes:
        ids: of the requests that were answered.
        labels: [N], texts or numbers; None where only values are given.
        values: [N] FP64; None for none.
        rows: [N] INT64, in their requests; None for the first of each.
    """

    ids: list[str]
    labels: NDArray[Any] | None
    values: NDArray[np.float64] | None
    rows: NDArray[np.int64] | None


def feedback_of(labels: Labels, *, ids: Sequence[str] | None, values: Values, rows: ArrayLike | None) -> Feedback:
    """What a caller gives, by its places.

    Raises:
        InvalidRequestError: the lengths differ, or something is of another type than is expected.
    """
    if isinstance(labels, Mapping) or (labels is None and isinstance(values, Mapping)):
        if ids is not None or rows is not None:
            raise InvalidRequestError("labels by id need neither ids nor rows; expected a list of labels beside ids")
        return _by_id(labels if isinstance(labels, Mapping) else None, values)
    if ids is None:
        raise InvalidRequestError("expected labels by id, as in {'a-17': 1}, or ids beside a list of labels")
    if isinstance(values, Mapping):
        raise InvalidRequestError("values are expected as a list where labels are one")
    return _checked(Feedback(list(map(str, ids)), _labels(labels), _numbers(values, "values"), _whole(rows)))


def payloads(model: str, feedback: Feedback) -> Iterator[bytes]:
    """The requests, of at most `CHUNK` labels each."""
    for first in range(0, len(feedback.ids), CHUNK):
        part = slice(first, first + CHUNK)
        request = inference_pb2.ModelInferRequest(model_name=FEEDBACK_MODEL)
        request.parameters[PARAMETER_MODEL].string_param = model
        _add(request, FEEDBACK_IDS, np.array(feedback.ids[part], object))
        for name, column in (
            (FEEDBACK_LABELS, feedback.labels),
            (FEEDBACK_VALUES, feedback.values),
            (FEEDBACK_ROWS, feedback.rows),
        ):
            if column is not None:
                _add(request, name, column[part])
        yield request.SerializeToString()


def taken(reply: bytes) -> int:
    """How many labels a reply says were taken."""
    answer = inference_pb2.ModelInferResponse.FromString(reply)
    for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=False):
        if tensor.name == FEEDBACK_TAKEN:
            return int(from_raw(raw, tensor.datatype, tensor.shape).sum())
    raise ServerError(f"the answer of {FEEDBACK_MODEL!r} has no output {FEEDBACK_TAKEN!r}")


def _by_id(labels: Mapping[str, Any] | None, values: Values) -> Feedback:
    if values is not None and not isinstance(values, Mapping):
        raise InvalidRequestError("values are expected by id where labels are, as in values={'a-17': 3.5}")
    worth: Mapping[str, float] = values or {}
    if labels is None:
        return _checked(Feedback([*worth], None, _numbers([*worth.values()], "values"), None))
    if more := sorted(worth.keys() - labels.keys()):
        raise InvalidRequestError(f"id {more[0]!r} has a value and no label; give it in a call of its own")
    ids: list[str] = []
    rows: list[int] = []
    flat: list[Any] = []
    for identifier, label in labels.items():
        own = list(label) if isinstance(label, list | tuple | np.ndarray) else [label]
        ids += [identifier] * len(own)
        rows += range(len(own))
        flat += own
    amounts = [worth.get(identifier, np.nan) if row == 0 else np.nan for identifier, row in zip(ids, rows, strict=True)]
    return _checked(
        Feedback(
            ids, _labels(flat), _numbers(amounts, "values") if worth else None, _whole(rows) if any(rows) else None
        )
    )


def _checked(feedback: Feedback) -> Feedback:
    size = len(feedback.ids)
    for name in ("labels", "values", "rows"):
        column = getattr(feedback, name)
        if column is not None and column.shape != (size,):
            raise InvalidRequestError(
                f"expected a list of {size} {name}, one for each id, got shape {list(column.shape)}"
            )
    if size == 0 or (feedback.labels is None and feedback.values is None):
        raise InvalidRequestError("expected at least one label or value")
    return feedback


def _labels(labels: ArrayLike | None) -> NDArray[Any] | None:
    if labels is None:
        return None
    try:
        array: NDArray[Any] = np.asarray(labels)
        if array.dtype == object:
            array = np.array([str(each) for each in array.ravel().tolist()], object).reshape(array.shape)
        datatype_of(array.dtype)
    except ValueError as error:
        raise InvalidRequestError(f"labels are expected as texts, numbers or booleans: {error}") from error
    return array


def _numbers(values: ArrayLike | None, name: str) -> NDArray[np.float64] | None:
    try:
        return None if values is None else np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(f"{name} are expected as numbers: {error}") from error


def _whole(rows: ArrayLike | None) -> NDArray[np.int64] | None:
    array = None if rows is None else np.asarray(rows)
    if array is not None and array.dtype.kind not in "iu":
        raise InvalidRequestError(f"rows are expected as whole numbers, got {array.dtype}")
    return None if array is None else array.astype(np.int64)


def _add(request: inference_pb2.ModelInferRequest, name: str, column: NDArray[Any]) -> None:
    request.inputs.add(name=name, datatype=datatype_of(column.dtype), shape=[len(column)])
    request.raw_input_contents.append(to_raw(column))
