"""What is measured on devices: a perceptron, trees, convolutions and a transformer; the same seeds give the same files.

The networks are small ones of their kinds, of float32, and their outputs are shares of classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from bench import models
from bench.models import INPUT

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

_OPSET: Final = 17
CLASSES: Final = 10
TOKENS: Final = 64
"""How many words a text has that the transformer takes."""
VOCABULARY: Final = 1000
_WIDE: Final = 256
_HEADS: Final = 4
_STAGES: Final = (64, 128, 256, 512)


class _Graph:
    """The nodes and weights of a graph that grows by one operator after another."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The name of what an operator makes of these."""
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def drawn(self, *shape: int, fan_in: int) -> str:
        """Weights that keep values about as large as they were."""
        return self.constant((self._random.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32))

    def zeros(self, size: int) -> str:
        return self.constant(np.zeros(size, np.float32))

    def dense(self, value: str, wide: int, narrow: int) -> str:
        """A product with weights, along the last axis."""
        return self.add("Add", self.add("MatMul", value, self.drawn(wide, narrow, fan_in=wide)), self.zeros(narrow))

    def normalised(self, value: str, wide: int) -> str:
        return self.add("LayerNormalization", value, self.constant(np.ones(wide, np.float32)), self.zeros(wide))

    def serialized(self, name: str, value: str, *, kind: int, shape: tuple[int, ...]) -> bytes:
        """The file of the graph whose answers are the shares that these scores of `CLASSES` give."""
        from onnx import TensorProto, helper

        self.nodes.append(helper.make_node("Softmax", [value], ["shares"], axis=-1))
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(INPUT, kind, [None, *shape])],
            [helper.make_tensor_value_info("shares", TensorProto.FLOAT, [None, CLASSES])],
            self.weights,
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def convolutional(seed: int = 0, *, side: int = 64) -> bytes:
    """Ten convolutions of 3 x 3 with residual connections over pictures [N, 3, side, side]."""
    from onnx import TensorProto

    graph = _Graph(seed)

    def convolved(value: str, narrow: int, wide: int, stride: int = 1) -> str:
        weights = graph.drawn(wide, narrow, 3, 3, fan_in=9 * narrow)
        options = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [stride, stride]}
        return graph.add("Conv", value, weights, graph.zeros(wide), **options)

    value = graph.add("Relu", convolved(INPUT, 3, _STAGES[0], 2))
    for narrow, wide in zip((_STAGES[0], *_STAGES), _STAGES, strict=False):
        down = value if narrow == wide else graph.add("Relu", convolved(value, narrow, wide, 2))
        inner = convolved(graph.add("Relu", convolved(down, wide, wide)), wide, wide)
        value = graph.add("Relu", graph.add("Add", down, inner))
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", value))
    scores = graph.dense(pooled, _STAGES[-1], CLASSES)
    return graph.serialized("convolutional", scores, kind=TensorProto.FLOAT, shape=(3, side, side))


def transformer(seed: int = 0, *, layers: int = 4) -> bytes:
    """Layers of attention and perceptrons of 256 and 1,024 over texts of 64 words, as their numbers [N, 64] of int64."""
    from onnx import TensorProto

    graph = _Graph(seed)
    words = graph.add("Gather", graph.drawn(VOCABULARY, _WIDE, fan_in=1), INPUT)
    value = graph.add("Add", words, graph.drawn(TOKENS, _WIDE, fan_in=1))
    split = graph.constant(np.array([0, 0, _HEADS, _WIDE // _HEADS]))
    joined = graph.constant(np.array([0, 0, _WIDE]))
    scale = graph.constant(np.array((_WIDE // _HEADS) ** -0.5, np.float32))
    half, one, root = (graph.constant(np.array(each, np.float32)) for each in (0.5, 1.0, 2**0.5))

    def heads(of: str, order: list[int]) -> str:
        return graph.add("Transpose", graph.add("Reshape", graph.dense(of, _WIDE, _WIDE), split), perm=order)

    for _ in range(layers):
        seen = graph.normalised(value, _WIDE)
        asked, keys, values = heads(seen, [0, 2, 1, 3]), heads(seen, [0, 2, 3, 1]), heads(seen, [0, 2, 1, 3])
        shares = graph.add("Softmax", graph.add("Mul", graph.add("MatMul", asked, keys), scale), axis=-1)
        met = graph.add("Transpose", graph.add("MatMul", shares, values), perm=[0, 2, 1, 3])
        value = graph.add("Add", value, graph.dense(graph.add("Reshape", met, joined), _WIDE, _WIDE))
        inner = graph.dense(graph.normalised(value, _WIDE), _WIDE, 4 * _WIDE)
        gate = graph.add("Add", graph.add("Erf", graph.add("Div", inner, root)), one)
        gelu = graph.add("Mul", graph.add("Mul", inner, gate), half)
        value = graph.add("Add", value, graph.dense(gelu, 4 * _WIDE, _WIDE))
    pooled = graph.add("ReduceMean", graph.normalised(value, _WIDE), axes=[1], keepdims=0)
    return graph.serialized("transformer", graph.dense(pooled, _WIDE, CLASSES), kind=TensorProto.INT64, shape=(TOKENS,))


def pictures(rows: int, *, side: int = 64, seed: int = 0) -> NDArray[np.float32]:
    """Pictures of noise."""
    return np.random.default_rng(seed).normal(size=(rows, 3, side, side)).astype(np.float32)


def texts(rows: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Texts of random words."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, (rows, TOKENS))


@dataclass(frozen=True, slots=True)
class Measured:
    """A graph that is measured on a device.

    Attributes:
        about: what it is.
        make: its file.
        rows: so many of what it takes, with a seed.
        sizes: the batches that are timed.
    """

    about: str
    make: Callable[[], bytes]
    rows: Callable[..., NDArray[Any]]
    sizes: tuple[int, ...]


def table(rows: int, *, columns: int = 30, seed: int = 1) -> NDArray[np.float32]:
    """Rows of noise."""
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


MEASURED: Final = {
    "perceptron": Measured(
        "perceptron 30-1024-1024-1024-1",
        partial(models.mlp, layers=(30, 1024, 1024, 1024, 1)),
        table,
        (1, 8, 64, 256, 4096),
    ),
    "trees": Measured("boosting, 100 trees of depth 3", models.tabular, table, (1, 8, 64, 256, 4096)),
    "convolutional": Measured("ten convolutions over pictures 3 x 64 x 64", convolutional, pictures, (1, 8, 64, 256)),
    "transformer": Measured("four layers of 256 over texts of 64 words", transformer, texts, (1, 8, 64, 256)),
}
"""By the names under which they are served."""
