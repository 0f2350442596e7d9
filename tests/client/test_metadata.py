import doctest

import pytest

from penstock import inference_pb2 as pb
from penstock_client import ModelMetadata, ModelState, ServerError, TensorSpec, metadata


def test_examples():
    found = doctest.testmod(metadata)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    ("shape", "is_column"),
    [
        ((-1,), True),
        ((-1, 1), True),
        ((5,), True),
        ((-1, 2), False),
        ((-1, -1), False),
        ((-1, 1, 1), False),
        ((), False),
    ],
)
def test_a_column_has_one_value_per_row(shape, is_column):
    assert TensorSpec("a", "FP32", shape).is_column is is_column


def test_a_reply_is_read_whole():
    tensor = pb.ModelMetadataResponse.TensorMetadata(name="age", datatype="INT64", shape=[-1, 1])
    text = pb.ModelMetadataResponse.TensorMetadata(name="city", datatype="BYTES", shape=[-1])
    message = pb.ModelMetadataResponse(
        name="fares", versions=["3", "4"], platform="onnx", inputs=[tensor, text], outputs=[tensor]
    )
    age = TensorSpec("age", "INT64", (-1, 1))
    found = metadata.metadata_of(message)
    assert found == ModelMetadata("fares", ("3", "4"), "onnx", (age, TensorSpec("city", "BYTES", (-1,))), (age,))
    assert [spec.is_numeric for spec in found.inputs] == [True, False]


def matrix(text, shape=(-1, 2)):
    tensor = pb.ModelMetadataResponse.TensorMetadata(name="X", datatype="FP32", shape=shape)
    tensor.parameters["columns"].string_param = text
    return pb.ModelMetadataResponse(name="m", inputs=[tensor])


def test_an_input_says_the_names_of_its_columns_and_what_is_missing():
    (spec,) = metadata.metadata_of(matrix('["b", "Łódź"]')).inputs
    assert (spec.columns, spec.missing) == (("b", "Łódź"), None)
    text = pb.ModelMetadataResponse.TensorMetadata(name="city", datatype="BYTES", shape=[-1])
    text.parameters["missing"].string_param = ""
    (spec,) = metadata.metadata_of(pb.ModelMetadataResponse(name="m", inputs=[text])).inputs
    assert (spec.columns, spec.missing) == ((), "")


@pytest.mark.parametrize(
    "text", ["", "[", '["a"]', '["a", "b", "c"]', '["a", "a"]', '["a", 2]', '{"a": 1, "b": 2}', "[" * 99999]
)
def test_names_that_are_none_are_not_guessed_at(text):
    with pytest.raises(ServerError, match=r"the columns of input 'X' are expected as \[2\] names, got"):
        metadata.metadata_of(matrix(text))


def test_an_index_keeps_its_order():
    lines = [("b", "2", "READY", ""), ("a", "1", "UNAVAILABLE", "no such file")]
    models = [
        pb.RepositoryIndexResponse.ModelIndex(name=name, version=version, state=state, reason=reason)
        for name, version, state, reason in lines
    ]
    assert metadata.index_of(pb.RepositoryIndexResponse(models=models)) == tuple(ModelState(*line) for line in lines)
