"""The body of `POST /v1/feedback`."""

import re
from typing import Any

import msgspec
import pytest

from penstock.names import PASSED_ON_TYPE
from penstock.penstock_pb2 import FeedbackRequest
from penstock_server.errors import InvalidInputError
from penstock_server.rest.feedback import feedback_message


def message(body: Any) -> FeedbackRequest:
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return FeedbackRequest.FromString(feedback_message(encoded, b"application/json"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"model": "m", "id": "a", "label": 82.0, "value": 3.5, "row": 2},
            {"model": "m", "ids": ["a"], "numbers": [82.0], "values": [3.5], "rows": [2]},
        ),
        (
            {"model": "m", "labels": {"a": "yes", "b": ["no", "yes"]}, "values": {"a": 1.5, "b": 2.5}},
            {
                "model": "m",
                "ids": ["a", "b", "b"],
                "classes": ["yes", "no", "yes"],
                "values": [1.5, 2.5, float("nan")],
                "rows": [0, 0, 1],
            },
        ),
        (
            {"model": "m", "ids": ["a", "b"], "labels": [True, 0], "rows": [0, 1]},
            {"model": "m", "ids": ["a", "b"], "numbers": [1.0, 0.0], "rows": [0, 1]},
        ),
        (
            {"ids": ["a", "b"], "labels": ["x", 2], "models": ["m", "n"]},
            {"models": ["m", "n"], "ids": ["a", "b"], "classes": ["x", "2"], "rows": [0, 0]},
        ),
        (
            [{"model": "m", "id": "a", "label": 1}, {"model": "n", "id": "b", "label": 2.5}],
            {"models": ["m", "n"], "ids": ["a", "b"], "numbers": [1.0, 2.5], "rows": [0, 0]},
        ),
        (
            {"model": "m", "values": {"a": 1.5}},
            {"model": "m", "ids": ["a"], "values": [1.5], "rows": [0]},
        ),
        (
            {"model": "m", "ids": ["a", "b"], "values": [1.5, None]},
            {"model": "m", "ids": ["a", "b"], "values": [1.5, float("nan")], "rows": [0, 0]},
        ),
    ],
)
def test_what_people_write_is_a_message(body: Any, expected: dict[str, Any]) -> None:
    # As texts, in which one NaN is like another.
    assert str(message(body)) == str(FeedbackRequest(**expected))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "the body is not JSON"),
        ({"model": "m", "id": "a", "truth": 1}, "unknown field `truth`"),
        ({"model": "m", "id": 5, "label": 1}, "Expected `str | null`, got `int`"),
        ({"model": "m"}, "expected an id with its label, ids with a list of labels, or labels by id"),
        ({"model": "m", "id": "a", "ids": ["b"], "label": 1, "labels": {"a": 1}}, "expected an id with its label"),
        ({"model": "m", "ids": ["a"], "labels": [1, 2]}, "the body has 1 ids and 2 labels, expected as many or none"),
        ({"model": "m", "labels": {"a": 1}, "values": {"b": 1}}, "id 'b' has a value and no label"),
        ([{"model": "m", "id": "a", "label": 1}, {"model": "m", "id": "b"}], "1 of 2 ids have a label"),
    ],
)
def test_what_is_none_is_refused(body: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(said)):
        message(body)


def test_labels_that_are_passed_on_stay_bytes() -> None:
    encoded = feedback_message(b"\x00" * 64, PASSED_ON_TYPE.encode() + b"; v=1")
    assert FeedbackRequest.FromString(encoded).passed_on == b"\x00" * 64


@pytest.mark.parametrize("field", ["row", "label"])
def test_a_number_that_nothing_holds_is_refused(field: str) -> None:
    body = b'{"model": "m", "id": "a", "%s": 1%s}' % (field.encode(), b"0" * 400)
    with pytest.raises(InvalidInputError):
        message(body)
