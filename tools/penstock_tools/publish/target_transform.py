"""Regressors of a transformed target: the graph predicts as they were fitted, and undoes the transformation at its end.

Decides which inverses are known: exp, expm1, square and the scalers' straight lines. skl2onnx knows none of it. `convert`
takes such an estimator apart before and calls `append` after.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from penstock_server.errors import UnsupportedError

Nodes = list[tuple[str, float | None]]
"""ONNX operators in order, each with its second operand, if it has one; SAME is the first operand again."""

SAME: Final = float("nan")


def split(estimator: Any) -> tuple[Any, Nodes]:
    """The regressor that skl2onnx converts, and what undoes the transformation; the estimator itself where there is none.

    Raises:
        UnsupportedError: the transformation of the target is not one that is known.
    """
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import Pipeline

    last = estimator.steps[-1][1] if type(estimator) is Pipeline else estimator
    if type(last) is not TransformedTargetRegressor:
        return estimator, []
    if last is estimator:
        return last.regressor_, _inverse(last.transformer_)
    return Pipeline([*estimator.steps[:-1], ("model", last.regressor_)]), _inverse(last.transformer_)


def append(model: Any, output: str, nodes: Nodes) -> None:
    """Adds the operators behind an output, which keeps its name."""
    import onnx

    if not nodes:
        return
    dtype = onnx.helper.tensor_dtype_to_np_dtype(model.graph.output[0].type.tensor_type.elem_type)
    names = [f"{output}_as_fitted", *(f"{output}_{at}" for at in range(1, len(nodes))), output]
    for node in model.graph.node:
        node.output[:] = [names[0] if name == output else name for name in node.output]
    for at, (operator, operand) in enumerate(nodes):
        inputs = [names[at]]
        if operand is not None and np.isnan(operand):
            inputs.append(names[at])
        elif operand is not None:
            inputs.append(f"{output}_operand_{at}")
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(operand, dtype), inputs[-1]))
        model.graph.node.append(onnx.helper.make_node(operator, inputs, [names[at + 1]]))


def _inverse(transformer: Any) -> Nodes:
    known = _KNOWN.get(type(transformer).__name__)
    nodes = None if known is None else known(transformer)
    if nodes is None:
        inverse = getattr(transformer, "inverse_func", None)
        by = type(transformer).__name__ if inverse is None else getattr(inverse, "__name__", repr(inverse))
        raise UnsupportedError(
            f"the target was transformed, and {by} undoes it, which the graph cannot; expected the inverse "
            "numpy.exp, numpy.expm1 or numpy.square, or StandardScaler or MinMaxScaler of one target"
        )
    return nodes


def _function(transformer: Any) -> Nodes | None:
    if transformer.inv_kw_args:
        return None
    functions: dict[Any, Nodes] = {
        None: [],
        np.exp: [("Exp", None)],
        np.expm1: [("Exp", None), ("Sub", 1.0)],
        np.square: [("Mul", SAME)],
    }
    return next((nodes for function, nodes in functions.items() if function is transformer.inverse_func), None)


def _standard(scaler: Any) -> Nodes | None:
    if scaler.n_features_in_ != 1:
        return None
    scaled: Nodes = [("Mul", float(scaler.scale_[0]))] if scaler.with_std else []
    return [*scaled, ("Add", float(scaler.mean_[0]))] if scaler.with_mean else scaled


def _min_max(scaler: Any) -> Nodes | None:
    return [("Sub", float(scaler.min_[0])), ("Div", float(scaler.scale_[0]))] if scaler.n_features_in_ == 1 else None


_KNOWN: Final[dict[str, Callable[[Any], Nodes | None]]] = {
    "FunctionTransformer": _function,
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
}
