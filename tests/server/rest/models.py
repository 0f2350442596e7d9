"""Metadata of the models that these tests ask for."""

import json

from penstock import inference_pb2 as pb


def columns_model(name: str = "fraud") -> pb.ModelMetadataResponse:
    """Of named columns: a number, a text that may be missing, and a time; a classifier that explains."""
    metadata = pb.ModelMetadataResponse(name=name, versions=["1", "2"], platform="onnxruntime_onnx")
    metadata.inputs.add(name="amount", datatype="FP64", shape=[-1, 1])
    metadata.inputs.add(name="country", datatype="BYTES", shape=[-1, 1]).parameters["missing"].string_param = "?"
    metadata.inputs.add(name="at", datatype="INT64", shape=[-1, 1]).parameters["time"].string_param = "ns"
    label = metadata.outputs.add(name="label", datatype="INT64", shape=[-1])
    label.parameters["penstock_attributions"].string_param = "linear, of the log-odds"
    metadata.outputs.add(name="probabilities", datatype="FP32", shape=[-1, 2])
    return metadata


def matrix_model(name: str = "amount", *columns: str) -> pb.ModelMetadataResponse:
    """Of one matrix of two columns, which may have names."""
    metadata = pb.ModelMetadataResponse(name=name, versions=["1"])
    tensor = metadata.inputs.add(name="X", datatype="FP32", shape=[-1, 2])
    if columns:
        tensor.parameters["columns"].string_param = json.dumps(columns)
    metadata.outputs.add(name="y", datatype="FP32", shape=[-1, 1])
    return metadata


def image_model(name: str = "image") -> pb.ModelMetadataResponse:
    """Of one tensor whose rows are matrices with a free dimension."""
    metadata = pb.ModelMetadataResponse(name=name)
    metadata.inputs.add(name="pixels", datatype="UINT8", shape=[-1, 2, -1])
    metadata.outputs.add(name="y", datatype="FP32", shape=[-1, 3])
    return metadata


def tensors_model(name: str = "two") -> pb.ModelMetadataResponse:
    """Of two tensors, of which one has rows of three."""
    metadata = pb.ModelMetadataResponse(name=name)
    metadata.inputs.add(name="a", datatype="FP32", shape=[-1, 3])
    metadata.inputs.add(name="b", datatype="BOOL", shape=[-1])
    metadata.outputs.add(name="y", datatype="FP32", shape=[-1])
    return metadata
