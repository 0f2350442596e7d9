"""The ONNX model of a fitted estimator, with the inputs and outputs that Penstock's models have."""

from collections.abc import Iterator
from typing import Any

import spox.opset.ai.onnx.v18 as op
from spox import Tensor, Var, argument, build

from penstock.names import MATRIX_INPUT
from penstock_server.features.spec.spec import Datatype
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.graph.convert import OPSETS
from penstock_tools.sklearn_compiler.graph.estimators import emit

IR_VERSION = 8
"""What these opsets were published with."""


def to_onnx(estimator: Any, width: int, datatype: Datatype = "FP32") -> Any:
    """The `onnx.ModelProto` of a fitted estimator, or of a pipeline that ends in one.

    Input `features` is of the datatype and the shape [rows, width]. A classifier's outputs are `label` (INT64 [rows], or
    strings where the labels are) and `probabilities` or `scores` [rows, classes]; a regressor's is `prediction`
    [rows, targets]; a transformer's is `features`.

    Raises:
        UnsupportedError: there is no converter for it; says what is missing.
    """
    context = Context(datatype, emit)
    matrix = argument(Tensor(context.dtype, ("rows", width)))
    return built(matrix, emit(estimator, matrix, context))


def built(matrix: Var, answer: Answer) -> Any:
    """The model that gives the answer for the matrix."""
    model = build({MATRIX_INPUT: matrix}, dict(_outputs(answer)))
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
        yield "features", op.identity(answer.features)
