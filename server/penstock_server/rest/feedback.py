"""The body of `POST /v1/feedback`: labels as people write them in JSON, as the message of gRPC that says the same.

    {"model": "fares", "id": "a-17", "label": 82.0, "value": 3.5}
    {"model": "species", "labels": {"a-17": "setosa", "a-18": ["virginica", "setosa"]}}
    {"model": "species", "ids": ["a-17", "a-18"], "labels": ["setosa", "virginica"], "rows": [0, 0]}
    [{"model": "fares", "id": "a-17", "label": 82.0}, {"model": "species", "id": "b-1", "label": "setosa"}]

Where an id has several labels, they are those of its rows. Labels that another server passes on come as bytes.
"""

from collections.abc import Iterator
from math import nan
from typing import Final, NamedTuple

import msgspec

from penstock.names import PASSED_ON_TYPE
from penstock.penstock_pb2 import FeedbackRequest
from penstock_server.errors import InvalidInputError
from penstock_server.rest.open_inference import decoded

Label = bool | int | float | str
_Values = list[float | None]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    model: str = ""
    id: str | None = None
    label: Label | None = None
    value: float | None = None
    row: int | None = None
    ids: list[str] | None = None
    labels: list[Label] | dict[str, Label | list[Label]] | None = None
    values: _Values | dict[str, float] | None = None
    rows: list[int] | None = None
    models: list[str] | None = None


class _One(NamedTuple):
    model: str
    id: str
    row: int
    label: Label | None
    value: float | None


_body: Final = msgspec.json.Decoder(_Body | list[_Body])


def feedback_message(body: bytes, content_type: bytes) -> bytes:
    """The message that a body says.

    Raises:
        InvalidInputError: it says none; names what is wrong with it.
        BadRequestError: it is no JSON.
    """
    if content_type.partition(b";")[0].strip() == PASSED_ON_TYPE.encode():
        return FeedbackRequest(passed_on=body).SerializeToString()
    found = decoded(body, _body.decode)
    every = [found] if isinstance(found, _Body) else found
    labels = [one for each in every for one in _labels(each)]
    try:
        return _message(labels).SerializeToString()
    except (ValueError, OverflowError) as error:  # of whole numbers that are too large
        raise InvalidInputError(f"a row or a label is too large: {error}") from None


def _message(labels: list[_One]) -> FeedbackRequest:
    message = FeedbackRequest(ids=[each.id for each in labels], rows=[each.row for each in labels])
    models = {each.model for each in labels}
    if len(models) == 1:
        message.model = models.pop()
    else:
        message.models.extend(each.model for each in labels)
    given = [each.label for each in labels if each.label is not None]
    if len(given) not in (0, len(labels)):
        raise InvalidInputError(f"{len(given)} of {len(labels)} ids have a label, expected all of them or none")
    if any(isinstance(label, str) for label in given):
        message.classes.extend(_text(label) for label in given)
    else:
        message.numbers.extend(float(label) for label in given)
    if any(each.value is not None for each in labels):
        message.values.extend(nan if each.value is None else each.value for each in labels)
    return message


def _labels(body: _Body) -> Iterator[_One]:
    if body.id is not None and body.ids is None and body.labels is None:
        yield _One(body.model, body.id, body.row or 0, body.label, body.value)
    elif body.ids is not None and not isinstance(body.labels, dict) and not isinstance(body.values, dict):
        yield from _listed(body, body.ids, body.labels, body.values)
    elif body.id is None and isinstance(body.labels, dict) and not isinstance(body.values, list):
        for identifier, label in body.labels.items():
            for row, each in enumerate(label if isinstance(label, list) else [label]):
                yield _One(body.model, identifier, row, each, (body.values or {}).get(identifier) if row == 0 else None)
        if more := sorted((body.values or {}).keys() - body.labels.keys()):
            raise InvalidInputError(f"id {more[0][:100]!r} has a value and no label; send it on its own")
    elif body.id is None and body.labels is None and isinstance(body.values, dict):
        for identifier, value in body.values.items():
            yield _One(body.model, identifier, 0, None, value)
    else:
        raise InvalidInputError("expected an id with its label, ids with a list of labels, or labels by id")


def _listed(body: _Body, ids: list[str], labels: list[Label] | None, values: _Values | None) -> Iterator[_One]:
    given = {"labels": labels, "values": values, "rows": body.rows, "models": body.models}
    for name, column in given.items():
        if column is not None and len(column) != len(ids):
            raise InvalidInputError(f"the body has {len(ids)} ids and {len(column)} {name}, expected as many or none")
    for at, identifier in enumerate(ids):
        yield _One(
            body.model if body.models is None else body.models[at],
            identifier,
            0 if body.rows is None else body.rows[at],
            None if labels is None else labels[at],
            None if values is None else values[at],
        )


def _text(label: Label) -> str:
    return label if isinstance(label, str) else str(int(label)) if float(label).is_integer() else repr(label)
