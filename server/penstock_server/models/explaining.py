"""A version that gives attributions beside its answers: the same pipeline and graph as the version itself, and one output more.

Requests that ask for attributions run in an executor of their own, so that all others pay nothing for them.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.names import (
    ATTRIBUTIONS,
    PARAMETER_BASE,
    PARAMETER_CLASSES,
    PARAMETER_COLUMNS,
    PARAMETER_METHOD,
    PARAMETER_OF,
)
from penstock_server.errors import RefusedByModelError
from penstock_server.explain.attributor import Attributor
from penstock_server.models.servable import Blocks, Given, OnnxServable, Outputs, Shapes
from penstock_server.models.signature import ANY, TensorInfo


class ExplainingServable(OnnxServable):
    """The version with attributions as its last output.

    Args:
        plain: the version itself, with its decision on batching.
        attributor: gives the attributions of what the pipeline makes of rows.
    """

    def __init__(self, plain: OnnxServable, attributor: Attributor) -> None:
        super().__init__(plain.key, plain.artifact, plain.model, plain.pipeline)
        self.batching, self.is_batched = plain.batching, plain.is_batched
        self.kernels = plain.kernels
        self.outputs = (*plain.outputs, described(attributor))
        self._attributor = attributor
        self._tails = [*plain.tails, attributor.row_shape]
        self._share_runs(plain)

    def _predict(
        self, blocks: Blocks, rows: int, shapes: Shapes | None, cells: NDArray[np.int64] | None, given: Given
    ) -> Outputs:
        if given:
            raise RefusedByModelError(
                f"attributions are of the model with its defaults, and input {given[0].name!r} is given; leave out one or the "
                "other"
            )
        return super()._predict(blocks, rows, shapes, cells, given)

    def _added(self, matrix: NDArray[Any]) -> list[NDArray[Any]]:
        return [self._attributor.run(matrix)]


def described(attributor: Attributor) -> TensorInfo:
    """The output: what each of its numbers is about, and what they add up to, are parameters of the tensor."""
    meaning = attributor.meaning
    classes = meaning.labels or ((meaning.label,) if meaning.label else ())
    parameters = {
        PARAMETER_COLUMNS: json.dumps(attributor.columns, ensure_ascii=False),
        PARAMETER_BASE: json.dumps(meaning.base),
        PARAMETER_OF: meaning.of,
        PARAMETER_METHOD: attributor.method,
    }
    if classes:
        parameters[PARAMETER_CLASSES] = json.dumps(classes, ensure_ascii=False)
    return TensorInfo(ATTRIBUTIONS, "FP64", (ANY, *attributor.row_shape), parameters=tuple(sorted(parameters.items())))
