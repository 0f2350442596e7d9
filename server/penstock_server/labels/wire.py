"""What a label is, and how it is read from the messages that bring it: Penstock's own, and those of the reserved model.

A label becomes a record of 64 bytes (`ring`). Ids, models' names and classes stand in it as words of 64 bits (`keys`), so
that their lengths cost nothing later. All labels of a message are taken or none, so that callers may simply send it again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import nan, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.inference_pb2 import ModelInferRequest
from penstock.names import (
    FEEDBACK_IDS,
    FEEDBACK_LABELS,
    FEEDBACK_MODEL,
    FEEDBACK_MODELS,
    FEEDBACK_ROWS,
    FEEDBACK_VALUES,
    FEEDBACK_VERSION,
    PARAMETER_MODEL,
)
from penstock.penstock_pb2 import FeedbackRequest
from penstock.tensors import from_raw, typed_to_raw
from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.labels.keys import keys_of, word_of

MOST_LABELS: Final = 16384
"""In one message: they take 8 ms of a worker's time."""
TEXT_BYTES: Final = 1024
"""The longest id and the longest class."""
MOST_ROW: Final = 1 << 31
MOST_NUMBER: Final = 1e100
"""The largest label and value, whose squares are summed: what is infinite once stays so."""
RECORD_BYTES: Final = 64

KEY, RECEIVED_NS, MODEL, ROW, NUMBER, CLASS, VALUE = range(7)
"""Words of a record: the id's key (`keys.keys_of`); when it was taken, in nanoseconds since 1970; the model's word; the row in
its request, with `PASSED_ON` above it; the label as float64, NaN if it is no number; the word of its text, 0 if it is none;
and the value as float64, NaN for none."""
PASSED_ON: Final = 1 << 32
"""Set in the row's word of a label that another server has passed on."""

_INPUTS: Final = (FEEDBACK_IDS, FEEDBACK_LABELS, FEEDBACK_VALUES, FEEDBACK_ROWS, FEEDBACK_MODELS)

Check = Callable[[str], None]
"""Raises `NotFoundError` for a model whose labels are not taken."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a message, N of them.

    Attributes:
        model: of all of them; "" where `models` has them.
        ids: UTF-8.
        classes, numbers: what was true, in at most one of the two forms.
        values: what the answers were worth.
        rows: in their requests; None for the first of each.
        models: of each.
    """

    model: str
    ids: Sequence[bytes]
    classes: Sequence[str] = ()
    numbers: NDArray[np.float64] | None = None
    values: NDArray[np.float64] | None = None
    rows: NDArray[np.int64] | None = None
    models: Sequence[str] = ()


def labels_of(request: FeedbackRequest) -> Labels:
    """The labels of a message of Penstock's own service."""
    if request.classes and request.numbers:
        raise InvalidInputError(
            f"got {len(request.classes)} classes and {len(request.numbers)} numbers, expected labels of one form"
        )
    return Labels(
        request.model,
        [each.encode() for each in request.ids],
        request.classes,
        np.array(request.numbers, np.float64) if request.numbers else None,
        np.array(request.values, np.float64) if request.values else None,
        np.array(request.rows, np.int64) if request.rows else None,
        request.models,
    )


def labels_in(request: ModelInferRequest) -> Labels:
    """The labels of a request to the reserved model.

    Raises:
        InvalidInputError: it has other tensors than the model, or of other types; names them.
        NotFoundError: it names another version.
    """
    if request.model_version not in ("", FEEDBACK_VERSION, "@champion"):
        raise NotFoundError(f"model {FEEDBACK_MODEL!r} has no version {request.model_version!r}")
    found: dict[str, NDArray[Any]] = {}
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise InvalidInputError(f"got {len(raws)} raw contents for {len(request.inputs)} inputs")
    for at, tensor in enumerate(request.inputs):
        if tensor.name not in _INPUTS or tensor.name in found:
            raise InvalidInputError(
                f"unexpected input {tensor.name[:100]!r}, expected each of {', '.join(_INPUTS)} once"
            )
        found[tensor.name] = _array(tensor, raws[at] if raws else None)
    if FEEDBACK_IDS not in found:
        raise InvalidInputError(f"input {FEEDBACK_IDS!r} is missing: the ids of the requests that were answered")
    labels = found.get(FEEDBACK_LABELS)
    has_texts = labels is not None and labels.dtype == object
    models = found.get(FEEDBACK_MODELS)
    return Labels(
        request.parameters[PARAMETER_MODEL].string_param if PARAMETER_MODEL in request.parameters else "",
        _texts(found[FEEDBACK_IDS], FEEDBACK_IDS),
        _decoded(_texts(labels, FEEDBACK_LABELS), FEEDBACK_LABELS) if labels is not None and has_texts else (),
        None if labels is None or has_texts else labels.astype(np.float64),
        _numbers(found.get(FEEDBACK_VALUES), FEEDBACK_VALUES),
        _whole(found.get(FEEDBACK_ROWS)),
        () if models is None else _decoded(_texts(models, FEEDBACK_MODELS), FEEDBACK_MODELS),
    )


