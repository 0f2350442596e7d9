"""IsotonicRegression: straight lines between the values that it was fitted to, of one column."""

from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from sklearn.isotonic import IsotonicRegression
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context


def _isotonic(model: Any, x: Var, context: Context) -> Answer:
    if model.out_of_bounds == "raise":
        raise UnsupportedError(
            "IsotonicRegression refuses values beyond those of its fit, which no graph can; out_of_bounds='clip' and 'nan' "
            "answer them"
        )
    places, values = np.asarray(model.X_thresholds_, np.float64), np.asarray(model.y_thresholds_, np.float64)
    found = ops.interpolated(x, places, values, context)
    if model.out_of_bounds == "nan" and len(places) > 1:
        low, high = context.constant(places[0]), context.constant(places[-1])
        is_beyond = op.or_(op.less(x, low), op.greater(x, high))
        found = op.where(is_beyond, context.constant(np.nan), found)
    return Answer(prediction=found)


RULES: Final = {IsotonicRegression: _isotonic}
