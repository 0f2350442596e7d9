"""An ONNX model as a publisher sees it: is it sound, does the server take it, and which classes does it tell apart.

Decides whether a model may be published at all, and reads from its graph what the manifest needs. It is opened by the
server's own code, so that what passes here loads there. Leaves the files to `publish`; `convert` calls it too.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import FeatureSpec
from penstock_server.models.manifest import ClassLabel
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.signature import ANY, Signature

MAX_MODEL_BYTES: Final = 2**31 - 1
"""The most that one protobuf message holds, weights included."""

_LABELS: Final = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
_PASSING_ON: Final = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_PICK: Final = "ArrayFeatureExtractor"
_CLASS_DATATYPES: Final = frozenset({"INT64", "INT32", "BYTES"})


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked model.

    Attributes:
        model: the `onnx.ModelProto`, its external weights loaded.
        runtime: the model opened as the server opens it.
        classes: the class labels in the order of the scores; None where the graph does not say.
        class_output: the output that holds the predicted label; None when there is no such output.
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
    """The model in a file or in memory, after every check that is quick.

    Args:
        source: a path, or an `onnx.ModelProto`.

    Raises:
        InvalidInputError: no such file, not ONNX, too large, refused by `onnx.checker`, or not one the server takes.
    """
    model = _load(Path(source)) if isinstance(source, str | Path) else source
    size = model.ByteSize()
    if size > MAX_MODEL_BYTES:
        raise InvalidInputError(f"the model takes {size} bytes, expected at most {MAX_MODEL_BYTES}")
    _check(model)
    runtime = opened(model)
    class_output, classes = _class_output(model.graph, runtime.signature)
    return Graph(model=model, runtime=runtime, classes=classes, class_output=class_output)


def opened(model: Any) -> OnnxModel:
    """The model as the server runs it.

    Raises:
        InvalidInputError: onnxruntime cannot load it, or it takes or gives something other than tensors.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return OnnxModel(path)


def hold_fit(signature: Signature, features: FeatureSpec) -> None:
    """Holds that a model takes what its feature pipeline gives: one matrix of its width and datatype.

    Raises:
        InvalidInputError: it takes several inputs, another datatype or rank, or another width.
    """
    if len(signature.inputs) != 1:
        names = ", ".join(found.name for found in signature.inputs)
        raise InvalidInputError(f"a model behind a feature pipeline takes one input, but this one takes {names}")
    (found,) = signature.inputs
    fits = len(found.shape) == 2 and found.shape[1] in (ANY, features.width)
    if not fits or found.datatype != features.datatype:
        raise InvalidInputError(
            f"the feature pipeline gives {features.datatype} of shape [-1, {features.width}], "
            f"but input {found.name!r} takes {found.datatype} of shape {list(found.shape)}"
        )


def _load(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise InvalidInputError(f"there is no file {path}; expected an ONNX model")
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise InvalidInputError(f"{path} takes {path.stat().st_size} bytes, expected at most {MAX_MODEL_BYTES}")
    try:
        return onnx.load(path)
    except DecodeError as error:
        raise InvalidInputError(f"{path} is no ONNX model: its bytes are not the protobuf of one") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InvalidInputError(f"{path} does not load: {_first_line(error)}") from error


def _check(model: Any) -> None:
    import onnx

    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InvalidInputError(f"the model is not valid ONNX: {_first_line(error)}") from error


def _class_output(graph: Any, signature: Signature) -> tuple[str | None, tuple[ClassLabel, ...] | None]:
    """The first output that holds a predicted label, and the labels in the order of the scores."""
    for found in signature.outputs:
        if found.datatype in _CLASS_DATATYPES and (labels := _labels_behind(found.name, graph)):
            return found.name, labels
    return None, None


def _labels_behind(name: str, graph: Any) -> tuple[ClassLabel, ...] | None:
    """The labels that the node behind a tensor chooses from; None where no classifier is behind it."""
    import onnx

    producers = {output: node for node in graph.node for output in node.output}
    constants = {found.name: found for found in graph.initializer}
    while node := producers.get(name):
        for found in node.attribute:
            if found.name in _LABELS and (found.strings or found.ints):
                return tuple(text.decode() for text in found.strings) or tuple(found.ints)
        if node.op_type == _PICK and node.input[0] in constants:
            picked = onnx.numpy_helper.to_array(constants[node.input[0]]).ravel().tolist()
            return tuple(label.decode() if isinstance(label, bytes) else label for label in picked)
        if node.op_type not in _PASSING_ON:
            return None
        name = node.input[0]
    return None


def _first_line(error: Exception) -> str:
    """The first line of an error's text: what follows in these libraries is a dump of the graph."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
