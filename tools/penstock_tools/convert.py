"""From a fitted scikit-learn classifier to ONNX, and the proof that both answer alike.

Decides the form of the graph (one FP32 matrix in, `label` and `probabilities` out) and how far the two may differ.
Training calls it; `publish` takes what comes out.
"""

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import ModelFailedError
from penstock_tools import graph

INPUT: Final = "features"
OPSETS: Final = {"": 18, "ai.onnx.ml": 3}
"""Old enough for every onnxruntime that the server extra allows."""

TOLERANCE: Final = 1e-5
"""How far a probability may be off: float32 sums over some hundred terms leave an error of 1e-6."""


def to_onnx(classifier: Any, width: int) -> Any:
    """The `onnx.ModelProto` of a fitted classifier.

    Input `features` is FP32 [rows, width]; outputs are `label` (INT64 [rows], or strings where the labels are) and
    `probabilities` (FP32 [rows, classes]).
    """
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return skl2onnx.convert_sklearn(
            classifier,
            initial_types=[(INPUT, FloatTensorType([None, width]))],
            options={id(classifier): {"zipmap": False}},
            target_opset=OPSETS,
        )


def hold_parity(classifier: Any, model: Any, features: NDArray[np.float32]) -> float:
    """Holds that the ONNX model answers as the classifier does.

    Args:
        classifier: the fitted scikit-learn classifier.
        model: its `onnx.ModelProto`.
        features: rows to ask both, of shape [rows, width].

    Returns:
        The largest difference between two probabilities.

    Raises:
        ModelFailedError: a probability is off by more than `TOLERANCE`.
    """
    got = graph.opened(model).run({INPUT: features})[1]
    expected = classifier.predict_proba(features)
    worst = float(np.max(np.abs(got - expected), initial=0.0))
    # Written so that NaN fails too.
    if not worst <= TOLERANCE:
        raise ModelFailedError(
            f"the ONNX model differs from scikit-learn's by {worst:.2g} in a probability; at most {TOLERANCE:g} is due"
        )
    return worst
