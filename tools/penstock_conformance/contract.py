"""The models that a server under test serves: what each takes and gives, and graphs of them for servers of ONNX.

Another server has them in any form that does the same, under the same names or under those that `--model NAME=OTHER` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from onnx import NodeProto

DATATYPES: Final = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip
"""The specification's datatypes."""

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Datatype and shape by name; -1 is any length."""

_ANY: Final = (-1, -1)
_FOUR: Final = (-1, 4)


@dataclass(frozen=True, slots=True)
class Model:
    """One model.

    Attributes:
        does: what it answers, for those who write it for another server.
        versions: the versions that are served.
    """

    name: str
    inputs: Tensors
    outputs: Tensors
    does: str
    versions: tuple[str, ...] = ("1",)


def identity(datatype: str) -> str:
    """The name of the model that gives a tensor of this datatype back."""
    return f"identity_{datatype}"


SUM: Final = "sum_FP32"
FIXED: Final = "fixed_FP32"
VERSIONS: Final = "versions_FP32"
PICK: Final = "pick_INT64"

MODELS: Final = {
    model.name: model
    for model in (
        *(
            Model(identity(each), {"INPUT": (each, _ANY)}, {"OUTPUT": (each, _ANY)}, "OUTPUT is INPUT")
            for each in DATATYPES
        ),
        Model(
            SUM,
            {"A": ("FP32", _FOUR), "B": ("FP32", _FOUR)},
            {"SUM": ("FP32", _FOUR), "DIFFERENCE": ("FP32", _FOUR)},
            "SUM is A + B, DIFFERENCE is A - B",
        ),
        Model(
            FIXED,
            {"INPUT": ("FP32", (-1, 2, 3))},
            {"OUTPUT": ("FP32", (-1, 2, 3))},
            "OUTPUT is INPUT, of shape [-1, 2, 3]",
        ),
        Model(
            VERSIONS,
            {"INPUT": ("FP32", _FOUR)},
            {"OUTPUT": ("FP32", _FOUR)},
            "OUTPUT is INPUT plus the version's number",
            ("1", "2"),
        ),
        Model(
            PICK,
            {"INPUT": ("INT64", (-1,))},
            {"OUTPUT": ("INT64", (-1,))},
            "OUTPUT is the element of [10, 20, 30, 40] at each index; it fails for an index beyond them",
        ),
    )
}
"""All models, by name."""


def write(folder: Path) -> None:
    """Writes the models as FOLDER/NAME/VERSION/model.onnx, with Triton's config.pbtxt beside; needs the package `onnx`."""
    for model in MODELS.values():
        for version in model.versions:
            file = folder / model.name / version / "model.onnx"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(graph(model, version))
        (folder / model.name / "config.pbtxt").write_text(config(model))


def graph(model: Model, version: str) -> bytes:
    """The model as a serialized ONNX graph."""
    from onnx import TensorProto, checker, helper

    types = {
        "BOOL": TensorProto.BOOL, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
        "BYTES": TensorProto.STRING,
    }  # fmt: skip
    types |= {name: getattr(TensorProto, name) for name in DATATYPES if "INT" in name}

    def declared(tensors: Tensors) -> list[Any]:
        return [
            helper.make_tensor_value_info(
                name, types[datatype], [f"d{at}" if length < 0 else length for at, length in enumerate(shape)]
            )
            for name, (datatype, shape) in tensors.items()
        ]

    nodes, constants = _nodes(model.name, version)
    made = helper.make_graph(nodes, model.name, declared(model.inputs), declared(model.outputs), constants)
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(whole)
    return bytes(whole.SerializeToString())


def _nodes(name: str, version: str) -> "tuple[list[NodeProto], list[Any]]":
    from onnx import TensorProto, helper

    if name == SUM:
        return [helper.make_node("Add", ["A", "B"], ["SUM"]), helper.make_node("Sub", ["A", "B"], ["DIFFERENCE"])], []
    if name == VERSIONS:
        number = helper.make_tensor("number", TensorProto.FLOAT, [1], [float(version)])
        return [helper.make_node("Add", ["INPUT", "number"], ["OUTPUT"])], [number]
    if name == PICK:
        table = helper.make_tensor("table", TensorProto.INT64, [4], [10, 20, 30, 40])
        return [helper.make_node("Gather", ["table", "INPUT"], ["OUTPUT"])], [table]
    return [helper.make_node("Identity", ["INPUT"], ["OUTPUT"])], []


def config(model: Model) -> str:
    """Triton's configuration of the model, without a batch axis of Triton's own."""

    def listed(tensors: Tensors) -> str:
        lines = (
            f'{{ name: "{name}" data_type: TYPE_{"STRING" if datatype == "BYTES" else datatype} dims: {list(shape)} }}'
            for name, (datatype, shape) in tensors.items()
        )
        return ", ".join(lines)

    return (
        f'backend: "onnxruntime"\nmax_batch_size: 0\nversion_policy {{ all {{}} }}\n'
        f"input [ {listed(model.inputs)} ]\noutput [ {listed(model.outputs)} ]\n"
    )
