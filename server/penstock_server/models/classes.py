"""Says which outputs of a graph are a classifier's, by the operators that they come from.

Types and shapes cannot tell: the labels of three classes and the counts of a regressor are both whole numbers, and a
regressor of three targets gives what a classifier of three classes gives. So a graph is a classifier where its operators
say so, or its publisher does; else its outputs are scores. `prediction.outputs` counts accordingly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock_server.models.onnx_file import Node, OnnxFile

_PASSING: Final = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_COMPARING: Final = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"})
_STRINGS: Final = ("cats_strings", "keys_strings", "pool_strings", "string_vocabulary")


@dataclass(frozen=True, slots=True)
class ClassOutputs:
    """The outputs of a graph that a classifier gives, by name.

    Attributes:
        labels: with the predicted label.
        scores: with a score per class.
    """

    labels: frozenset[str] = frozenset()
    scores: frozenset[str] = frozenset()


def class_outputs(file: OnnxFile) -> ClassOutputs:
    """Which outputs are a classifier's."""
    graph = _Graph(file)
    return ClassOutputs(
        frozenset(name for name in file.outputs if graph.is_label(name)),
        frozenset(name for name in file.outputs if graph.is_score(name)),
    )


def known_strings(file: OnnxFile) -> Mapping[str, tuple[str, ...]]:
    """For each tensor that reaches encoders of strings, the strings that they know."""
    known: dict[str, tuple[str, ...]] = {}
    # Operators come in the order of their run, so that what follows a node is known before it.
    for node in reversed(file.nodes):
        own = tuple(text for name in _STRINGS for text in _texts(node, name))
        found = own or tuple(text for name in node.outputs for text in known.get(name, ()))
        if found:
            for name in node.inputs:
                known[name] = (*known.get(name, ()), *found)[:_MOST_STRINGS]
    return known


_MOST_STRINGS: Final = 200
_MOST_STEPS: Final = 64
"""How many operators stand behind a label at most; a file may chain any number of them, in a circle too."""


class _Graph:
    """Walks from an output back to the operator that decides what it is."""

    def __init__(self, file: OnnxFile) -> None:
        self._producers = {name: node for node in file.nodes for name in node.outputs}
        self._constants = file.constants | {
            name for node in file.nodes if node.operator == "Constant" for name in node.outputs
        }

    def is_label(self, name: str) -> bool:
        """Whether a tensor is the label that a classifier chose."""
        for _ in range(_MOST_STEPS):
            if (node := self._producers.get(name)) is None:
                return False
            match node.operator:
                case _ if _is_classifier(node):
                    return node.outputs[0] == name
                case "ArgMax":
                    return node.attributes.get("axis", 0) != 0
                case operator if operator in _COMPARING:
                    return True
                case "ArrayFeatureExtractor" | "Gather" if len(node.inputs) > 1 and node.inputs[0] in self._constants:
                    name = node.inputs[1]
                case "Where" if len(node.inputs) > 2 and self._constants.issuperset(node.inputs[1:3]):
                    name = node.inputs[0]
                case "Add" | "Mul" if len(node.inputs) > 1 and node.inputs[1] in self._constants:
                    # -1 for an outlier and 1 for any other are made of 0 and 1.
                    name = node.inputs[0]
                case operator if (operator in _PASSING or operator == "LabelEncoder") and node.inputs:
                    name = node.inputs[0]
                case _:
                    return False
        return False

    def is_score(self, name: str) -> bool:
        """Whether a tensor holds a score per class."""
        for _ in range(_MOST_STEPS):
            if (node := self._producers.get(name)) is None:
                return False
            match node.operator:
                case _ if _is_classifier(node):
                    return name in node.outputs[1:2]
                case "Softmax" | "LogSoftmax":
                    return node.attributes.get("axis", -1) != 0
                case operator if (operator in _PASSING or operator in {"Normalizer", "ZipMap"}) and node.inputs:
                    name = node.inputs[0]
                case _:
                    return False
        return False


def _is_classifier(node: Node) -> bool:
    return node.domain == "ai.onnx.ml" and node.operator.endswith("Classifier") and len(node.outputs) > 0


def _texts(node: Node, name: str) -> tuple[str, ...]:
    values = node.attributes.get(name)
    return tuple(map(str, values[:_MOST_STRINGS])) if isinstance(values, tuple) else ()
