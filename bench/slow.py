"""A model of about 20 ms a row, made slow by size: attention over 256 x 256 values, again and again.

It multiplies what it computes and not weights, so that the file stays small; each step averages rows of the first
matrix, so that values stay in range and rounding is not magnified. Called by `models`.
"""

from typing import Final

import numpy as np

NAME: Final = "slow"
COLUMNS: Final = 8
_SIDE: Final = 256
_STEPS: Final = 24
_OPSET: Final = 17


def model(seed: int = 0) -> bytes:
    """Input `input` [N, 8], output `scores` [N, 256]."""
    from onnx import TensorProto, helper, numpy_helper

    matrix = np.random.default_rng(seed).normal(size=(COLUMNS, _SIDE * _SIDE)).astype(np.float32)
    weights = [
        numpy_helper.from_array(matrix, "spread"),
        numpy_helper.from_array(np.array([-1, _SIDE, _SIDE]), "square"),
    ]
    nodes = [
        helper.make_node("MatMul", ["input", "spread"], ["flat"]),
        helper.make_node("Reshape", ["flat", "square"], ["step0"]),
    ]
    for step in range(_STEPS):
        nodes.append(helper.make_node("Softmax", [f"step{step}"], [f"shares{step}"], axis=-1))
        nodes.append(helper.make_node("MatMul", [f"shares{step}", "step0"], [f"step{step + 1}"]))
    nodes.append(helper.make_node("ReduceMean", [f"step{_STEPS}"], ["scores"], axes=[2], keepdims=0))
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, COLUMNS])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, _SIDE])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    return bytes(made.SerializeToString())
