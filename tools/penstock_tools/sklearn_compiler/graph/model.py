"""The ONNX model of a fitted estimator, with the inputs and outputs that Penstock's models have."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Tensor, Var, argument, build

from penstock.names import MATRIX_INPUT
from penstock.tensors import NUMPY_TYPES
from penstock_server.errors import PenstockError, UnsupportedError, first_line
from penstock_server.features.spec.spec import Datatype
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.graph.convert import OPSETS
from penstock_tools.sklearn_compiler.graph.estimators import emit, follow
from penstock_tools.sklearn_compiler.graph.plan import Plan

IR_VERSION: Final = 8
"""What these opsets were published with."""

TRANSFORMER_INPUT: Final = "matrix"
"""The input of a model that gives features; an output cannot be called as the input is."""


def to_onnx(estimator: Any, width: int, datatype: Datatype = "FP32") -> Any:
    """The `onnx.ModelProto` of a fitted estimator, or of a pipeline that ends in one.

    Input `features` is of the datatype and the shape [rows, width]. The outputs are those of `planned`.

    Raises:
        UnsupportedError: there is neither a rule nor a converter for it; says what is missing.
    """
    matrix, context = _begun(width, datatype)
    return _written(estimator, lambda: _built(matrix, emit(estimator, matrix, context)))


def planned(plan: Plan, width: int, datatype: Datatype = "FP32") -> Any:
    """The `onnx.ModelProto` of a compiled pipeline.

    A classifier's outputs are `label` (INT64 [rows], or strings where the labels are) and `probabilities`, or `scores`
    where it has none, [rows, classes]; of two classes scores are [rows, 1]. One of several outputs has labels
    [rows, outputs], and `probabilities_0`, `probabilities_1` and so on. A regressor's output is `prediction`
    [rows, targets], a transformer's `features`, a clusterer's `label` and `scores`.

    Args:
        plan: what reaches which estimator.
        width: columns of the graph's input, which the specification's block gives.
        datatype: what the graph computes in.

    Raises:
        UnsupportedError: an estimator has neither a rule nor a converter; says what is missing.
    """
    matrix, context = _begun(width, datatype)
    return _written(plan.estimator, lambda: _built(matrix, follow(plan, context)))


def _written(estimator: Any, write: Callable[[], Any]) -> Any:
    """What is written; whatever goes wrong is told as something that the graph cannot do.

    Fitted objects come from many versions of many libraries. One without an attribute that a rule reads is none that can be
    compiled, and may still be served as it is.
    """
    try:
        return write()
    except PenstockError:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"the graph of {type(estimator).__name__} cannot be written: {first_line(error)}"
        ) from error


def _begun(width: int, datatype: Datatype) -> tuple[Var, Context]:
    matrix = argument(Tensor(np.dtype(NUMPY_TYPES[datatype]), ("rows", width)))
    return matrix, Context(datatype, matrix, emit)


def _built(matrix: Var, answer: Answer) -> Any:
    name = MATRIX_INPUT if answer.features is None else TRANSFORMER_INPUT
    model = build({name: matrix}, dict(_outputs(answer)))
    del model.opset_import[:]
    for domain, version in OPSETS.items():
        # All rules use these; spox writes the lowest versions that would do.
        added = model.opset_import.add()
        added.domain, added.version = domain, version
    model.ir_version = IR_VERSION
    return model


def _outputs(answer: Answer) -> Iterator[tuple[str, Var]]:
    if answer.prediction is not None:
        yield "prediction", answer.prediction
    if answer.label is not None:
        yield "label", answer.label
    if answer.probabilities is not None:
        yield "probabilities", answer.probabilities
    elif answer.scores is not None:
        yield "scores", answer.scores
    for at, each in enumerate(answer.each):
        if each.probabilities is not None:
            yield f"probabilities_{at}", each.probabilities
    if answer.features is not None:
        # What passes through would be an input without a node.
        yield "features", op.identity(answer.features)
