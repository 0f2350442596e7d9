import pickle

import grpc
import pytest

import penstock_client
from penstock_client.errors import MEANINGS, InvalidRequestError, OverloadedError, ServerError, meaning_of


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_code_has_a_meaning_that_is_public(code):
    meaning = meaning_of(code, "")
    assert meaning is MEANINGS.get(code, ServerError)
    assert getattr(penstock_client, meaning.__name__) is meaning


@pytest.mark.parametrize(
    ("details", "meaning"),
    [
        ("CLIENT: Received message larger than max (5 vs. 4)", InvalidRequestError),
        ("SERVER: Sent message larger than max (5 vs. 4)", InvalidRequestError),
        ("the queue is full", OverloadedError),
    ],
)
def test_a_message_too_large_is_no_overload(details, meaning):
    assert meaning_of(grpc.StatusCode.RESOURCE_EXHAUSTED, details) is meaning


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({}, "it broke"),
        ({"server": "a:1"}, "it broke (the server at a:1)"),
        ({"server": "a:1", "model": "m"}, "it broke (model 'm' at a:1)"),
    ],
)
def test_an_error_says_where(where, text):
    assert str(ServerError("it broke", **where)) == text


def test_an_error_keeps_its_fields_across_processes():
    error = ServerError("it broke", code=grpc.StatusCode.DATA_LOSS, model="m", server="a:1")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.details, copy.code, copy.model, copy.server) == (
        ServerError,
        "it broke",
        grpc.StatusCode.DATA_LOSS,
        "m",
        "a:1",
    )


def test_a_code_of_its_own_where_none_is_given():
    assert InvalidRequestError("x").code is grpc.StatusCode.INVALID_ARGUMENT
