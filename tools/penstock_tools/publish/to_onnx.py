"""From a fitted estimator to ONNX, and the proof that both answer alike.

Decides the form of the graph: one matrix `features` in; `label` and `probabilities` out of a classifier (`scores` where it
knows no probabilities), `prediction` out of a regressor. Estimators of LightGBM and XGBoost come through
`foreign_estimators`. Training and the pipelines call it; `publish` takes what comes out.
"""

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import ModelFailedError, UnsupportedError
from penstock_server.features.spec.spec import Datatype
from penstock_tools.publish import foreign_estimators, target_transform
from penstock_tools.publish import onnx_graph as graph

INPUT: Final = "features"
OPSETS: Final = {"": 18, "ai.onnx.ml": 3}
"""Old enough for every onnxruntime that the server extra allows."""

TOLERANCE: Final = 1e-5
"""How far a probability may be off: float32 sums over some hundred terms leave an error of 1e-6."""

_SCORES: Final[tuple[dict[str, bool], ...]] = ({"zipmap": False, "raw_scores": True}, {"raw_scores": True})
_PLAIN: Final[tuple[dict[str, bool], ...]] = ({"zipmap": False}, {})


def to_onnx(estimator: Any, width: int, datatype: Datatype = "FP32") -> Any:
    """The `onnx.ModelProto` of a fitted estimator, or of a pipeline that ends in one.

    Input `features` is of the datatype and the shape [rows, width]. A classifier's outputs are `label` (INT64 [rows], or
    strings where the labels are) and `probabilities` or `scores` [rows, classes]; a regressor's is `prediction`
    [rows, targets]; others keep the names that skl2onnx gives.

    Raises:
        UnsupportedError: there is no converter for it; says what is missing.
    """
    from sklearn.base import is_classifier, is_regressor

    fitted, inverse = target_transform.split(estimator)
    foreign_estimators.register(fitted)
    model = _converted(fitted, width, datatype)
    if is_regressor(estimator):
        _rename(model, "variable", "prediction")
        target_transform.append(model, "prediction", inverse)
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        _rename(model, "probabilities", "scores")
    return model


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


def _converted(estimator: Any, width: int, datatype: Datatype) -> Any:
    import skl2onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from sklearn.base import is_classifier

    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    tensor = FloatTensorType if datatype == "FP32" else DoubleTensorType
    choices = (
        (_PLAIN if hasattr(estimator, "predict_proba") else _SCORES + _PLAIN) if is_classifier(estimator) else ({},)
    )
    for options in choices:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = skl2onnx.convert_sklearn(
                    estimator,
                    initial_types=[(INPUT, tensor([None, width]))],
                    options={id(last): options} if options else None,
                    target_opset=OPSETS,
                )
        except NameError:
            # The converter knows no such option; the next choice asks for less.
            continue
        except Exception as error:
            raise UnsupportedError(f"{type(last).__name__} does not become {datatype} ONNX: {_first(error)}") from error
        return _with_true_types(model) if datatype == "FP64" else model
    raise UnsupportedError(f"{type(last).__name__} does not become ONNX: no options of its converter fit")


def _with_true_types(model: Any) -> Any:
    """Declares as float what a tree ensemble gives: it takes doubles and answers in float32, which skl2onnx overlooks."""
    import onnx

    makers = {name: node for node in model.graph.node for name in node.output}
    for output in model.graph.output:
        node = makers[output.name]
        while node.op_type in ("Identity", "Reshape") and node.input[0] in makers:
            node = makers[node.input[0]]
        if node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "ZipMap"):
            tensor = output.type.tensor_type
            if tensor.elem_type == onnx.TensorProto.DOUBLE:
                tensor.elem_type = onnx.TensorProto.FLOAT
    return model


def _rename(model: Any, old: str, new: str) -> None:
    """Gives an output another name; nothing happens where there is no such output."""
    for output in model.graph.output:
        if output.name == old:
            output.name = new
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def _first(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