def records_of(labels: Labels, check: Check, now_ns: int) -> NDArray[np.int64]:
    """The labels as records, [N, 8].

    Args:
        labels: of a message.
        check: whether a model's labels are taken.
        now_ns: since 1970.

    Raises:
        InvalidInputError: one of them is none; says which, and what was expected.
        NotFoundError: labels of a model are not taken.
    """
    size = len(labels.ids)
    _check_sizes(labels, size)
    records = np.zeros((size, RECORD_BYTES // 8), np.int64)
    numbers = records.view(np.float64)
    records[:, RECEIVED_NS] = now_ns
    _set_keys(records.view(np.uint64), labels, check)
    if labels.rows is not None:
        if size and not 0 <= labels.rows.min() <= labels.rows.max() < MOST_ROW:
            raise InvalidInputError(
                f"rows are numbered from 0 in each request, got {labels.rows.min()} to {labels.rows.max()}"
            )
        records[:, ROW] = labels.rows
    numbers[:, NUMBER] = nan
    if labels.numbers is not None:
        # Written so that NaN is refused as well.
        is_fit = np.abs(labels.numbers) <= MOST_NUMBER
        if not is_fit.all():
            at = int(is_fit.argmin())
            raise InvalidInputError(
                f"label {at} is {labels.numbers[at]:g}, expected a class or a number of at most {MOST_NUMBER:g}"
            )
        numbers[:, NUMBER] = labels.numbers
    elif labels.classes:
        known = [_known(each) for each in labels.classes]
        records.view(np.uint64)[:, CLASS] = [word for word, _ in known]
        numbers[:, NUMBER] = [number for _, number in known]
    numbers[:, VALUE] = nan
    if labels.values is not None:
        is_much = np.abs(labels.values) > MOST_NUMBER
        if is_much.any():
            at = int(is_much.argmax())
            raise InvalidInputError(
                f"value {at} is {labels.values[at]:g}, expected a number of at most {MOST_NUMBER:g}, or NaN for none"
            )
        numbers[:, VALUE] = labels.values
    return records


def passed_records(content: bytes, now_ns: int) -> NDArray[np.int64]:
    """Labels that another server has passed on, [N, 8].

    They keep the time at which that one took them, but never one that is still to come.

    Raises:
        InvalidInputError: the bytes are no labels.
    """
    if not 0 < len(content) <= MOST_LABELS * RECORD_BYTES or len(content) % RECORD_BYTES:
        raise InvalidInputError(
            f"labels that are passed on take {RECORD_BYTES} bytes each and are at most {MOST_LABELS}, got {len(content)} bytes"
        )
    records = np.frombuffer(content, "<i8").astype(np.int64).reshape(-1, RECORD_BYTES // 8)
    numbers = records.view(np.float64)
    rows = records[:, ROW] & ~PASSED_ON
    if (np.abs(numbers[:, [NUMBER, VALUE]]) > MOST_NUMBER).any() or rows.min() < 0 or rows.max() >= MOST_ROW:
        raise InvalidInputError("labels that are passed on have numbers that are too large, or rows that there are not")
    records[:, ROW] = rows | PASSED_ON
    records[:, RECEIVED_NS] = np.clip(records[:, RECEIVED_NS], 0, now_ns)
    return records


def _check_sizes(labels: Labels, size: int) -> None:
    if not 0 < size <= MOST_LABELS:
        raise InvalidInputError(f"the message has {size} ids, expected 1 to {MOST_LABELS}")
    given = {
        "classes": len(labels.classes),
        "numbers": 0 if labels.numbers is None else len(labels.numbers),
        "values": 0 if labels.values is None else len(labels.values),
        "rows": 0 if labels.rows is None else len(labels.rows),
        "models": len(labels.models),
    }
    for name, count in given.items():
        if count not in (0, size):
            raise InvalidInputError(f"the message has {size} ids and {count} {name}, expected as many or none")
    if not (given["classes"] or given["numbers"] or given["values"]):
        raise InvalidInputError("the message has neither labels nor values, expected at least one of them for each id")
    if bool(labels.model) == bool(labels.models):
        raise InvalidInputError("expected the model of all labels or the models of each, got both or neither")
    # `max` and `min` of lengths are far faster than a loop with a test.
    lengths = [*map(len, labels.ids)]
    if min(lengths) == 0 or max(lengths) > TEXT_BYTES:
        at = next(at for at, length in enumerate(lengths) if not 0 < length <= TEXT_BYTES)
        raise InvalidInputError(f"id {at} takes {lengths[at]} bytes, expected 1 to {TEXT_BYTES}")


def _set_keys(words: NDArray[np.uint64], labels: Labels, check: Check) -> None:
    if labels.model:
        check(labels.model)
        words[:, MODEL] = word_of(labels.model)
        words[:, KEY] = keys_of(labels.model, labels.ids)
        return
    places: dict[str, list[int]] = {}
    for at, model in enumerate(labels.models):
        places.setdefault(model, []).append(at)
    for model, own in places.items():
        check(model)
        words[own, MODEL] = word_of(model)
        words[own, KEY] = keys_of(model, [labels.ids[at] for at in own])


@lru_cache(4096)
def _known(text: str) -> tuple[int, float]:
    """A class's word, and the number that its text is; NaN if it is none."""
    if not 0 < len(text.encode("utf-8", "surrogatepass")) <= TEXT_BYTES:
        raise InvalidInputError(f"a class takes {len(text.encode())} bytes, expected 1 to {TEXT_BYTES}")
    try:
        number = float(text)
    except ValueError:
        number = nan
    return word_of(text), number if abs(number) <= MOST_NUMBER else nan


def _array(tensor: Any, raw: bytes | None) -> NDArray[Any]:
    """A tensor's elements, [N]."""
    shape = list(tensor.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]) or not 0 <= shape[0] <= MOST_LABELS:
        raise InvalidInputError(
            f"input {tensor.name!r} has shape {shape[:8]}, expected [N] with at most {MOST_LABELS} labels"
        )
    try:
        content = typed_to_raw(tensor) if raw is None else raw
        return from_raw(content, tensor.datatype, [prod(shape)])
    except ValueError as error:
        raise InvalidInputError(f"input {tensor.name!r}: {error}") from None


def _texts(array: NDArray[Any], name: str) -> list[bytes]:
    if array.dtype != object:
        raise InvalidInputError(f"input {name!r} holds numbers, expected BYTES")
    texts: list[bytes] = array.tolist()
    return texts


def _decoded(texts: Sequence[bytes], name: str) -> list[str]:
    try:
        return [each.decode() for each in texts]
    except UnicodeDecodeError:
        raise InvalidInputError(f"input {name!r} holds bytes that are not UTF-8") from None


def _numbers(array: NDArray[Any] | None, name: str) -> NDArray[np.float64] | None:
    if array is not None and array.dtype == object:
        raise InvalidInputError(f"input {name!r} holds texts, expected FP64")
    return None if array is None else array.astype(np.float64)


def _whole(array: NDArray[Any] | None) -> NDArray[np.int64] | None:
    if array is not None and array.dtype.kind not in "iu":
        raise InvalidInputError(f"input {FEEDBACK_ROWS!r} holds no whole numbers, expected INT64")
    return None if array is None else np.minimum(array, MOST_ROW).astype(np.int64)
