"""Estimators without a rule, by skl2onnx: its graph is set into ours.

LightGBM's and XGBoost's estimators are made known to it, through the converters of onnxmltools.
"""

import copy
import importlib
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import spox.opset.ai.onnx.v18 as op
from spox import Var, inline

from penstock.names import MATRIX_INPUT
from penstock_server.errors import UnsupportedError, first_line
from penstock_server.features.spec.spec import Datatype
from penstock_tools.sklearn_compiler import kinds
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, width
from penstock_tools.sklearn_compiler.graph.plain_attributes import plain_attributes

OPSETS: Final = {"": 18, "ai.onnx.ml": 3}
"""Old enough for every onnxruntime that the server extra allows."""

_SCORES: Final[tuple[dict[str, bool], ...]] = ({"zipmap": False, "raw_scores": True}, {"raw_scores": True})
_PLAIN: Final[tuple[dict[str, bool], ...]] = ({"zipmap": False}, {})


def emit(estimator: Any, x: Var, context: Context) -> Answer:
    """What skl2onnx's graph of the estimator gives.

    Raises:
        UnsupportedError: there is no converter for it; says what is missing.
    """
    from sklearn.base import is_classifier, is_regressor

    _register_foreign(estimator)
    estimator = _as_known(estimator) or estimator
    if is_classifier(estimator):
        return _classifier(estimator, x, context)
    given = _inlined(estimator, x, context, ({},))
    if is_regressor(estimator):
        return Answer(prediction=_matrix(next(iter(given.values()))))
    if not hasattr(estimator, "predict"):
        return Answer(features=_matrix(next(iter(given.values()))))
    return Answer(label=_labels(given["label"]), probabilities=given.get("probabilities"), scores=given.get("scores"))


def _labels(var: Var) -> Var:
    shape = var.unwrap_tensor().shape
    return op.reshape(var, op.const([-1])) if shape is None or len(shape) == 2 else var


def has_converter(estimator: Any) -> bool:
    """Whether skl2onnx has a converter for it; what a function does it cannot read."""
    return _as_known(estimator) is not None


def _as_known(estimator: Any) -> Any:
    """The estimator, as the class for which skl2onnx has a converter; None where there is none."""
    # skl2onnx's public list has its own names for the classes, some for several.
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from sklearn.preprocessing import FunctionTransformer

    for kind in kinds.kinds(estimator):
        if kind in sklearn_operator_name_map and kind is not FunctionTransformer:
            if kind is type(estimator):
                return estimator
            same = copy.copy(estimator)
            same.__class__ = kind
            return same
    return None


def _classifier(estimator: Any, x: Var, context: Context) -> Answer:
    if not hasattr(estimator, "predict_proba"):
        label, scores = _inlined(estimator, x, context, _SCORES + _PLAIN).values()
        return Answer(label=label, scores=_as_scikit_learn(estimator, scores))
    label, probabilities = _inlined(estimator, x, context, _PLAIN).values()
    if isinstance(estimator.classes_, list):
        # Of several outputs skl2onnx gives probabilities [outputs, rows, classes].
        # Cast, because of trees it says that they are doubles when they are floats.
        all_of_them = op.cast(probabilities, to=context.dtype)
        each = [op.gather(all_of_them, op.const(at), axis=0) for at in range(len(estimator.classes_))]
        return Answer(label=label, each=tuple(Answer(probabilities=one) for one in each))
    if not context.wants_scores or not hasattr(estimator, "decision_function"):
        return Answer(label=label, probabilities=probabilities)
    _, scores = _inlined(estimator, x, context, _SCORES).values()
    return Answer(label=label, probabilities=probabilities, scores=_as_scikit_learn(estimator, scores))


def _as_scikit_learn(estimator: Any, scores: Var) -> Var:
    """skl2onnx gives s, or -s and s, of two classes, and does not always say which; scikit-learn gives s."""
    scores = _matrix(scores)
    return op.gather(scores, op.const([-1]), axis=1) if len(estimator.classes_) == 2 else scores


def _matrix(var: Var) -> Var:
    shape = var.unwrap_tensor().shape
    return op.reshape(var, op.const([-1, 1])) if shape is not None and len(shape) == 1 else var


def _inlined(estimator: Any, x: Var, context: Context, choices: tuple[dict[str, bool], ...]) -> dict[str, Var]:
    return inline(_without_functions(_converted(estimator, width(x), context.datatype, choices)))(x)


def _without_functions(model: Any) -> Any:
    """The model with the bodies of its functions in place of their calls, as spox must have it.

    Of functions of another opset than the model's nothing would be set in. The operators of skl2onnx's mean the same in
    both; where one would not, the checker refuses the model before it is published.
    """
    if not model.functions:
        return model
    from onnx import inliner

    for function in model.functions:
        for imported in function.opset_import:
            imported.version = OPSETS.get(imported.domain, imported.version)
    return inliner.inline_local_functions(model)


def _converted(estimator: Any, columns: int, datatype: Datatype, choices: tuple[dict[str, bool], ...]) -> Any:
    import skl2onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from skl2onnx.common.exceptions import MissingShapeCalculator

    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    tensor = FloatTensorType if datatype == "FP32" else DoubleTensorType
    for options in choices:
        try:
            with warnings.catch_warnings(), plain_attributes():
                warnings.simplefilter("ignore")
                model = skl2onnx.convert_sklearn(
                    estimator,
                    initial_types=[(MATRIX_INPUT, tensor([None, columns]))],
                    options={id(last): options} if options else None,
                    target_opset=OPSETS,
                )
        except NameError:
            # The converter has no such option; the next choice sets fewer.
            continue
        except MissingShapeCalculator as error:
            raise UnsupportedError(
                f"{type(last).__name__} does not become ONNX: skl2onnx has no converter for it; take another model"
            ) from error
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
