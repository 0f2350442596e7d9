import numpy as np
import pytest

from penstock import inference_pb2
from penstock_client.errors import InvalidRequestError
from penstock_client.request import RequestOptions, infer_payload
from penstock_client.tensors import InputTensor

TENSOR = InputTensor("x", "INT16", np.array([[1], [2]], "<i2"))


def sent(**options):
    return inference_pb2.ModelInferRequest.FromString(infer_payload(RequestOptions(model="m", **options), [TENSOR]))


def test_a_plain_request_has_the_tensors_and_nothing_else():
    request = sent()
    assert (request.model_name, request.model_version, request.id) == ("m", "", "")
    assert [(t.name, t.datatype, list(t.shape)) for t in request.inputs] == [("x", "INT16", [2, 1])]
    assert list(request.raw_input_contents) == [b"\x01\x00\x02\x00"]
    assert not request.parameters
    assert not request.outputs
    assert not request.inputs[0].HasField("contents")


def test_every_option_has_its_place():
    request = sent(version="@champion", outputs=["p", "q"], routing_key="user-7", request_id="r-1", priority=0)
    assert (request.model_version, request.id) == ("@champion", "r-1")
    assert [output.name for output in request.outputs] == ["p", "q"]
    assert request.parameters["routing_key"].string_param == "user-7"
    assert request.parameters["priority"].WhichOneof("parameter_choice") == "uint64_param"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": ""}, "the model's name is empty"),
        ({"extra": "drop"}, "extra is expected as 'ignore' or 'refuse', got 'drop'"),
        ({"outputs": "fare"}, "outputs is expected as a list of names, got the string 'fare'"),
        ({"version": 3}, "version is expected as a string, got 3"),
        ({"routing_key": 7}, "routing_key is expected as a string, got 7"),
        ({"request_id": 7}, "request_id is expected as a string"),
        ({"priority": -1}, "priority is expected from 0 to 2**64 - 1, got -1"),
        ({"priority": 2**64}, "priority is expected"),
    ],
)
def test_an_option_that_cannot_be_sent_is_refused(options, words):
    with pytest.raises(InvalidRequestError) as refused:
        RequestOptions(**{"model": "m"} | options).check()
    assert words in str(refused.value)
