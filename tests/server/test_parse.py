import pytest

from penstock import inference_pb2 as pb
from penstock_server.errors import InvalidInputError
from penstock_server.parse import OPEN_INFERENCE, parse


def test_a_message_is_read() -> None:
    message = pb.ModelReadyRequest(name="m").SerializeToString()
    assert parse(pb.ModelReadyRequest, message, OPEN_INFERENCE).name == "m"


def test_bytes_that_are_none_are_refused_by_name() -> None:
    said = "^the message is not a ModelReadyRequest of the Open Inference Protocol$"
    with pytest.raises(InvalidInputError, match=said) as caught:
        parse(pb.ModelReadyRequest, b"\xff", OPEN_INFERENCE)
    assert caught.value.__suppress_context__
