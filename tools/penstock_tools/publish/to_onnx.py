"""From a fitted estimator to ONNX.

The graph takes one matrix, `features`. A classifier gives `label` and `probabilities` (`scores` where it has no
probabilities), a regressor `prediction`. skl2onnx converts; this module adds what skl2onnx lacks: estimators of
LightGBM and XGBoost, through the converters of onnxmltools, and regressors of a transformed target.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import numpy as np

from penstock.names import MATRIX_INPUT
from penstock_server.errors import UnsupportedError, first_line
from penstock_server.features.spec.spec import Datatype

OPSETS: Final = {"": 18, "ai.onnx.ml": 3}
"""Old enough for every onnxruntime that the server extra allows."""

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

    fitted, inverse = _without_target_transform(estimator)
    _register_foreign(fitted)
    model = _converted(fitted, width, datatype)
    if is_regressor(estimator):
        _rename(model, "variable", "prediction")
        _append_nodes(model, "prediction", inverse)
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        _rename(model, "probabilities", "scores")
    return model


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
                    initial_types=[(MATRIX_INPUT, tensor([None, width]))],
                    options={id(last): options} if options else None,
                    target_opset=OPSETS,
                )
        except NameError:
            # The converter has no such option; the next choice sets fewer.
            continue
        except Exception as error:
            raise UnsupportedError(
                f"{type(last).__name__} does not become {datatype} ONNX: {first_line(error)}"
            ) from error
        return _with_true_types(model) if datatype == "FP64" else model
    raise UnsupportedError(f"{type(last).__name__} does not become ONNX: no options of its converter fit")


def _with_true_types(model: Any) -> Any:
    """Declares as float what a tree ensemble gives: it takes doubles and answers in float32, which skl2onnx overlooks."""
    import onnx

    producers = {name: node for node in model.graph.node for name in node.output}
    for output in model.graph.output:
        node = producers[output.name]
        while node.op_type in ("Identity", "Reshape") and node.input[0] in producers:
            node = producers[node.input[0]]
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


_Nodes = list[tuple[str, float | None]]
"""ONNX operators in order, each with its second operand, if it has one; `_SAME` is the first operand again."""

_SAME: Final = float("nan")


def _without_target_transform(estimator: Any) -> tuple[Any, _Nodes]:
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


def _append_nodes(model: Any, output: str, nodes: _Nodes) -> None:
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


def _inverse(transformer: Any) -> _Nodes:
    known = _INVERSES.get(type(transformer).__name__)
    nodes = None if known is None else known(transformer)
    if nodes is None:
        inverse = getattr(transformer, "inverse_func", None)
        by = type(transformer).__name__ if inverse is None else getattr(inverse, "__name__", repr(inverse))
        raise UnsupportedError(
            f"the target was transformed, and {by} undoes it, which the graph cannot; expected the inverse "
            "numpy.exp, numpy.expm1 or numpy.square, or StandardScaler or MinMaxScaler of one target"
        )
    return nodes


def _function(transformer: Any) -> _Nodes | None:
    if transformer.inv_kw_args:
        return None
    functions: dict[Any, _Nodes] = {
        None: [],
        np.exp: [("Exp", None)],
        np.expm1: [("Exp", None), ("Sub", 1.0)],
        np.square: [("Mul", _SAME)],
    }
    return next((nodes for function, nodes in functions.items() if function is transformer.inverse_func), None)


def _standard(scaler: Any) -> _Nodes | None:
    if scaler.n_features_in_ != 1:
        return None
    scaled: _Nodes = [("Mul", float(scaler.scale_[0]))] if scaler.with_std else []
    return [*scaled, ("Add", float(scaler.mean_[0]))] if scaler.with_mean else scaled


def _min_max(scaler: Any) -> _Nodes | None:
    return [("Sub", float(scaler.min_[0])), ("Div", float(scaler.scale_[0]))] if scaler.n_features_in_ == 1 else None


_INVERSES: Final[dict[str, Callable[[Any], _Nodes | None]]] = {
    "FunctionTransformer": _function,
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
}


_FOREIGN: Final = {"lightgbm": ("LGBM", "LightGbm"), "xgboost": ("XGB", "XGBoost")}
"""For each package how its classes' names begin, and what onnxmltools calls it."""


def _register_foreign(estimator: Any) -> None:
    """Makes the estimators of these packages known to skl2onnx, if this is one or ends in one.

    Raises:
        UnsupportedError: it is one, and onnxmltools is not installed.
    """
    for each in _within(estimator):
        package = type(each).__module__.partition(".")[0]
        if package in _FOREIGN:
            _register_package(package)


def _within(estimator: Any) -> Iterator[Any]:
    """The estimator and those that it holds."""
    yield estimator
    held = [step for _, step in getattr(estimator, "steps", ())]
    fitted = getattr(estimator, "estimators_", ())
    held += list(fitted) if isinstance(fitted, list | tuple) else []
    for inner in held:
        yield from _within(inner)


@cache
def _register_package(package: str) -> None:
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes

    prefix, alias = _FOREIGN[package]
    try:
        found = importlib.import_module(f"onnxmltools.convert.{package}.operator_converters.{alias}")
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"estimators of {package} need onnxmltools, which is not installed; run: pip install onnxmltools"
        ) from error
    library = importlib.import_module(package)
    convert = getattr(found, f"convert_{package}")
    for kind, shape, options in (
        (
            "Classifier",
            shapes.calculate_linear_classifier_output_shapes,
            {"nocl": [True, False], "zipmap": [True, False]},
        ),
        ("Regressor", shapes.calculate_linear_regressor_output_shapes, {"split": None}),
    ):
        name = f"{prefix}{kind}"
        update_registered_converter(getattr(library, name), f"{alias}{name}", shape, convert, options=options)
