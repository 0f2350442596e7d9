import doctest

import pytest

from penstock import inference_pb2 as pb
from penstock_client import ModelMetadata, ModelState, TensorSpec, metadata


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


def test_an_index_keeps_its_order():
    lines = [("b", "2", "READY", ""), ("a", "1", "UNAVAILABLE", "no such file")]
    models = [
        pb.RepositoryIndexResponse.ModelIndex(name=name, version=version, state=state, reason=reason)
        for name, version, state, reason in lines
    ]
    assert metadata.index_of(pb.RepositoryIndexResponse(models=models)) == tuple(ModelState(*line) for line in lines)
