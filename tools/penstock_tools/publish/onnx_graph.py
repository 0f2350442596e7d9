"""An ONNX model before it is published: checked, opened, and its classes read from the graph.

The server's own code opens it, so that what passes here loads there. Opening writes the whole model to a file and starts
an onnxruntime session: do it once per model and pass the `Graph` on.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock_server.errors import InvalidInputError, first_line
from penstock_server.models.manifest import ClassLabel
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.signature import Signature

MAX_MODEL_BYTES: Final = 2**31 - 1
"""The most that one protobuf message holds, weights included."""

_LABELS: Final = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
_PASSING_ON: Final = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_PICKS: Final = frozenset({"ArrayFeatureExtractor", "Gather"})
_CLASS_DATATYPES: Final = frozenset({"INT64", "INT32", "BYTES"})


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked model.

    Attributes:
        model: the `onnx.ModelProto`, its external weights loaded.
        runtime: the model opened as the server opens it.
        classes: the class labels in the order of the scores; None where the graph does not say.
        class_output: the output with the predicted label; None when there is no such output.
    """

    model: Any
    runtime: OnnxModel
    classes: tuple[ClassLabel, ...] | None
    class_output: str | None

    @property
    def signature(self) -> Signature:
        """What goes in and out."""
        return self.runtime.signature


def read(source: Any) -> Graph:
    """The model in a file or in memory, checked and opened.

    Args:
        source: a path, or an `onnx.ModelProto`; a `Graph` is returned as it is.

    Raises:
        InvalidInputError: no such file, not ONNX, too large, refused by `onnx.checker`, or not one the server takes.
    """
    if isinstance(source, Graph):
        return source
    model = _load(Path(source)) if isinstance(source, str | Path) else source
    _check_size("the model", model.ByteSize())
    _check(model)
    runtime = _opened(model)
    class_output, classes = _class_output(model.graph, runtime.signature)
    return Graph(model=model, runtime=runtime, classes=classes, class_output=class_output)


def _opened(model: Any) -> OnnxModel:
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return OnnxModel(path)


def _check_size(what: object, size: int) -> None:
    if size > MAX_MODEL_BYTES:
        raise InvalidInputError(f"{what} takes {size} bytes, expected at most {MAX_MODEL_BYTES}")


def _load(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise InvalidInputError(f"there is no file {path}; expected an ONNX model")
    _check_size(path, path.stat().st_size)
    try:
        return onnx.load(path)
    except DecodeError as error:
        raise InvalidInputError(f"{path} is no ONNX model: its bytes are not the protobuf of one") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InvalidInputError(f"{path} does not load: {first_line(error)}") from error


def _check(model: Any) -> None:
    import onnx

    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InvalidInputError(f"the model is not valid ONNX: {first_line(error)}") from error


def _class_output(graph: Any, signature: Signature) -> tuple[str | None, tuple[ClassLabel, ...] | None]:
    """The first output with a predicted label, and the labels in the order of the scores."""
    for found in signature.outputs:
        if found.datatype in _CLASS_DATATYPES and (labels := _labels_behind(found.name, graph)):
            return found.name, labels
    return None, None


def _labels_behind(name: str, graph: Any) -> tuple[ClassLabel, ...] | None:
    """The labels that the node behind a tensor chooses from; None where no classifier is behind it."""
    import onnx

    producers = {output: node for node in graph.node for output in node.output}
    constants = {found.name: found for found in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    while node := producers.get(name):
        for found in node.attribute:
            if found.name in _LABELS and (found.strings or found.ints):
                return tuple(text.decode() for text in found.strings) or tuple(found.ints)
        if node.op_type in _PICKS and node.input[0] in constants:
            picked = onnx.numpy_helper.to_array(constants[node.input[0]]).ravel().tolist()
            return tuple(label.decode() if isinstance(label, bytes) else label for label in picked)
        if node.op_type not in _PASSING_ON:
            return None
        name = node.input[0]
    return None
